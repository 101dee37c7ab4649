//! One training step: a global batch, of which each rank computes its share.
//!
//! The step sends one small message besides the gradients, begun before the forward pass: the counts by
//! which the loss is divided, whether a rank was asked to stop, and the losses of the step before. So all
//! ranks learn the same things at the same step, and nobody waits for what the forward pass can hide.

mod input;

use contract::spec::LossNormalisation;
use tch::{Kind, Tensor};
use torch_bridge::optim::{GradScale, grad_norm, scale_to_norm};
use torch_bridge::{Autocast, SyncNorm};
use trainer_core::schedule::StepPlan;
use trainer_data::Batch;
use trainer_model::ema::Ema;
use trainer_model::loss::{Denominators, Loss};
use trainer_model::network::Network;
use trainer_model::optim::{Optimizer, OptimizerStep, Rule};

use crate::checkpoint::EpochSums;
use crate::distributed::{Ddp, Gradients, Ranks};
use crate::scaler::LossScaler;
pub use input::targets;
use input::{Quads, black, pixels};

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
    /// A loss or a gradient was NaN or infinite, on this rank or another; all ranks see this at the same
    /// step. [`Learner::recent`] tells what this rank did since the last step of the optimiser.
    #[error("{what} is not a finite number")]
    NonFinite {
        /// What it was.
        what: &'static str,
    },
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
    /// Whether to make this rank's loss NaN, to test what follows.
    pub fault: bool,
}

/// What all ranks know after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        let state = self.network.state();
        let (mut statistics, mut counters) = (
            state.statistics().shallow_clone(),
            state.counters().shallow_clone(),
        );
        let before = (statistics.f_detach_copy()?, counters.f_detach_copy()?);
        self.ddp.before_forward(Gradients::Averaged)?;
        let loss = weightless(&self.forward(
            ranks,
            &black(image_size)?,
            (image_size, image_size),
            true,
        )?)?;
        self.ddp.backward(&loss, Gradients::Averaged)?;
        self.ddp.before_forward(Gradients::Averaged)?;
        self.optimizer.zero_grad()?;
        tch::no_grad(|| {
            statistics.f_copy_(&before.0)?;
            counters.f_copy_(&before.1)
        })?;
        Ok(())
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
        let (width, height) = (input.size.0 as usize, input.size.1 as usize);
        let assignment = self.loss.assign(&objects, count.max(1), height, width)?;
        let own = if images == 0 {
            Denominators::default()
        } else {
            assignment.denominators()
        };
        let pending = match &self.pending {
            None => EpochSums::default(),
            Some(pending) => pending.sums()?,
        };
        let wishes = Wishes {
            stop: input.stop,
            save: input.save && ranks.is_first(),
            spent: if ranks.is_first() { input.spent } else { 0.0 },
        };
        let sum = ranks.sum(&message(own, images, wishes, pending))?;

        self.ddp.before_forward(input.gradients)?;
        let pixels = match &quads {
            _ if images == 0 => black(input.size.0)?,
            None => pixels(batch)?,
            Some(quads) => quads.join(&pixels(batch)?)?,
        };
        let raw = self.forward(ranks, &pixels, input.size, images > 0)?;

        let (all, output) = read_message(&ranks.finish(sum)?);
        if !output.before.is_finite() {
            return Err(StepError::NonFinite { what: "the loss" });
        }
        let (denominators, shown, scale) = match self.options.normalisation {
            LossNormalisation::Global => (all, output.images as f64, output.images as f64),
            LossNormalisation::PerRank => (own, images as f64, images as f64),
        };
        // The reducer averages over the ranks; the gradient is to be that of the sum of the shares.
        let total = self
            .loss
            .terms(&raw, &assignment)?
            .total(&denominators, scale * f64::from(ranks.world()))?;
        let loss = if images == 0 {
            weightless(&raw)?
        } else {
            total.loss
        };
        let (loss, parts) = if input.fault {
            (
                loss.f_mul_scalar(f64::NAN)?,
                total.parts.f_mul_scalar(f64::NAN)?,
            )
        } else {
            (loss, total.parts)
        };
        let loss = match &self.scaler {
            None => loss,
            Some(scaler) => scaler.scaled(&loss)?,
        };
        self.ddp.backward(&loss, input.gradients)?;

        let record = |parts: Tensor| Recent {
            step: batch.step,
            indices: batch.indices.clone(),
            parts,
            weight: if images == 0 { 0.0 } else { shown },
        };
        self.recent.push(record(parts.shallow_clone()));
        self.pending = Some(record(parts));
        if input.gradients == Gradients::Averaged {
            self.update(ranks, &OptimizerStep::new(&input.plan, input.weight_decay))?;
        }
        Ok(output)
    }

    /// The losses of the last step, added up over the ranks: for the end of an epoch and before a
    /// checkpoint. All ranks must call it.
    pub fn flush(&mut self, ranks: &mut Ranks) -> Result<EpochSums, StepError> {
        let own = match self.pending.take() {
            None => EpochSums::default(),
            Some(pending) => pending.sums()?,
        };
        let sum = ranks.sum(&[own.images, own.box_loss, own.obj, own.cls])?;
        let values = ranks.finish(sum)?;
        let sums = epoch_sums(&values);
        if sums.is_finite() {
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

    /// What this rank did since the last step of the optimiser.
    pub fn recent(&self) -> &[Recent] {
        &self.recent
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

    /// Raw predictions for `pixels`, resized to this width and height. `counts` tells whether they are images of this rank, by
    /// which the others normalise too.
    fn forward(
        &self,
        ranks: &Ranks,
        pixels: &Tensor,
        (width, height): (u32, u32),
        counts: bool,
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
        Ok(match ranks.shared_group() {
            Some(group) if self.options.sync_norm => self
                .network
                .train_together(&images, SyncNorm::new(group, counts))?,
            _ => self.network.train(&images)?,
        })
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
        let norm = grad_norm(&gradients)?;
        if scale.is_some() {
            // A step that overflows is left out and the scale halved, without a wait for the GPU.
            scale_to_norm(&mut gradients, &norm, most)?;
        } else {
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
    let mut loss = Tensor::f_zeros([], (raw[0].kind(), raw[0].device()))?;
    for level in raw {
        loss = loss.f_add(&level.f_sum(level.kind())?.f_mul_scalar(0.0)?)?;
    }
    Ok(loss)
}

/// What ranks tell each other besides numbers of images and losses.
#[derive(Clone, Copy, Debug)]
struct Wishes {
    stop: bool,
    save: bool,
    spent: f64,
}

/// All are whole numbers far below 2^53 or sums of losses, so `f64` holds them.
fn message(own: Denominators, images: usize, wishes: Wishes, before: EpochSums) -> Vec<f64> {
    let counts = own.to_array().map(|count| count as f64);
    let rest = [
        images as f64,
        f64::from(u8::from(wishes.stop)),
        f64::from(u8::from(wishes.save)),
        wishes.spent,
        before.images,
        before.box_loss,
        before.obj,
        before.cls,
    ];
    [&counts[..], &rest[..]].concat()
}

fn read_message(values: &[f64]) -> (Denominators, StepOutput) {
    let mut counts = [0; Denominators::COUNT];
    for (count, value) in counts.iter_mut().zip(values) {
        *count = *value as i64;
    }
    let rest = &values[Denominators::COUNT..];
    let output = StepOutput {
        images: rest[0] as u64,
        stop: rest[1] > 0.0,
        save: rest[2] > 0.0,
        spent: rest[3],
        before: epoch_sums(&rest[4..]),
    };
    (Denominators::from_array(counts), output)
}

fn epoch_sums(values: &[f64]) -> EpochSums {
    EpochSums {
        images: values[0],
        box_loss: values[1],
        obj: values[2],
        cls: values[3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let own = Denominators {
            matches: [1, 2, 3, 4, 5],
            cells: [400, 100, 25, 9, 0],
        };
        let before = EpochSums {
            images: 8.0,
            box_loss: 0.5,
            obj: 0.25,
            cls: f64::NAN,
        };
        let wishes = Wishes {
            stop: true,
            save: false,
            spent: 0.5,
        };
        let (all, output) = read_message(&message(own, 8, wishes, before));
        assert_eq!(own, all);
        assert_eq!(
            (8, true, false, 0.5, 8.0),
            (
                output.images,
                output.stop,
                output.save,
                output.spent,
                output.before.images
            )
        );
        assert!(!output.before.is_finite());
    }
}
