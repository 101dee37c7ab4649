//! The file in which all ranks of a worker keep decoded images, so that each is decoded once and kept once.
//!
//! ```text
//! memory  how much may be taken
//! make    the file, by the agent for its ranks, in memory or on a scratch volume; its length is the limit
//! file    where each image lies in it, put there by the first rank that needs it and read by all
//! ```
//!
//! Nothing here knows what an image is: only how many bytes it takes.

pub mod file;
pub mod make;
pub mod memory;

pub use file::{CacheFile, Key};
pub use make::{MakeError, hand_down, in_memory, make, take_over};
