//! The controller that turns a `YoloTrainingJob` into worker pods and keeps them together.
//!
//! ```text
//!             ┌──────────── pure: no client, no clock, no randomness ───────────┐
//!  observe ──> validate ──> plan ──> build ──> apply ──> status ──> one patch
//!  (reads)                                    (writes)
//! ```
//!
//! A reconcile first plans from the watch caches. Only a plan that would change something is made again,
//! from a fresh read, and then carried out; so a cache that lags behind never creates or restarts
//! anything.
//!
//! In reading order:
//! - [`settings`]: flags and environment. [`run`]: wires everything and joins it.
//! - [`training_job`]: the pipeline. Its `plan` and `restart` hold the decisions.
//! - [`context`]: what a reconcile may hold. [`poller`]: reads the agents' progress, outside reconcile;
//!   [`progress_board`]: what they last said.
//! - [`kueue`]: the part of its API that is used.
//! - [`conditions`], [`events`], [`metadata`], [`retry`]: small pure parts.
//! - [`lease`], [`http`], [`metrics`], [`telemetry`]: the process around it.

pub mod conditions;
pub mod context;
pub mod events;
pub mod http;
pub mod kueue;
pub mod lean;
pub mod lease;
pub mod metadata;
pub mod metrics;
pub mod pod_index;
pub mod poller;
pub mod progress_board;
pub mod retry;
pub mod run;
pub mod settings;
#[cfg(test)]
mod sim;
pub mod telemetry;
pub mod training_job;
