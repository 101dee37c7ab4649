//! The optimiser: SGD, Adam or `AdamW` in YOLOv5's three groups of parameters.

use std::collections::BTreeMap;

use contract::spec::{Hyperparameters, OptimizerKind};
use tch::{Kind, TchError, Tensor};
use torch_bridge::optim::{
    AdamMoments, FusedAdam, FusedSgd, GradScale, foreach_zero, fused_adam, fused_sgd,
};
use trainer_core::schedule::StepPlan;

use crate::error::Error;
use crate::network::Network;
use crate::state::{Role, cpu_copy};

/// The groups in v5's order.
const GROUPS: [Role; 3] = [Role::Bias, Role::Weight, Role::Norm];
/// How much of the mean of squared gradients Adam keeps (YOLOv5 v7.0, PyTorch's default).
const BETA2: f64 = 0.999;
/// Added to the root of that mean (PyTorch's default).
const EPS: f64 = 1e-8;
/// The name of Adam's counter among the exported tensors.
const STEP: &str = "step";

/// How gradients become changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Gradient descent with Nesterov momentum.
    ///
    /// Momentum begins at 0, which gives the first step PyTorch's and v5's meaning (the direction is the
    /// gradient) without a first step that is different; so the buffers alone are its whole state.
    Sgd,
    /// Adam, or `AdamW` if the decay of weights is decoupled from the gradients.
    Adam {
        /// Share of the mean of gradients that is kept. v5 takes the momentum, without its warm-up.
        beta1: f64,
        /// Whether this is `AdamW`.
        decoupled: bool,
    },
}

impl Rule {
    /// The rule that the settings name.
    pub fn of(hyperparameters: &Hyperparameters) -> Self {
        let adam = |decoupled| Self::Adam {
            beta1: hyperparameters.momentum,
            decoupled,
        };
        match hyperparameters.optimizer {
            OptimizerKind::Sgd => Self::Sgd,
            OptimizerKind::Adam => adam(false),
            OptimizerKind::AdamW => adam(true),
        }
    }

    /// What its moments are called behind a parameter's name.
    fn moments(self) -> &'static [&'static str] {
        match self {
            Self::Sgd => &[""],
            Self::Adam { .. } => &[".exp_avg", ".exp_avg_sq"],
        }
    }
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerStep {
    /// Learning rate of biases.
    pub lr_bias: f64,
    /// Learning rate of kernels and of the scales of normalisations.
    pub lr_other: f64,
    /// Share of the last direction that SGD keeps.
    pub momentum: f64,
    /// Pull of kernels towards 0.
    pub weight_decay: f64,
}

impl OptimizerStep {
    /// The step that a schedule plans; `weight_decay` is already scaled to the batch.
    pub fn new(plan: &StepPlan, weight_decay: f64) -> Self {
        Self {
            lr_bias: plan.lr_bias,
            lr_other: plan.lr_other,
            momentum: plan.momentum,
            weight_decay,
        }
    }

    fn rate(&self, role: Role) -> f64 {
        if role == Role::Bias {
            self.lr_bias
        } else {
            self.lr_other
        }
    }

    fn decay(&self, role: Role) -> f64 {
        if role == Role::Weight {
            self.weight_decay
        } else {
            0.0
        }
    }
}

/// An optimiser of the parameters of one network that are not frozen.
pub struct Optimizer {
    rule: Rule,
    /// In the order of the network's parameters.
    slots: Vec<Slot>,
    /// Steps made, one `f32` on the parameters' device. Only Adam counts.
    steps: Tensor,
}

/// A parameter and its moments, as many as the rule has; all share one layout.
struct Slot {
    name: String,
    role: Role,
    parameter: Tensor,
    moments: Vec<Tensor>,
}

impl Optimizer {
    /// An optimiser for all parameters of `network` that collect gradients, which it changes in place.
    pub fn new(network: &Network, rule: Rule) -> Result<Self, Error> {
        let slots = network
            .state()
            .trained()
            .map(|entry| {
                let zeros = || entry.tensor.f_detach()?.f_zeros_like();
                let moments = rule.moments().iter().map(|_| zeros());
                Ok(Slot {
                    name: entry.name.clone(),
                    role: entry.role,
                    parameter: entry.tensor.shallow_clone(),
                    moments: moments
                        .collect::<Result<_, _>>()
                        .map_err(allocation(&entry.name, entry.tensor.size()))?,
                })
            })
            .collect::<Result<_, Error>>()?;
        let device = network.options().device;
        let steps = Tensor::f_zeros([], (Kind::Float, device)).map_err(allocation(STEP, vec![]))?;
        Ok(Self { rule, slots, steps })
    }

    /// The gradients of all parameters, in their order; they share the parameters' memory.
    pub fn gradients(&self) -> Result<Vec<Tensor>, Error> {
        self.slots.iter().map(Slot::gradient).collect()
    }

    /// Changes the parameters by their gradients. `scale` is that of mixed precision: what gradients
    /// are still to be divided by, and whether to leave everything as it is.
    pub fn step(
        &mut self,
        step: &OptimizerStep,
        scale: Option<GradScale<'_>>,
    ) -> Result<(), Error> {
        if self.rule != Rule::Sgd {
            self.count(|steps| steps.f_add_scalar_(1.0))?;
        }
        for role in GROUPS {
            self.step_group(role, step, scale)?;
        }
        if let (Rule::Adam { .. }, Some(GradScale { found_inf, .. })) = (self.rule, scale) {
            self.count(|steps| steps.f_sub_(&found_inf.f_view(&[] as &[i64])?))?;
        }
        Ok(())
    }

    fn count(
        &mut self,
        change: impl FnOnce(&mut Tensor) -> Result<Tensor, TchError>,
    ) -> Result<(), Error> {
        let result = tch::no_grad(|| change(&mut self.steps));
        result.map(drop).map_err(|source| Error::Copy {
            name: STEP.to_owned(),
            source,
        })
    }

    fn step_group(
        &self,
        role: Role,
        step: &OptimizerStep,
        scale: Option<GradScale<'_>>,
    ) -> Result<(), Error> {
        let group = || self.slots.iter().filter(|slot| slot.role == role);
        let moments = |index: usize| -> Vec<Tensor> {
            group()
                .map(|slot| slot.moments[index].shallow_clone())
                .collect()
        };
        let mut parameters: Vec<Tensor> =
            group().map(|slot| slot.parameter.shallow_clone()).collect();
        let mut gradients = group().map(Slot::gradient).collect::<Result<Vec<_>, _>>()?;
        let (lr, weight_decay) = (step.rate(role), step.decay(role));
        match self.rule {
            Rule::Sgd => {
                let settings = FusedSgd {
                    lr,
                    momentum: step.momentum,
                    weight_decay,
                    nesterov: step.momentum > 0.0,
                    first_step: false,
                };
                fused_sgd(
                    &mut parameters,
                    &mut gradients,
                    &mut moments(0),
                    settings,
                    scale,
                )
                .map_err(failed("step"))
            }
            Rule::Adam { beta1, decoupled } => {
                let settings = FusedAdam {
                    lr,
                    beta1,
                    beta2: BETA2,
                    eps: EPS,
                    weight_decay,
                    decoupled,
                };
                let moments = AdamMoments {
                    means: &mut moments(0),
                    squares: &mut moments(1),
                    step: &self.steps,
                };
                fused_adam(&mut parameters, &mut gradients, moments, settings, scale)
                    .map_err(failed("step"))
            }
        }
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
        foreach_zero(&mut gradients).map_err(failed("zeroing of gradients"))
    }

    /// Copies of the whole state, in CPU memory, row by row: SGD's momentum under the parameters' names;
    /// Adam's means under these and `.exp_avg` or `.exp_avg_sq`, and its `step`.
    pub fn export(&self) -> Result<Vec<(String, Tensor)>, Error> {
        self.tensors()
            .map(|(name, tensor)| {
                let copy = cpu_copy(&name, tensor)?;
                Ok((name, copy))
            })
            .collect()
    }

    /// Takes over what [`Optimizer::export`] gave: exactly the same names, in the same shapes. On an error
    /// about names or shapes nothing has changed.
    pub fn import(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        let own: Vec<(String, Tensor)> = self
            .tensors()
            .map(|(name, tensor)| (name, tensor.shallow_clone()))
            .collect();
        for name in tensors.keys() {
            if !own.iter().any(|(own, _)| own == name) {
                return Err(Error::StateUnexpected { name: name.clone() });
            }
        }
        for (name, tensor) in &own {
            let name = name.clone();
            let (expected, found) = match tensors.get(&name) {
                None => return Err(Error::StateMissing { name }),
                Some(given) => (tensor.size(), given.size()),
            };
            if expected != found {
                return Err(Error::StateShape {
                    name,
                    expected,
                    found,
                });
            }
        }
        for (name, mut tensor) in own {
            tch::no_grad(|| tensor.f_copy_(&tensors[name.as_str()]))
                .map_err(|source| Error::Copy { name, source })?;
        }
        Ok(())
    }

    /// Everything it must remember, with names.
    fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let names = self.rule.moments();
        let moments = self.slots.iter().flat_map(|slot| {
            let named = names.iter().zip(&slot.moments);
            named.map(|(end, tensor)| (format!("{}{end}", slot.name), tensor))
        });
        let counts = (self.rule != Rule::Sgd).then(|| (STEP.to_owned(), &self.steps));
        moments.chain(counts)
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

fn allocation(name: &str, shape: Vec<i64>) -> impl FnOnce(TchError) -> Error {
    let name = name.to_owned();
    move |source| Error::Allocate {
        name,
        shape,
        source,
    }
}

fn failed(operation: &'static str) -> impl Fn(torch_bridge::Error) -> Error {
    move |source| Error::Optimiser { operation, source }
}

#[cfg(test)]
#[path = "optim_tests.rs"]
mod tests;
