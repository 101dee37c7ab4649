//! Other programs' files of weights: read into names, shapes and bytes, and written.
//!
//! ```text
//!  file ── archive ──> pickle ──> modules ──> tensors and what the file says of its network
//!   └──── safetensors ───────────────────────────^
//! ```
//!
//! [`onnx`] and [`pickle::write`] go the other way.
//!
//! Files may come from anybody: no code in them is run, every size in them is checked against the file's own
//! before memory is taken, and what cannot be used is refused with its place. No tensor library is needed here.

mod archive;
mod error;
mod file;
mod modules;
pub mod onnx;
pub mod pickle;
mod tensor;
mod views;

pub use archive::{ArchiveEntry, MAX_BYTES, add_to_archive, write_archive};
pub use error::FormatError;
pub use file::{Container, Description, WeightsFile};
pub use modules::FoundActivation;
pub use tensor::{Dtype, NamedTensor};
