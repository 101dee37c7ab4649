//! Trains, evaluates and runs `YOLOv5`: the program `yolo-trainer`.
//!
//! ```text
//! cli          arguments            -> one of the commands below
//! job          manifest or pod      -> what to train, and this process's place among the ranks
//! train        job                  -> a run folder with checkpoints, weights and results
//! evaluate     weights, data set    -> precision, recall, mAP
//! predict      weights, pictures    -> annotated pictures
//! distributed  ranks                -> what all of them compute together
//! checkpoint   state                -> folders that survive a crash, and back
//! agent_link   progress             -> the agent of this worker
//! ```

pub mod agent_link;
pub mod checkpoint;
pub mod cli;
pub mod console;
mod device;
pub mod distributed;
pub mod durable;
pub mod error;
pub mod evaluate;
pub mod job;
mod losses;
pub mod manifest;
mod memory;
pub mod predict;
pub mod results;
pub mod run_folder;
pub mod shutdown;
pub mod threads;
pub mod train;
pub mod weights;

/// The name of this machine or pod; empty if the system does not tell.
pub fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}
