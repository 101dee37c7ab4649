//! What tch lacks of libtorch: process groups, the DDP reducer, synchronised batch normalisation, fused optimizers, autocast, global settings.
//!
//! # Safety
//!
//! This crate holds the project's only unsafe code and only C++. The rules of the binding:
//!
//! 1. **One boundary.** `src/ffi.rs` declares every C++ function that is linked, through cxx, which checks both
//!    sides' signatures when compiling. `src/cuda.rs` is the one exception: it loads a C interface at run time and
//!    compares a version number first. C++ decides nothing; it only forwards. What it
//!    computes itself are operations with a gradient of their own, which Rust cannot define: `cpp/norm_silu.cpp`
//!    (with its arithmetic on plain memory in `cpp/norm_silu_kernels.cpp`), `cpp/pick.cpp`, `cpp/sync_norm.cpp`.
//! 2. **Handles are `at::Tensor`s.** tch's `C_tensor` is an `at::Tensor` behind a pointer, and so is ours. A borrowed
//!    one lives as long as the borrow (`tensors::as_ffi`); an owned one was made by `new` and has one owner
//!    (`tensors::adopt`). This holds for exactly the version of tch that `Cargo.toml` pins.
//! 3. **Mutation shows.** A function that changes a tensor takes `&mut` or the tensor itself, even where C++ says
//!    `const`. tch can alias tensors (`shallow_clone`, views, gradients), so `&mut` is a promise to readers rather
//!    than exclusion; races over aliases are kept out by tensors not being `Sync`.
//! 4. **What is in use stays alive.** Lists cross as owned handles; a [`Work`] keeps its tensors, a [`Reducer`] its
//!    parameters and the group's connections.
//! 5. **One thread per group.** Gloo counts operations without a lock, so [`ProcessGroup`], [`Work`] and [`Reducer`]
//!    are not `Send`. A [`Store`] is `Send`; c10d's stores lock themselves. Several threads may each have groups:
//!    libtorch's flight recorder, which would race between them, is switched off unless `TORCH_FR_BUFFER_SIZE` is set.
//! 6. **Exceptions end at the boundary.** Every C++ function that can throw returns a `Result`, with libtorch's text
//!    as an [`error::Fault`]. cxx ends the process if one declared not to throw does.
//!
//! # Programs that link this crate
//!
//! A run path belongs to the final program. Its build script prints
//! `cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib` for an image whose `lib/` holds libtorch, and, for runs
//! from the target folder, a second one with the value of `DEP_TORCH_BRIDGE_LIBTORCH_LIB`.

mod activation;
pub mod autocast;
pub mod cuda;
pub mod error;
mod ffi;
pub mod group;
pub mod layout;
mod norm_silu;
pub mod optim;
mod pick;
pub mod reducer;
pub mod runtime;
pub mod store;
pub mod sync_norm;
mod tensors;

pub use activation::{elu, leaky_relu};
pub use autocast::Autocast;
pub use cuda::{Cuda, NoCuda};
pub use error::{Error, Fault};
pub use group::{Backend, GroupOptions, ProcessGroup, ReduceOp, Work};
pub use layout::{contiguous_channels_last, is_channels_last};
pub use norm_silu::{
    Besides, Split, Twice, can_norm_silu, norm_silu, norm_silu_with, split_norm_silu, use_machine,
};
pub use pick::pick;
pub use reducer::{Compression, Reducer, ReducerOptions, verify_params};
pub use store::{Store, TcpStoreOptions};
pub use sync_norm::{Normalisation, SyncNorm};
