//! Checkpoints: the whole state of a run at a boundary between two steps of the optimiser.
//!
//! ```text
//! checkpoints/
//!   step-000000123/       named after the training steps done
//!     model.safetensors       v5's state-dict names, NCHW, whole tensors
//!     ema.safetensors         the averaged weights, same names
//!     optimizer.safetensors   momentum buffers, by parameter name
//!     state.json              everything else ([`RunState`])
//!     manifest.json           size and BLAKE3 of the four
//!   last, best            the name of a folder, replaced by renaming
//! ```
//!
//! A folder is written under a temporary name, synced, and renamed, so a folder named `step-…` is whole
//! unless the storage damaged it later; [`CheckpointStore::newest_whole`] makes sure.

mod state;
mod store;
mod tensors;
mod writer;

pub use state::{EpochSums, FORMAT_VERSION, Machine, RunState};
pub use store::{CheckpointError, CheckpointStore, Found, Loaded, Pointer, Written};
pub use tensors::{NamedTensors, TensorFileError, decode, encode};
pub use writer::{Job, Saved, Writer};

/// Tensors of the network as it is trained.
pub const MODEL: &str = "model.safetensors";
/// Tensors of the averaged network.
pub const EMA: &str = "ema.safetensors";
/// Momentum of the optimiser.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The rest of the state.
pub const STATE: &str = "state.json";
/// Sizes and checksums of the others.
pub const MANIFEST: &str = "manifest.json";
