//! Trains, evaluates and runs `YOLOv5`: the program `yolo-trainer`.
//!
//! ```text
//! cli          arguments            -> one of the commands below
//! commands     arguments            -> what each subcommand does
//! job          manifest or pod      -> what to train, and this process's place among the ranks
//! session      job                  -> device, data, ranks and state, ready to go on
//! train        session                 -> a run folder with checkpoints, weights and results
//! evaluate     weights, data set    -> precision, recall, mAP
//! initial      weights of others    -> what a run begins with
//! predict      weights, pictures    -> annotated pictures
//! bench        model                -> how long a training step takes here
//! export       weights              -> a file for another program
//! info         model or weights     -> a table of layers
//! convert      options of YOLOv5     -> a manifest
//! inspect      data set             -> what it holds, which anchors fit it
//! distributed  ranks                -> what all of them compute together
//! gallery      epochs, pictures     -> what a run leaves for people
//! checkpoint   state                -> folders that survive a crash, and back
//! agent_link   progress             -> the agent of this worker
//! ```

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests let time pass")
)]

pub mod agent_link;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod console;
pub mod convert;
pub mod device;
pub mod distributed;
pub mod durable;
pub mod error;
pub mod evaluate;
pub mod export;
pub mod finder;
pub mod gallery;
pub mod info;
mod initial;
pub mod inspect;
pub mod job;
pub mod manifest;
mod memory;
pub mod output_folder;
pub mod pictures;
pub mod predict;
pub mod report;
pub mod results;
pub mod run_folder;
pub mod scaler;
pub mod session;
pub mod shutdown;
pub mod sources;
pub mod step;
pub mod threads;
pub mod train;
pub mod weights;

/// The name of this machine or pod; empty if the system does not tell.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
