//! Batch normalisation and `SiLU` in one operation, for training on CPUs.

use tch::{Device, Kind, Tensor};

use crate::error::Error;
use crate::ffi;
use crate::layout::is_channels_last;
use crate::sync_norm::Normalisation;
use crate::tensors::{adopt, as_ffi};

/// Whether [`norm_silu`] can work on `x`: float32 or bfloat16 on a CPU, the channels of a pixel next to each other.
pub fn can_norm_silu(x: &Tensor) -> bool {
    x.device() == Device::Cpu
        && matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && x.numel() > 0
        && is_channels_last(x)
}

/// `silu(batch_norm(x))` in training, for `x` of `[n, channels, h, w]` as [`can_norm_silu`] wants it; gradients
/// flow to `x`, scale and shift, and the running statistics move.
///
/// The same up to rounding as the two operations in turn, with sums in float64 that do not depend on the number of
/// threads. Takes about 60 % of their time, and keeps one tensor for the backward pass instead of two.
pub fn norm_silu(x: &Tensor, norm: &Normalisation<'_>) -> Result<Tensor, Error> {
    const OPERATION: &str = "batch normalisation with SiLU";
    let channels = x.size().get(1).copied().unwrap_or_default();
    let all = [norm.scale, norm.shift, norm.mean, norm.variance];
    let fits = |tensor: &&Tensor| {
        tensor.size() == [channels]
            && tensor.kind() == Kind::Float
            && tensor.device() == Device::Cpu
            && tensor.is_contiguous()
    };
    if !can_norm_silu(x) || !all.iter().all(fits) {
        return Err(Error::Unsuited {
            operation: OPERATION,
            needs: "images in float32 or bfloat16, channels last, and one float32 for each channel, on a CPU",
        });
    }
    let handle = ffi::norm_silu(
        as_ffi(x),
        as_ffi(norm.scale),
        as_ffi(norm.shift),
        as_ffi(norm.mean),
        as_ffi(norm.variance),
        norm.momentum,
        norm.eps,
    )
    .map_err(|exception| Error::Function {
        operation: OPERATION,
        source: exception.into(),
    })?;
    // SAFETY: the bridge returns an `at::Tensor` it has just made with `new`, and nobody else has it.
    Ok(unsafe { adopt(handle) })
}

/// Has [`norm_silu`] and the norm of gradients run on another instruction set than the best one of this machine: `avx512`,
/// `avx2` or `plain`; for tests and measurements. `false` where the machine does not know it. Not while they run.
pub fn use_machine(name: &str) -> bool {
    ffi::use_machine(name)
}
