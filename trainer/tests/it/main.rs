//! The trainer as a program: real processes, real checkpoints, a fake agent.

#![allow(clippy::disallowed_methods, reason = "tests let time pass")]

mod agent;
mod architectures;
mod commands;
mod export;
mod gradients;
mod harness;
mod image_cache;
mod initial;
mod learning;
mod messages;
mod options;
mod ranks;
mod recovery;
mod report;
mod resume;
mod snapshots;
