//! Memory layout of image tensors.

use tch::Tensor;

use crate::error::Error;
use crate::ffi;
use crate::tensors::{adopt, as_ffi};

/// `tensor`, of shape `[n, c, h, w]`, with the channels of a pixel next to each other in memory. The shape stays;
/// a tensor that lies so already is returned as it is. Gradients flow through.
pub fn contiguous_channels_last(tensor: &Tensor) -> Result<Tensor, Error> {
    let handle =
        ffi::contiguous_channels_last(as_ffi(tensor)).map_err(|exception| Error::ChannelsLast {
            shape: tensor.size(),
            source: exception.into(),
        })?;
    // SAFETY: the bridge returns an `at::Tensor` it has just made with `new`, and nobody else has it.
    Ok(unsafe { adopt(handle) })
}

/// Whether `tensor` has four dimensions and the channels of a pixel lie next to each other. True of tensors with
/// one channel or one pixel in any layout.
pub fn is_channels_last(tensor: &Tensor) -> bool {
    ffi::is_channels_last(as_ffi(tensor))
}
