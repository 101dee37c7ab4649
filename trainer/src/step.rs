//! One training step: a global batch, of which each rank computes its share.
//!
//! The step sends one small message besides the gradients, begun before the forward pass: the counts by
//! which the loss is divided, whether a rank was asked to stop, and the losses of the step before. So all
//! ranks learn the same things at the same step, and nobody waits for what the forward pass can hide.

mod input;
mod message;

use std::error::Error;

use contract::spec::LossNormalisation;
use tch::{Kind, Tensor};
use torch_bridge::optim::{GradScale, clip_grad_norm, grad_norm, scale_to_norm};
use torch_bridge::{Autocast, SyncNorm};
use trainer_core::sampler::split;
use trainer_core::schedule::StepPlan;
use trainer_data::Batch;
use trainer_model::ema::Ema;
use trainer_model::loss::{Denominators, Loss, Target};
use trainer_model::network::Network;
use trainer_model::optim::{Optimizer, OptimizerStep, Rule};

use crate::checkpoint::EpochSums;
use crate::console::chain;
use crate::distributed::{Ddp, Gradients, Ranks};
use crate::scaler::LossScaler;
pub use input::targets;
use input::{Portion, Quads, black, objects_of, pixels};
use message::{Wishes, epoch_sums, message, read_message};

/// What is added to a norm that gradients are scaled down by: closer to the limit than this they change.
const NORM_EPS: f64 = 1e-6;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Another rank is gone, or libtorch failed.
    #[error(transparent)]
    Ranks(#[from] torch_bridge::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Model(#[from] trainer_model::Error),
    /// Pixels or losses could not become tensors or numbers.
    #[error("a tensor could not be made or read")]
    Tensor(#[from] tch::TchError),
    /// Memory ran out, or was made to.
    #[error("out of memory")]
    OutOfMemory,
    /// A loss or a gradient was NaN or infinite, on this rank or another; all ranks see this at the same
    /// step. [`Learner::recent`] tells what this rank did since the last step of the optimiser.
    #[error("{what} is not a finite number")]
    NonFinite {
        /// What it was.
        what: &'static str,
    },
}

/// Whether there was too little memory, of the GPU or otherwise: libtorch says so in words only.
pub fn is_out_of_memory(error: &(dyn Error + 'static)) -> bool {
    let text = chain(error);
    ["out of memory", "can't allocate memory"]
        .iter()
        .any(|words| text.contains(words))
}

/// Everything that learns, on this rank. After each step of the optimiser it is the same, byte for byte,
/// on all ranks.
pub struct Learner {
    /// The network.
    pub network: Network,
    /// Its average, which is what is evaluated and kept.
    pub ema: Ema,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The loss scale of float16.
    pub scaler: Option<LossScaler>,
    loss: Loss,
    ddp: Ddp,
    options: LearnerOptions,
    /// The losses of the last step, not yet added up over the ranks.
    pending: Option<Recent>,
    recent: Vec<Recent>,
}

/// How a [`Learner`] computes.
#[derive(Clone, Copy, Debug)]
pub struct LearnerOptions {
    /// Over which images the loss is averaged.
    pub normalisation: LossNormalisation,
    /// How gradients become changes.
    pub rule: Rule,
    /// Largest norm of the gradient; 0 for no limit.
    pub gradient_clip: f64,
    /// Whether normalisations go by the images of all ranks.
    pub sync_norm: bool,
    /// In how many portions, one after the other, a rank computes its images of a step: more need less memory. The
    /// gradients are those of one portion, but each portion is normalised by itself.
    pub portions: u32,
    /// The seed of quads; none to take images as they are.
    pub quads: Option<u64>,
    /// The 16 bits of expensive operations; none to compute everything in `f32`.
    pub precision: Option<Kind>,
}

/// What a rank did in one step.
#[derive(Debug)]
pub struct Recent {
    /// The number of the step.
    pub step: u64,
    /// Its images on this rank.
    pub indices: Vec<u32>,
    /// Box, objectness and class loss.
    parts: Tensor,
    /// How many images the parts stand for when all ranks' are added up.
    weight: f64,
}

impl Recent {
    /// Box, objectness and class loss of the step on this rank.
    pub fn losses(&self) -> Result<[f64; 3], tch::TchError> {
        let values: Vec<f64> = Vec::try_from(self.parts.f_to_kind(Kind::Double)?)?;
        Ok([values[0], values[1], values[2]])
    }

    fn sums(&self) -> Result<EpochSums, tch::TchError> {
        let [box_loss, obj, cls] = self.losses()?.map(|loss| loss * self.weight);
        Ok(EpochSums {
            images: self.indices.len() as f64,
            box_loss,
            obj,
            cls,
        })
    }
}

/// What a step is given.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// This rank's images; none when the last batch of an epoch is too short for all ranks.
    pub batch: &'a Batch,
    /// Width and height of the images to learn from, to which those of the batch are resized.
    pub size: (u32, u32),
    /// Whether the optimiser steps at the end.
    pub gradients: Gradients,
    /// Learning rates, and the weight decay for this batch size.
    pub plan: StepPlan,
    /// See [`trainer_core::schedule::scaled_weight_decay`].
    pub weight_decay: f64,
    /// Whether this rank was asked to stop.
    pub stop: bool,
    /// Whether rank 0 wants a checkpoint; those of the others do not matter.
    pub save: bool,
    /// The share of the time that was used, as this rank sees it.
    pub spent: f64,
    /// What to make go wrong on this rank, to test what follows.
    pub made: Option<Made>,
}

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// The loss is NaN.
    NonFinite,
    /// There is no memory left.
    OutOfMemory,
}

/// What all ranks know after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// Images of this step over all ranks.
    pub images: u64,
    /// Whether any rank was asked to stop.
    pub stop: bool,
    /// Whether rank 0 wants a checkpoint.
    pub save: bool,
    /// The share of the time that was used, as rank 0 sees it.
    pub spent: f64,
    /// Losses of the step before.
    pub before: EpochSums,
}

impl Learner {
    /// Puts the parts together.
    pub fn new(
        network: Network,
        loss: Loss,
        options: LearnerOptions,
        ranks: &mut Ranks,
    ) -> Result<Self, StepError> {
        let ema = Ema::new(&network)?;
        let optimizer = Optimizer::new(&network, options.rule)?;
        let (names, tensors): (Vec<String>, Vec<Tensor>) = network
            .state()
            .trained()
            .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
            .unzip();
        let ddp = Ddp::new(ranks, &names, &tensors)?;
        let scaler = match options.precision {
            Some(Kind::Half) => Some(LossScaler::new(network.options().device)?),
            _ => None,
        };
        Ok(Self {
            network,
            ema,
            optimizer,
            scaler,
            loss,
            ddp,
            options,
            pending: None,
            recent: Vec::new(),
        })
    }

    /// What the expensive operations compute in, for people; empty for `f32`.
    pub fn precision_note(&self) -> &'static str {
        match self.options.precision {
            Some(Kind::BFloat16) => " in bfloat16",
            Some(Kind::Half) => " in float16",
            _ => "",
        }
    }

    /// One forward and backward pass that leaves no trace, after which the reducer's messages are in their
    /// final order: see [`Ddp::new`]. Comes before the first step of every start.
    pub fn settle(&mut self, ranks: &Ranks, image_size: u32) -> Result<(), StepError> {
        if self.ddp.is_alone() {
            return Ok(());
        }
        self.leaving_no_trace(|learner| {
            learner.ddp.before_forward(Gradients::Averaged)?;
            let together = learner.together(ranks, true);
            let size = (image_size, image_size);
            let raw = learner.forward(together, &black(image_size)?, size)?;
            learner
                .ddp
                .backward(&weightless(&raw)?, Gradients::Averaged)?;
            Ok(learner.ddp.before_forward(Gradients::Averaged)?)
        })
    }

    /// One forward and backward pass of so many images on this rank alone that leaves no trace, to see whether they
    /// fit the memory.
    pub fn try_images(&mut self, images: u32, image_size: u32) -> Result<(), StepError> {
        self.leaving_no_trace(|learner| {
            let pixels = black(image_size)?.f_repeat([i64::from(images), 1, 1, 1])?;
            let raw = learner.forward(None, &pixels, (image_size, image_size))?;
            Ok(learner.ddp.backward(&weightless(&raw)?, Gradients::Kept)?)
        })
    }

    /// Puts running statistics back and forgets gradients after `pass`, also when it fails.
    fn leaving_no_trace(
        &mut self,
        pass: impl FnOnce(&mut Self) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let state = self.network.state();
        let (mut statistics, mut counters) = (
            state.statistics().shallow_clone(),
            state.counters().shallow_clone(),
        );
        let before = (statistics.f_detach_copy()?, counters.f_detach_copy()?);
        let passed = pass(self);
        self.optimizer.zero_grad()?;
        tch::no_grad(|| {
            statistics.f_copy_(&before.0)?;
            counters.f_copy_(&before.1)
        })?;
        passed
    }

    /// Computes one step.
    pub fn step(
        &mut self,
        ranks: &mut Ranks,
        input: &StepInput<'_>,
    ) -> Result<StepOutput, StepError> {
        let batch = input.batch;
        let images = batch.indices.len();
        let quads = self.options.quads.map(|seed| Quads::of(batch, seed));
        let (count, objects) = match &quads {
            None => (images, targets(batch)),
            Some(quads) => (quads.len(), quads.join_targets(targets(batch))),
        };
        let portions = self.portions(&objects, count, input.size)?;
        let mut own = Denominators::default();
        for portion in portions.iter().filter(|portion| portion.images > 0) {
            own += portion.assignment.denominators();
        }
        let pending = match &self.pending {
            None => EpochSums::default(),
            Some(pending) => pending.sums()?,
        };
        let wishes = Wishes {
            stop: input.stop,
            save: input.save && ranks.is_first(),
            spent: if ranks.is_first() { input.spent } else { 0.0 },
        };
        let mut sum = Some(ranks.sum(&message(own, images, wishes, pending))?);

        let pixels = match &quads {
            _ if images == 0 => black(input.size.0)?,
            None => pixels(batch)?,
            Some(quads) => quads.join(&pixels(batch)?)?,
        };
        if input.made == Some(Made::OutOfMemory) {
            return Err(StepError::OutOfMemory);
        }
        let mut known = None;
        let mut parts: Option<Tensor> = None;
        for (number, portion) in (1..).zip(&portions) {
            let gradients = if number == portions.len() {
                input.gradients
            } else {
                Gradients::Kept
            };
            self.ddp.before_forward(gradients)?;
            let pixels = portion.of(&pixels)?;
            let together = self.together(ranks, portion.images > 0);
            let raw = self.forward(together, &pixels, input.size)?;
            // The first forward pass hides what the others take to say how much they have.
            let (all, output) = match sum.take() {
                Some(sum) => *known.insert(read_message(&ranks.finish(sum)?)),
                None => known.unwrap_or_default(),
            };
            if !output.before.is_finite() {
                return Err(StepError::NonFinite { what: "the loss" });
            }
            let (denominators, scale) = match self.options.normalisation {
                LossNormalisation::Global => (all, output.images as f64),
                LossNormalisation::PerRank => (own, images as f64),
            };
            // The reducer averages over the ranks; the gradient is to be that of the sum of the shares.
            let total = self
                .loss
                .terms(&raw, &portion.assignment)?
                .total(&denominators, scale * f64::from(ranks.world()))?;
            // An image that is none takes part, but counts for nothing.
            let (loss, these) = match portion.images {
                0 => (weightless(&raw)?, total.parts.f_zeros_like()?),
                _ => (total.loss, total.parts),
            };
            let (loss, these) = match input.made {
                Some(Made::NonFinite) => {
                    (loss.f_mul_scalar(f64::NAN)?, these.f_mul_scalar(f64::NAN)?)
                }
                _ => (loss, these),
            };
            let loss = match &self.scaler {
                None => loss,
                Some(scaler) => scaler.scaled(&loss)?,
            };
            self.ddp.backward(&loss, gradients)?;
            parts = Some(match parts {
                None => these,
                Some(before) => before.f_add(&these)?,
            });
        }
        let (_, output): (Denominators, StepOutput) = known.unwrap_or_default();
        let shown = match self.options.normalisation {
            LossNormalisation::Global => output.images as f64,
            LossNormalisation::PerRank => images as f64,
        };
        if let Some(parts) = parts {
            let record = |parts: Tensor| Recent {
                step: batch.step,
                indices: batch.indices.clone(),
                parts,
                weight: if images == 0 { 0.0 } else { shown },
            };
            self.recent.push(record(parts.shallow_clone()));
            self.pending = Some(record(parts));
        }
        if input.gradients == Gradients::Averaged {
            self.update(ranks, &OptimizerStep::new(&input.plan, input.weight_decay))?;
        }
        Ok(output)
    }

    /// The losses of the last step, added up over the ranks: for the end of an epoch and before a
    /// checkpoint. All ranks must call it.
    pub fn flush(&mut self, ranks: &mut Ranks) -> Result<EpochSums, StepError> {
        let own = match &self.pending {
            None => EpochSums::default(),
            Some(pending) => pending.sums()?,
        };
        let sum = ranks.sum(&[own.images, own.box_loss, own.obj, own.cls])?;
        let values = ranks.finish(sum)?;
        let sums = epoch_sums(&values);
        if sums.is_finite() {
            self.pending = None;
            Ok(sums)
        } else {
            Err(StepError::NonFinite { what: "the loss" })
        }
    }

    /// Drops gradients that wait for a step of the optimiser, as YOLOv5 does at the end of an epoch, and
    /// gives all ranks the running statistics of rank 0.
    pub fn end_epoch(&mut self, ranks: &mut Ranks) -> Result<(), StepError> {
        self.optimizer.zero_grad()?;
        self.recent.clear();
        self.share_statistics(ranks)
    }

    /// Forgets a step that failed: its gradients and its losses.
    pub fn forget_step(&mut self) -> Result<(), StepError> {
        self.pending = None;
        self.recent.clear();
        Ok(self.optimizer.zero_grad()?)
    }

    /// From now on everything is computed in `f32`.
    pub fn compute_in_full(&mut self) {
        self.options.precision = None;
        self.scaler = None;
    }

    /// From now on a step is computed in so many portions: see [`LearnerOptions::portions`].
    pub fn divide(&mut self, portions: u32) {
        self.options.portions = portions;
    }

    /// What this rank did since the last step of the optimiser; of the step before, whose loss may only now be known,
    /// where there is nothing.
    pub fn recent(&self) -> &[Recent] {
        match &self.pending {
            Some(pending) if self.recent.is_empty() => std::slice::from_ref(pending),
            _ => &self.recent,
        }
    }

    /// A number that differs when any byte of network, average or momentum does.
    pub fn fingerprint(&self) -> Result<blake3::Hash, StepError> {
        let mut hasher = blake3::Hasher::new();
        let parts = [
            self.network.state().export()?,
            self.ema.state().export()?,
            self.optimizer.export()?,
        ];
        for (name, tensor) in parts.into_iter().flatten() {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
            hasher.update(name.as_bytes());
            hasher.update(&bytes);
        }
        Ok(hasher.finalize())
    }

    /// By whose images this rank's are normalised, if not by them alone. `counts` tells whether there are any, by
    /// which the others normalise too.
    fn together<'a>(&self, ranks: &'a Ranks, counts: bool) -> Option<SyncNorm<'a>> {
        let group = ranks.shared_group().filter(|_| self.options.sync_norm);
        group.map(|group| SyncNorm::new(group, counts))
    }

    /// Raw predictions for `pixels`, resized to this width and height.
    fn forward(
        &self,
        together: Option<SyncNorm<'_>>,
        pixels: &Tensor,
        (width, height): (u32, u32),
    ) -> Result<Vec<Tensor>, StepError> {
        let mut images = self.network.input(pixels)?;
        let size = [i64::from(height), i64::from(width)];
        if images.size()[2..] != size {
            images = images.f_upsample_bilinear2d(size, false, None, None)?;
        }
        // Until the end of the forward pass: libtorch remembers the formats for the backward pass.
        let _guard = match self.options.precision {
            None => None,
            Some(kind) => Some(Autocast::new(images.device(), kind)?),
        };
        Ok(match together {
            Some(together) => self.network.train_together(&images, together)?,
            None => self.network.train(&images)?,
        })
    }

    /// The portions of a share of `count` images, each with its objects. There are as many on every rank, since
    /// normalisations by the images of all ranks wait for each other.
    fn portions(
        &self,
        objects: &[Target],
        count: usize,
        (width, height): (u32, u32),
    ) -> Result<Vec<Portion>, StepError> {
        let (width, height) = (width as usize, height as usize);
        let all = self.options.portions.max(1) as usize;
        let one = |number| {
            let (first, end) = split(count, number, all);
            let images = end - first;
            let own = objects_of(objects, first, end);
            let assignment = self.loss.assign(&own, images.max(1), height, width)?;
            Ok(Portion {
                first,
                images,
                assignment,
            })
        };
        (0..all).map(one).collect()
    }

    fn update(&mut self, ranks: &mut Ranks, step: &OptimizerStep) -> Result<(), StepError> {
        let mut gradients = self.optimizer.gradients()?;
        let found_inf = match &mut self.scaler {
            None => None,
            Some(scaler) => Some(scaler.unscale(&mut gradients)?),
        };
        let most = match self.options.gradient_clip {
            0.0 => f64::INFINITY,
            most => most,
        };
        let scale = found_inf.map(|found_inf| GradScale {
            scale: None,
            found_inf,
        });
        if scale.is_some() {
            // A step that overflows is left out and the scale halved, without a wait for the GPU.
            let _norm = clip_grad_norm(&mut gradients, most)?;
        } else {
            let norm = grad_norm(&gradients)?;
            // The averaged gradients are the same on all ranks, and so is this decision.
            let size = f64::try_from(&norm)?;
            if !size.is_finite() {
                return Err(StepError::NonFinite {
                    what: "the gradient",
                });
            }
            if size + NORM_EPS > most {
                scale_to_norm(&mut gradients, &norm, most)?;
            }
        }
        self.optimizer.step(step, scale)?;
        if let Some(scaler) = &mut self.scaler {
            scaler.update()?;
        }
        self.optimizer.zero_grad()?;
        self.recent.clear();
        self.share_statistics(ranks)?;
        self.ema.update(&self.network)?;
        Ok(())
    }

    /// The running statistics come from each rank's own images; those of rank 0 count. Those of all images are the
    /// same on all ranks already.
    fn share_statistics(&mut self, ranks: &mut Ranks) -> Result<(), StepError> {
        if self.options.sync_norm {
            return Ok(());
        }
        let mut statistics = [self.network.state().statistics().shallow_clone()];
        Ok(ranks.take_from_first(&mut statistics)?)
    }
}

/// A loss that gives every parameter a gradient of 0.
fn weightless(raw: &[Tensor]) -> Result<Tensor, tch::TchError> {
    let mut loss = Tensor::f_zeros([], (Kind::Float, raw[0].device()))?;
    for level in raw {
        // In 32 bits: the loss scale of float16 is infinite in its own 16, and infinity times 0 is NaN.
        loss = loss.f_add(&level.f_sum(Kind::Float)?.f_mul_scalar(0.0)?)?;
    }
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_of_nothing_is_0_also_in_float16_under_a_loss_scale() {
        let scaler = LossScaler::new(tch::Device::Cpu).expect("memory");
        let halves = (Kind::Half, tch::Device::Cpu);
        let raw = [4, 2].map(|cells| Tensor::ones([cells, cells], halves).set_requires_grad(true));
        let loss = weightless(&raw).expect("a sum");
        scaler.scaled(&loss).expect("a product").backward();
        for level in &raw {
            let gradient = level.grad().to_kind(Kind::Float);
            assert_eq!(0.0, gradient.abs().sum(Kind::Float).double_value(&[]));
        }
    }
}
