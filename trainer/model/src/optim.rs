//! Stochastic gradient descent in YOLOv5's three groups of parameters.

use std::collections::BTreeMap;

use tch::Tensor;
use torch_bridge::optim::{FusedSgd, GradScale, foreach_zero, fused_sgd};
use trainer_core::schedule::StepPlan;

use crate::error::Error;
use crate::network::Network;
use crate::state::{Role, cpu_copy};

/// To which norm v5 scales gradients down before a step.
pub const MAX_GRADIENT_NORM: f64 = 10.0;

/// The groups in v5's order.
const GROUPS: [Role; 3] = [Role::Bias, Role::Weight, Role::Norm];

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate of biases.
    pub lr_bias: f64,
    /// Learning rate of kernels and of the scales of normalisations.
    pub lr_other: f64,
    /// Share of the last direction that is kept.
    pub momentum: f64,
    /// Pull of kernels towards 0.
    pub weight_decay: f64,
}

impl SgdStep {
    /// The step that a schedule plans; `weight_decay` is already scaled to the batch.
    pub fn new(plan: &StepPlan, weight_decay: f64) -> Self {
        Self {
            lr_bias: plan.lr_bias,
            lr_other: plan.lr_other,
            momentum: plan.momentum,
            weight_decay,
        }
    }
}

/// SGD with Nesterov momentum over the parameters of one network.
///
/// Momentum begins at 0, which gives the first step PyTorch's and v5's meaning (the direction is the
/// gradient) without a first step that is different; so the buffers alone are its whole state.
pub struct Sgd {
    /// In the order of the network's parameters.
    slots: Vec<Slot>,
}

/// A parameter and its momentum; they share layout.
struct Slot {
    name: String,
    role: Role,
    parameter: Tensor,
    momentum: Tensor,
}

impl Sgd {
    /// An optimiser for all parameters of `network`, which it changes in place.
    pub fn new(network: &Network) -> Result<Self, Error> {
        let slots = network
            .state()
            .parameters()
            .map(|entry| {
                let momentum = entry
                    .tensor
                    .f_detach()
                    .and_then(|values| values.f_zeros_like());
                let momentum = momentum.map_err(|source| Error::Allocate {
                    name: entry.name.clone(),
                    shape: entry.tensor.size(),
                    source,
                })?;
                Ok(Slot {
                    name: entry.name.clone(),
                    role: entry.role,
                    parameter: entry.tensor.shallow_clone(),
                    momentum,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { slots })
    }

    /// The gradients of all parameters, in their order; they share the parameters' memory.
    pub fn gradients(&self) -> Result<Vec<Tensor>, Error> {
        self.slots.iter().map(Slot::gradient).collect()
    }

    /// Scales all gradients down so that their norm is at most `max_norm`; returns the norm before,
    /// a scalar on their device, not finite if a gradient is not.
    pub fn clip_grad_norm(&self, max_norm: f64) -> Result<Tensor, Error> {
        torch_bridge::optim::clip_grad_norm(&mut self.gradients()?, max_norm).map_err(|source| {
            Error::Optimiser {
                operation: "gradient clipping",
                source,
            }
        })
    }

    /// Changes the parameters by their gradients. `scale` is that of mixed precision: what gradients
    /// are still to be divided by, and whether to leave everything as it is.
    pub fn step(&mut self, step: &SgdStep, scale: Option<GradScale<'_>>) -> Result<(), Error> {
        for role in GROUPS {
            let group = || self.slots.iter().filter(|slot| slot.role == role);
            let mut parameters: Vec<Tensor> =
                group().map(|slot| slot.parameter.shallow_clone()).collect();
            let mut momenta: Vec<Tensor> =
                group().map(|slot| slot.momentum.shallow_clone()).collect();
            let mut gradients = group().map(Slot::gradient).collect::<Result<Vec<_>, _>>()?;
            let settings = FusedSgd {
                lr: if role == Role::Bias {
                    step.lr_bias
                } else {
                    step.lr_other
                },
                momentum: step.momentum,
                weight_decay: if role == Role::Weight {
                    step.weight_decay
                } else {
                    0.0
                },
                nesterov: step.momentum > 0.0,
                first_step: false,
            };
            fused_sgd(
                &mut parameters,
                &mut gradients,
                &mut momenta,
                settings,
                scale,
            )
            .map_err(|source| Error::Optimiser {
                operation: "step",
                source,
            })?;
        }
        Ok(())
    }

    /// Sets the gradients to 0 where they are, so that views of communication buckets stay views.
    /// Parameters that have none yet are passed over.
    pub fn zero_grad(&mut self) -> Result<(), Error> {
        let mut gradients: Vec<Tensor> = self
            .slots
            .iter()
            .map(|slot| slot.parameter.grad())
            .filter(Tensor::defined)
            .collect();
        foreach_zero(&mut gradients).map_err(|source| Error::Optimiser {
            operation: "zeroing of gradients",
            source,
        })
    }

    /// Copies of the momentum buffers by parameter name, in CPU memory, row by row.
    pub fn export(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.slots
            .iter()
            .map(|slot| Ok((slot.name.clone(), cpu_copy(&slot.name, &slot.momentum)?)))
            .collect()
    }

    /// Takes over momentum buffers: exactly one for each parameter, in its shape. On an error about
    /// names or shapes nothing has changed.
    pub fn import(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for name in tensors.keys() {
            if !self.slots.iter().any(|slot| slot.name == *name) {
                return Err(Error::StateUnexpected { name: name.clone() });
            }
        }
        for Slot { name, momentum, .. } in &self.slots {
            let name = name.clone();
            let (expected, found) = match tensors.get(&name) {
                None => return Err(Error::StateMissing { name }),
                Some(given) => (momentum.size(), given.size()),
            };
            if expected != found {
                return Err(Error::StateShape {
                    name,
                    expected,
                    found,
                });
            }
        }
        for Slot { name, momentum, .. } in &mut self.slots {
            tch::no_grad(|| momentum.f_copy_(&tensors[name.as_str()])).map_err(|source| {
                Error::Copy {
                    name: name.clone(),
                    source,
                }
            })?;
        }
        Ok(())
    }
}

impl Slot {
    fn gradient(&self) -> Result<Tensor, Error> {
        let gradient = self.parameter.grad();
        if gradient.defined() {
            Ok(gradient)
        } else {
            Err(Error::NoGradient {
                name: self.name.clone(),
            })
        }
    }
}

#[cfg(test)]
#[path = "optim_tests.rs"]
mod tests;
