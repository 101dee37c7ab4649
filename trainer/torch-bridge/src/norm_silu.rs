//! Batch normalisation and `SiLU` in one operation, for training on CPUs.

use cxx::UniquePtr;
use tch::{Device, Kind, Tensor};

use crate::error::Error;
use crate::ffi;
use crate::layout::is_channels_last;
use crate::sync_norm::Normalisation;
use crate::tensors::{as_ffi, list, unlist};

/// Whether [`norm_silu`] can work on `x`: float32 or bfloat16 on a CPU, the channels of a pixel next to each other.
pub fn can_norm_silu(x: &Tensor) -> bool {
    x.device() == Device::Cpu
        && matches!(x.kind(), Kind::Float | Kind::BFloat16)
        && x.numel() > 0
        && is_channels_last(x)
}

/// What [`norm_silu_with`] does besides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Besides<'a> {
    /// Added to its result: of the same shape and kind.
    pub added: Option<&'a Tensor>,
    /// [`Split::last`] of something with as many images of the same size and kind: the result is written before its
    /// channels, and both are returned as one, `[n, channels + more, h, w]`.
    pub beside: Option<&'a Tensor>,
    /// Whether the result is returned a second time, see [`Twice`].
    pub twice: bool,
}

/// A result for who needs it, and once more for another who does: the gradients of both are added up where they are
/// used, which saves an addition of its own.
#[derive(Debug)]
pub struct Twice {
    /// The result.
    pub result: Tensor,
    /// The same memory, where it was asked for.
    pub again: Option<Tensor>,
}

/// What [`split_norm_silu`] makes.
#[derive(Debug)]
pub struct Split {
    /// Of the first channels.
    pub first: Twice,
    /// Of the other channels, with room for as many as the first before them.
    pub last: Tensor,
}

const OPERATION: &str = "batch normalisation with SiLU";

/// `silu(batch_norm(x))` in training, for `x` of `[n, channels, h, w]` as [`can_norm_silu`] wants it; gradients
/// flow to `x`, scale and shift, and the running statistics move.
///
/// The same up to rounding as the two operations in turn, with sums in float64 that do not depend on the number of
/// threads. Takes about 60 % of their time, and keeps one tensor for the backward pass instead of two.
pub fn norm_silu(x: &Tensor, norm: &Normalisation<'_>) -> Result<Tensor, Error> {
    norm_silu_with(x, norm, &Besides::default()).map(|made| made.result)
}

/// [`norm_silu`], and what else can be done while its result is at hand.
pub fn norm_silu_with(
    x: &Tensor,
    norm: &Normalisation<'_>,
    besides: &Besides<'_>,
) -> Result<Twice, Error> {
    check(x, &[norm])?;
    let like_x = |added: &Tensor| added.size() == x.size() && added.kind() == x.kind();
    if !besides.added.is_none_or(like_x) {
        return Err(unsuited("a summand of the same shape and kind"));
    }
    let made = ffi::norm_silu(
        as_ffi(x),
        &tensors(norm),
        norm.momentum,
        norm.eps,
        &list(besides.added.as_slice()),
        &list(besides.beside.as_slice()),
        besides.twice,
    );
    let mut made = made
        .and_then(|made| unlist(&made))
        .map_err(failed)?
        .into_iter();
    Ok(Twice {
        result: made.next().ok_or_else(nothing)?,
        again: made.next(),
    })
}

/// [`norm_silu`] of the first channels of `x` and of all others, with a normalisation each: what two convolutions of the
/// same images made that were computed as one. The numbers are those of `first`.
pub fn split_norm_silu(
    x: &Tensor,
    first: &Normalisation<'_>,
    last: &Normalisation<'_>,
    twice: bool,
) -> Result<Split, Error> {
    check(x, &[first, last])?;
    let made = ffi::split_norm_silu(
        as_ffi(x),
        &tensors(first),
        &tensors(last),
        first.momentum,
        first.eps,
        twice,
    );
    let mut made = made.and_then(|made| unlist(&made)).map_err(failed)?;
    let last = made.pop().ok_or_else(nothing)?;
    let mut made = made.into_iter();
    Ok(Split {
        first: Twice {
            result: made.next().ok_or_else(nothing)?,
            again: made.next(),
        },
        last,
    })
}

fn tensors(norm: &Normalisation<'_>) -> UniquePtr<ffi::Tensors> {
    list(&[norm.scale, norm.shift, norm.mean, norm.variance])
}

/// Whether `x` is as it has to be, and these normalisations together have as many channels.
fn check(x: &Tensor, norms: &[&Normalisation<'_>]) -> Result<(), Error> {
    let channels = x.size().get(1).copied().unwrap_or_default();
    let mut of_norms = 0;
    let mut fit = true;
    for norm in norms {
        let own = norm.scale.size();
        of_norms += own.first().copied().unwrap_or_default();
        fit &= own.len() == 1
            && [norm.scale, norm.shift, norm.mean, norm.variance]
                .iter()
                .all(|tensor| {
                    tensor.size() == own
                        && tensor.kind() == Kind::Float
                        && tensor.device() == Device::Cpu
                        && tensor.is_contiguous()
                });
    }
    if fit && of_norms == channels && can_norm_silu(x) {
        Ok(())
    } else {
        Err(unsuited(
            "images in float32 or bfloat16, channels last, and one float32 for each channel, on a CPU",
        ))
    }
}

fn unsuited(needs: &'static str) -> Error {
    Error::Unsuited {
        operation: OPERATION,
        needs,
    }
}

fn failed(exception: cxx::Exception) -> Error {
    Error::Function {
        operation: OPERATION,
        source: exception.into(),
    }
}

fn nothing() -> Error {
    unsuited("a bridge that returns what it made")
}

/// Has [`norm_silu`] and the norm of gradients run on another instruction set than the best one of this machine: `avx512`,
/// `avx2` or `plain`; for tests and measurements. `false` where the machine does not know it. Not while they run.
pub fn use_machine(name: &str) -> bool {
    ffi::use_machine(name)
}
