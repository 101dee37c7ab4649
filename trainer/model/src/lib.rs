//! YOLOv5 v7.0 networks and others of its modules, their loss, average of weights and optimiser on libtorch.
//!
//! ```text
//! architecture   model file         -> layers, sizes, and the names and shapes of tensors (pure)
//! blocks         module             -> its tensors, what becomes of shapes and of values
//! init           seed, name         -> initial values (pure)
//! state          slots              -> tensors under YOLOv5's state-dict names; export, import
//! network        images             -> raw predictions, decoded boxes; fused for inference
//! assign         targets, grids     -> which cells answer for which boxes (pure)
//! sums, loss     raw, assignment    -> sums; sums and counts -> the loss
//! detect         decoded boxes      -> detections of each image
//! ema, optim     network, gradients -> averaged weights, the next weights
//! ```
//!
//! # What holds everywhere
//!
//! - **Values do not depend on layout.** Channels-last changes where numbers lie in memory, never
//!   shapes or exports; a checkpoint written from either is the same bytes.
//! - **Nothing is random** but initial weights, and those depend on seed and parameter name alone.
//! - **No operation adds in an order that threads decide**, so equal inputs with an equal number of
//!   threads give equal bits on the CPU.
//! - **Nothing here waits for a GPU** except `export`, `detections` and comparisons.
//! - The crate reads no file, knows no process group and keeps no global state.
//!
//! "YOLOv5 v7.0 behaviour" in a comment means that the formula gives that program's numbers; the
//! tests hold vectors produced by running it in double precision.

pub mod architecture;
mod assign;
mod augmented;
mod blocks;
mod ciou;
pub mod detect;
pub mod ema;
mod error;
mod init;
pub mod loss;
pub mod network;
pub mod optim;
mod options;
pub mod state;
mod sums;

#[cfg(test)]
mod testing;

pub use error::Error;
