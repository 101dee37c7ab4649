//! A simulated cluster for tests: it carries out what the pipeline decides, and a script moves its pods,
//! its clock and its disasters. What a run did is a transcript.

mod cluster;
mod disorder;
pub mod fixture;
mod scheduling;
mod script;
mod show;
mod transcript;

pub use script::play;
