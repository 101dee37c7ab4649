//! Updates of whole lists of tensors in one call: on CUDA one kernel for many tensors, on CPU one call for all.
//!
//! Nothing here records gradients, and nothing waits for a GPU.

use tch::{Device, Kind, Tensor};

use crate::error::{Error, Fault};
use crate::ffi;
use crate::tensors::{as_ffi, list, unlist};

/// Settings of one step of stochastic gradient descent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedSgd {
    /// Learning rate.
    pub lr: f64,
    /// Share of the last step's direction that is kept.
    pub momentum: f64,
    /// Pull of parameters towards 0, added to their gradients.
    pub weight_decay: f64,
    /// Whether to look one step of momentum ahead.
    pub nesterov: bool,
    /// Whether `momentum_buffers` hold nothing yet: they become copies of the gradients.
    pub first_step: bool,
}

/// What mixed precision adds to a step: both are tensors of one `f32` on the parameters' device.
#[derive(Debug, Clone, Copy)]
pub struct GradScale<'a> {
    /// Gradients are divided by this, in place, before use. `None` when they already were.
    pub scale: Option<&'a Tensor>,
    /// When 1, the step changes nothing.
    pub found_inf: &'a Tensor,
}

/// One step of SGD on `params`, as PyTorch's `torch.optim.SGD(fused=True)`:
/// `g += wd·p; b = momentum·b + g; p -= lr·(nesterov ? g + momentum·b : b)`.
///
/// The three lists go together, element by element, in shape, kind, device and layout. Without momentum,
/// `momentum_buffers` is not looked at and may be empty.
pub fn fused_sgd(
    params: &mut [Tensor],
    grads: &mut [Tensor],
    momentum_buffers: &mut [Tensor],
    settings: FusedSgd,
    grad_scale: Option<GradScale<'_>>,
) -> Result<(), Error> {
    const OPERATION: &str = "fused SGD";
    check_lengths(OPERATION, params, grads, "gradients")?;
    let with_momentum = settings.momentum != 0.0;
    if with_momentum {
        check_lengths(OPERATION, params, momentum_buffers, "momentum buffers")?;
    }
    if params.is_empty() {
        return Ok(());
    }
    let FusedSgd {
        lr,
        momentum,
        weight_decay,
        nesterov,
        first_step,
    } = settings;
    let settings = ffi::SgdSettings {
        lr,
        momentum,
        weight_decay,
        nesterov,
        first_step,
    };
    let (scale, found_inf) = scaling(grad_scale);
    let buffers = if with_momentum {
        list(momentum_buffers)
    } else {
        ffi::new_tensors()
    };
    ffi::fused_sgd(
        &list(params),
        &list(grads),
        &buffers,
        &settings,
        &list(&scale),
        &list(&found_inf),
    )
    .map_err(|exception| failed(OPERATION, params.len(), exception))
}

/// Settings of one step of Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedAdam {
    /// Learning rate.
    pub lr: f64,
    /// Share of the mean of gradients that is kept.
    pub beta1: f64,
    /// Share of the mean of squared gradients that is kept.
    pub beta2: f64,
    /// Added to the root of that mean.
    pub eps: f64,
    /// Pull of parameters towards 0.
    pub weight_decay: f64,
    /// Whether the pull acts on the parameters themselves (`AdamW`) or is added to the gradients (Adam).
    pub decoupled: bool,
}

/// The running means of Adam, which go with its parameters element by element.
#[derive(Debug)]
pub struct AdamMoments<'a> {
    /// Means of gradients.
    pub means: &'a mut [Tensor],
    /// Means of squared gradients.
    pub squares: &'a mut [Tensor],
    /// The number of this step, from 1: one `f32` on the parameters' device, the same for all of them.
    pub step: &'a Tensor,
}

/// One step of Adam on `params`, as PyTorch's `torch.optim.Adam(fused=True)` and `AdamW(fused=True)`.
pub fn fused_adam(
    params: &mut [Tensor],
    grads: &mut [Tensor],
    moments: AdamMoments<'_>,
    settings: FusedAdam,
    grad_scale: Option<GradScale<'_>>,
) -> Result<(), Error> {
    const OPERATION: &str = "fused Adam";
    let AdamMoments {
        means,
        squares,
        step,
    } = moments;
    check_lengths(OPERATION, params, grads, "gradients")?;
    check_lengths(OPERATION, params, means, "means")?;
    check_lengths(OPERATION, params, squares, "means of squares")?;
    if params.is_empty() {
        return Ok(());
    }
    let FusedAdam {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        decoupled,
    } = settings;
    let settings = ffi::AdamSettings {
        lr,
        beta1,
        beta2,
        eps,
        weight_decay,
        decoupled,
    };
    let (scale, found_inf) = scaling(grad_scale);
    let moments: Vec<&Tensor> = means.iter().chain(squares.iter()).collect();
    ffi::fused_adam(
        &list(params),
        &list(grads),
        &list(&moments),
        as_ffi(step),
        &settings,
        &list(&scale),
        &list(&found_inf),
    )
    .map_err(|exception| failed(OPERATION, params.len(), exception))
}

fn scaling(grad_scale: Option<GradScale<'_>>) -> (Vec<&Tensor>, Vec<&Tensor>) {
    let scale = grad_scale.and_then(|it| it.scale).into_iter().collect();
    let found_inf = grad_scale.map(|it| it.found_inf).into_iter().collect();
    (scale, found_inf)
}

/// Moves `targets` towards `sources`: `t += weight·(s - t)`. An exponential moving average with decay `d` has
/// weight `1 - d`.
pub fn foreach_lerp(targets: &mut [Tensor], sources: &[Tensor], weight: f64) -> Result<(), Error> {
    const OPERATION: &str = "lerp";
    check_lengths(OPERATION, targets, sources, "sources")?;
    if targets.is_empty() {
        return Ok(());
    }
    ffi::foreach_lerp(&list(targets), &list(sources), weight)
        .map_err(|exception| failed(OPERATION, targets.len(), exception))
}

/// Copies `sources` into `targets`, converting kind and device where they differ.
pub fn foreach_copy(targets: &mut [Tensor], sources: &[Tensor]) -> Result<(), Error> {
    const OPERATION: &str = "copy";
    check_lengths(OPERATION, targets, sources, "sources")?;
    if targets.is_empty() {
        return Ok(());
    }
    ffi::foreach_copy(&list(targets), &list(sources))
        .map_err(|exception| failed(OPERATION, targets.len(), exception))
}

/// Sets all elements of all `tensors` to 0, in place.
pub fn foreach_zero(tensors: &mut [Tensor]) -> Result<(), Error> {
    if tensors.is_empty() {
        return Ok(());
    }
    ffi::foreach_zero(&list(tensors)).map_err(|exception| failed("zero", tensors.len(), exception))
}

/// The gradients of those `params` that have one. They share memory with the parameters' own.
pub fn grads(params: &[Tensor]) -> Vec<Tensor> {
    params
        .iter()
        .map(Tensor::grad)
        .filter(Tensor::defined)
        .collect()
}

/// Scales `grads` down, in place, so that the 2-norm over all their elements is at most `max_norm`; returns the
/// norm before, one `f32` (`f64` for gradients of that kind) on their device.
///
/// As PyTorch's `clip_grad_norm_`: the factor is `max_norm / (norm + 1e-6)`, at most 1. A norm that is not finite
/// makes the gradients so too. No gradients have norm 0.
pub fn clip_grad_norm(grads: &mut [Tensor], max_norm: f64) -> Result<Tensor, Error> {
    let total = grad_norm(grads)?;
    scale_to_norm(grads, &total, max_norm)?;
    Ok(total)
}

/// The 2-norm over all elements of `grads`, as [`clip_grad_norm`] returns it.
pub fn grad_norm(grads: &[Tensor]) -> Result<Tensor, Error> {
    total_norm("norm of gradients", grads, 2.0)
}

/// Scales `grads`, whose norm is `total`, down as [`clip_grad_norm`] does.
pub fn scale_to_norm(grads: &mut [Tensor], total: &Tensor, max_norm: f64) -> Result<(), Error> {
    const OPERATION: &str = "gradient clipping";
    if grads.is_empty() {
        return Ok(());
    }
    let factor = tch::no_grad(|| {
        total
            .f_add_scalar(1e-6)?
            .f_reciprocal()?
            .f_mul_scalar(max_norm)?
            .f_clamp_max(1.0)
    })
    .map_err(|error| Error::TensorList {
        operation: OPERATION,
        tensors: grads.len(),
        source: Fault::from(&error),
    })?;
    ffi::foreach_scale(&list(grads), as_ffi(&factor))
        .map_err(|exception| failed(OPERATION, grads.len(), exception))
}

/// Whether all elements of all `tensors` are finite: one `bool` on their device.
pub fn all_finite(tensors: &[Tensor]) -> Result<Tensor, Error> {
    const OPERATION: &str = "finiteness check";
    // The largest magnitude is infinite or NaN exactly when an element is, and cannot overflow.
    total_norm(OPERATION, tensors, f64::INFINITY)?
        .f_isfinite()
        .map_err(|error| Error::TensorList {
            operation: OPERATION,
            tensors: tensors.len(),
            source: Fault::from(&error),
        })
}

/// Multiplies `grads` by `inverse_scale`, in place, and sets `found_inf` to 1 if an element is not finite (it is
/// left alone otherwise). Both are tensors of one `f32` on the gradients' device, as in PyTorch's `GradScaler`.
pub fn unscale(
    grads: &mut [Tensor],
    inverse_scale: &Tensor,
    found_inf: &mut Tensor,
) -> Result<(), Error> {
    if grads.is_empty() {
        return Ok(());
    }
    ffi::unscale(&list(grads), as_ffi(inverse_scale), as_ffi(found_inf))
        .map_err(|exception| failed("unscale", grads.len(), exception))
}

/// The `order`-norm over all elements of all `tensors`, one `f32` (`f64` for tensors of that kind) on the first
/// one's device.
fn total_norm(operation: &'static str, tensors: &[Tensor], order: f64) -> Result<Tensor, Error> {
    let Some(first) = tensors.first() else {
        return Ok(Tensor::from(0.0f32));
    };
    let plain = |tensor: &Tensor| {
        tensor.device() == Device::Cpu
            && tensor.kind() == Kind::Float
            && ffi::is_dense(as_ffi(tensor))
    };
    if order == 2.0 && tensors.iter().all(plain) {
        // libtorch makes a tensor of each one's norm, which takes longer than the sums.
        let norm = ffi::sum_of_squares(&list(tensors)).sqrt();
        return Ok(Tensor::from(norm as f32));
    }
    let device = first.device();
    let kind = match first.kind() {
        Kind::Double => Kind::Double,
        _ => Kind::Float,
    };
    let fail = |source| Error::TensorList {
        operation,
        tensors: tensors.len(),
        source,
    };
    let norms = ffi::foreach_norm(&list(tensors), order)
        .and_then(|norms| unlist(&norms))
        .map_err(|exception| fail(exception.into()))?;
    tch::no_grad(|| {
        let norms = norms
            .iter()
            .map(|norm| norm.f_to_device(device)?.f_to_kind(kind))
            .collect::<Result<Vec<_>, _>>()?;
        Tensor::f_stack(&norms, 0)?.f_linalg_norm(order, None::<&[i64]>, false, None::<Kind>)
    })
    .map_err(|error| fail(Fault::from(&error)))
}

fn check_lengths(
    operation: &'static str,
    first: &[Tensor],
    second: &[Tensor],
    what: &'static str,
) -> Result<(), Error> {
    if first.len() == second.len() {
        Ok(())
    } else {
        Err(Error::ListLengths {
            operation,
            what,
            expected: first.len(),
            actual: second.len(),
        })
    }
}

fn failed(operation: &'static str, tensors: usize, exception: cxx::Exception) -> Error {
    Error::TensorList {
        operation,
        tensors,
        source: exception.into(),
    }
}
