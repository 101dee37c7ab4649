//! Activations whose number tch does not pass on. Gradients flow through.

use tch::Tensor;

use crate::error::Error;
use crate::ffi;
use crate::tensors::{adopt, as_ffi};

/// `x` where it is positive, else `slope · x`.
pub fn leaky_relu(x: &Tensor, slope: f64) -> Result<Tensor, Error> {
    take(ffi::leaky_relu(as_ffi(x), slope), "leaky ReLU")
}

/// `x` where it is positive, else `alpha · (exp(x) - 1)`.
pub fn elu(x: &Tensor, alpha: f64) -> Result<Tensor, Error> {
    take(ffi::elu(as_ffi(x), alpha), "ELU")
}

fn take(
    result: Result<*mut ffi::Tensor, cxx::Exception>,
    operation: &'static str,
) -> Result<Tensor, Error> {
    let handle = result.map_err(|exception| Error::Function {
        operation,
        source: exception.into(),
    })?;
    // SAFETY: both functions return an `at::Tensor` they have just made with `new`, and nobody else has it.
    Ok(unsafe { adopt(handle) })
}
