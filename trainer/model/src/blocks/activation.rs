//! Activations as functions of tensors.

use tch::{TchError, Tensor};

use crate::architecture::Activation;

/// The activation of `x`, which stays as it is.
pub(crate) fn activate(activation: Activation, x: &Tensor) -> Result<Tensor, TchError> {
    match activation {
        Activation::Silu => x.f_silu(),
        Activation::Relu => x.f_relu(),
        Activation::Relu6 => x.f_relu6(),
        Activation::LeakyRelu(slope) => bridged(torch_bridge::leaky_relu(x, slope)),
        Activation::Hardswish => x.f_hardswish(),
        Activation::Mish => x.f_mish(),
        Activation::Gelu => x.f_gelu("none"),
        Activation::Elu(alpha) => bridged(torch_bridge::elu(x, alpha)),
        Activation::Identity => Ok(x.shallow_clone()),
    }
}

/// The activation of values that nobody else needs and no gradient is taken of.
pub(crate) fn activate_own(activation: Activation, mut x: Tensor) -> Result<Tensor, TchError> {
    match activation {
        Activation::Silu => x.f_silu_(),
        Activation::Relu => x.f_relu_(),
        Activation::Hardswish => x.f_hardswish_(),
        Activation::Mish => x.f_mish_(),
        Activation::Identity => Ok(x),
        other => activate(other, &x),
    }
}

pub(super) fn bridged(result: Result<Tensor, torch_bridge::Error>) -> Result<Tensor, TchError> {
    result.map_err(|error| {
        TchError::Torch(match error.fault() {
            Some(fault) => format!("{error}: {fault}"),
            None => error.to_string(),
        })
    })
}
