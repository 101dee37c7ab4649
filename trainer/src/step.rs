//! One training step: a global batch, of which each rank computes its share.
//!
//! The step sends one small message besides the gradients, begun before the forward pass: the counts by
//! which the loss is divided, whether a rank was asked to stop, and the losses of the step before. So all
//! ranks learn the same things at the same step, and nobody waits for what the forward pass can hide.

use contract::spec::LossNormalisation;
use tch::{Kind, Tensor};
use trainer_core::schedule::StepPlan;
use trainer_data::Batch;
use trainer_model::ema::Ema;
use trainer_model::loss::{Assignment, Denominators, Loss, Target};
use trainer_model::network::Network;
use trainer_model::optim::{MAX_GRADIENT_NORM, Sgd, SgdStep};

use crate::checkpoint::EpochSums;
use crate::distributed::{Ddp, Gradients, Ranks};

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
    pub sgd: Sgd,
    loss: Loss,
    ddp: Ddp,
    normalisation: LossNormalisation,
    /// The losses of the last step, not yet added up over the ranks.
    pending: Option<Recent>,
    recent: Vec<Recent>,
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
    /// Whether the optimiser steps at the end.
    pub gradients: Gradients,
    /// Learning rates, and the weight decay for this batch size.
    pub plan: StepPlan,
    /// See [`trainer_core::schedule::scaled_weight_decay`].
    pub weight_decay: f64,
    /// Whether this rank was asked to stop.
    pub stop: bool,
}

/// What all ranks know after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepOutput {
    /// Images of this step over all ranks.
    pub images: u64,
    /// Whether any rank was asked to stop.
    pub stop: bool,
    /// Losses of the step before.
    pub before: EpochSums,
}

impl Learner {
    /// Puts the parts together.
    pub fn new(
        network: Network,
        loss: Loss,
        normalisation: LossNormalisation,
        ranks: &mut Ranks,
    ) -> Result<Self, StepError> {
        let ema = Ema::new(&network)?;
        let sgd = Sgd::new(&network)?;
        let state = network.state();
        let ddp = Ddp::new(ranks, &state.parameter_names(), &state.parameter_tensors())?;
        Ok(Self {
            network,
            ema,
            sgd,
            loss,
            ddp,
            normalisation,
            pending: None,
            recent: Vec::new(),
        })
    }

    /// One forward and backward pass that leaves no trace, after which the reducer's messages are in their
    /// final order: see [`Ddp::new`]. Comes before the first step of every start.
    pub fn settle(&mut self, image_size: u32) -> Result<(), StepError> {
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
        let loss = weightless(
            &self
                .network
                .train(&self.network.input(&black(image_size)?)?)?,
        )?;
        self.ddp.backward(&loss, Gradients::Averaged)?;
        self.ddp.before_forward(Gradients::Averaged)?;
        self.sgd.zero_grad()?;
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
        let (assignment, images) = self.assign(batch)?;
        let own = if images == 0 {
            Denominators::default()
        } else {
            assignment.denominators()
        };
        let pending = match &self.pending {
            None => EpochSums::default(),
            Some(pending) => pending.sums()?,
        };
        let sum = ranks.sum(&message(own, images, input.stop, pending))?;

        self.ddp.before_forward(input.gradients)?;
        let pixels = if images == 0 {
            black(batch.image_size)?
        } else {
            let side = i64::from(batch.image_size);
            Tensor::f_from_data_size(&batch.images, &[images as i64, 3, side, side], Kind::Uint8)?
        };
        let raw = self.network.train(&self.network.input(&pixels)?)?;

        let (all, output) = read_message(&ranks.finish(sum)?);
        if !output.before.is_finite() {
            return Err(StepError::NonFinite { what: "the loss" });
        }
        let (denominators, shown, scale) = match self.normalisation {
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
        self.ddp.backward(&loss, input.gradients)?;

        let record = |parts: Tensor| Recent {
            step: batch.step,
            indices: batch.indices.clone(),
            parts,
            weight: if images == 0 { 0.0 } else { shown },
        };
        self.recent.push(record(total.parts.shallow_clone()));
        self.pending = Some(record(total.parts));
        if input.gradients == Gradients::Averaged {
            self.update(ranks, &SgdStep::new(&input.plan, input.weight_decay))?;
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
        self.sgd.zero_grad()?;
        self.recent.clear();
        self.share_statistics(ranks)
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
            self.sgd.export()?,
        ];
        for (name, tensor) in parts.into_iter().flatten() {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
            hasher.update(name.as_bytes());
            hasher.update(&bytes);
        }
        Ok(hasher.finalize())
    }

    fn assign(&self, batch: &Batch) -> Result<(Assignment, usize), StepError> {
        let side = batch.image_size as usize;
        let images = batch.indices.len();
        let assignment = self
            .loss
            .assign(&targets(batch), images.max(1), side, side)?;
        Ok((assignment, images))
    }

    fn update(&mut self, ranks: &mut Ranks, step: &SgdStep) -> Result<(), StepError> {
        let norm = self.sgd.clip_grad_norm(MAX_GRADIENT_NORM)?;
        // The averaged gradients are the same on all ranks, and so is this decision.
        if !f64::try_from(norm)?.is_finite() {
            return Err(StepError::NonFinite {
                what: "the gradient",
            });
        }
        self.sgd.step(step, None)?;
        self.sgd.zero_grad()?;
        self.recent.clear();
        self.share_statistics(ranks)?;
        self.ema.update(&self.network)?;
        Ok(())
    }

    /// The running statistics come from each rank's own images; those of rank 0 count.
    fn share_statistics(&mut self, ranks: &mut Ranks) -> Result<(), StepError> {
        let mut statistics = [self.network.state().statistics().shallow_clone()];
        Ok(ranks.take_from_first(&mut statistics)?)
    }
}

/// The objects of a batch in the loss's words.
pub fn targets(batch: &Batch) -> Vec<Target> {
    let target = |target: &trainer_data::Target| Target {
        image: target.image,
        class: target.class,
        xywh: target.xywh,
    };
    batch.targets.iter().map(target).collect()
}

/// One black image: work for a rank without images, so that it takes part in everything.
fn black(image_size: u32) -> Result<Tensor, tch::TchError> {
    let side = i64::from(image_size);
    Tensor::f_zeros([1, 3, side, side], (Kind::Uint8, tch::Device::Cpu))
}

/// A loss that gives every parameter a gradient of 0.
fn weightless(raw: &[Tensor]) -> Result<Tensor, tch::TchError> {
    let mut loss = Tensor::f_zeros([], (raw[0].kind(), raw[0].device()))?;
    for level in raw {
        loss = loss.f_add(&level.f_sum(level.kind())?.f_mul_scalar(0.0)?)?;
    }
    Ok(loss)
}

/// All are whole numbers far below 2^53 or sums of losses, so `f64` holds them.
fn message(own: Denominators, images: usize, stop: bool, before: EpochSums) -> Vec<f64> {
    let counts = own.to_array().map(|count| count as f64);
    let rest = [
        images as f64,
        f64::from(u8::from(stop)),
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
        before: epoch_sums(&rest[2..]),
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
        let (all, output) = read_message(&message(own, 8, true, before));
        assert_eq!(own, all);
        assert_eq!(
            (8, true, 8.0),
            (output.images, output.stop, output.before.images)
        );
        assert!(!output.before.is_finite());
    }
}
