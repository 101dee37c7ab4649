//! Batch normalisation by the images of all ranks.

use tch::Tensor;

use crate::error::{Collective, Error, Fault};
use crate::ffi;
use crate::group::{ProcessGroup, check_usable};
use crate::tensors::{adopt, as_ffi};

/// The tensors of one normalisation, each `[channels]`, and its numbers.
#[derive(Debug)]
pub struct Normalisation<'a> {
    /// Factor after normalising.
    pub scale: &'a Tensor,
    /// Summand after that.
    pub shift: &'a Tensor,
    /// Running mean; changed.
    pub mean: &'a Tensor,
    /// Running variance; changed.
    pub variance: &'a Tensor,
    /// Share of a batch in the running statistics.
    pub momentum: f64,
    /// Added to a variance before its root is taken.
    pub eps: f64,
}

/// The ranks whose images are normalised together in one forward pass.
///
/// What PyTorch's `SyncBatchNorm` computes, on CPUs too: k ranks with shares of a batch get what one rank with the
/// whole batch gets, up to rounding, and all get the same running statistics, bit for bit. Each normalisation is
/// one all-gather of `2 * channels + 1` numbers in the forward and one all-reduce of `2 * channels` in the backward
/// pass, which all ranks must take part in, in the same order.
#[derive(Clone, Copy, Debug)]
pub struct SyncNorm<'a> {
    group: &'a ProcessGroup,
    counts: bool,
}

impl<'a> SyncNorm<'a> {
    /// Of the ranks of `group`. A rank whose images do not count (`counts`: it has none, and computes with
    /// something else so as to take part) changes nothing for the others. Its gradients must be 0.
    pub fn new(group: &'a ProcessGroup, counts: bool) -> Self {
        Self { group, counts }
    }

    /// Normalises `x` `[images, channels, height, width]`, for training.
    pub fn batch_norm(&self, x: &Tensor, norm: &Normalisation<'_>) -> Result<Tensor, Error> {
        let broken = self.group.broken();
        check_usable(&broken)?;
        let settings = ffi::SyncNormSettings {
            counts: self.counts,
            momentum: norm.momentum,
            eps: norm.eps,
        };
        let handle = ffi::sync_batch_norm(
            &self.group.inner,
            as_ffi(x),
            as_ffi(norm.scale),
            as_ffi(norm.shift),
            as_ffi(norm.mean),
            as_ffi(norm.variance),
            &settings,
        )
        .map_err(|exception| {
            // Wherever it failed, the other ranks may have gone on.
            broken.set(Some(Collective::AllGather));
            Error::Function {
                operation: "batch normalisation over all ranks",
                source: Fault::from(exception),
            }
        })?;
        // SAFETY: the bridge returns an `at::Tensor` it has just made with `new`, and nobody else has it.
        Ok(unsafe { adopt(handle) })
    }
}
