//! The trainer's mathematics: no tensors, no I/O.
//!
//! Every function here is pure: clocks, seeds and file contents are arguments, and the same
//! arguments give the same result on every rank, with any number of ranks and threads.
//! The crate never reads a file, never asks for the time and keeps no global random state.
//!
//! ```text
//! labels, data_yaml            text        -> labels, class names, or problems in words
//! rng, sampler, rect           seed, epoch -> which images, in which order, on which rank
//! letterbox, affine, mosaic,
//! mosaic9                      sizes       -> where pixels and boxes go
//! schedule, ema                counters    -> learning rates, decay
//! anchors, autoanchor          box sizes   -> how well anchors fit, better ones
//! nms, fusion,
//! average_precision,
//! confusion                    predictions -> detections, precision, recall, mAP, mix-ups
//! topology, retention,
//! progress, early_stopping,
//! overfitting                  numbers     -> decisions of the training loop, and what it says
//! ```
//!
//! "YOLOv5 v7.0 behaviour" in a comment means that the formula gives that program's numbers; the
//! tests hold vectors produced by running it.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that unwraps fails with the error"
    )
)]

pub mod affine;
pub mod anchors;
pub mod auto_batch;
pub mod autoanchor;
pub mod average_precision;
pub mod boxes;
pub mod confusion;
pub mod data_yaml;
pub mod detection;
pub mod early_stopping;
pub mod ema;
pub mod fusion;
pub mod image_stats;
pub mod image_weights;
pub mod labels;
pub mod letterbox;
pub mod mosaic;
pub mod mosaic9;
pub mod multi_scale;
pub mod nms;
pub mod overfitting;
pub mod progress;
pub mod quad;
pub mod rect;
pub mod retention;
pub mod rng;
pub mod sampler;
pub mod schedule;
pub mod segments;
pub mod stats_bytes;
pub mod topology;
