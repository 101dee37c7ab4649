//! How good a network is on validation images, over all ranks.
//!
//! The batches are always the same and are dealt out over the ranks; what each gave is put together in the
//! order of the images. So the result does not depend on the number of ranks.

use std::sync::Arc;

use tch::{Kind, Tensor};
use trainer_core::average_precision::{
    ClassCurves, DuplicateImageError, Evaluation, merge, with_curves,
};
use trainer_core::detection::Detection;
use trainer_core::image_stats::ImageStats;
use trainer_core::nms::{Competition, NmsOptions};
use trainer_core::stats_bytes::{self, DecodeStatsError};
use trainer_data::{
    Batch, EvaluateSource, Loader, LoaderConfig, LoaderError, SkippedImage, StepRequest,
};
use trainer_model::loss::Loss;

use crate::checkpoint::EpochSums;
use crate::distributed::Ranks;
use crate::finder::{Finder, Found};
use crate::step::targets;

/// Images computed at a time, at most.
pub const MAX_BATCH: usize = 32;
/// Batches made ahead of time on each rank.
const PREFETCH_STEPS: usize = 2;
/// Numbers that a rank sends for each of its batches, each in eight bytes.
const NUMBERS: usize = 5;

/// Why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Another rank is gone, or libtorch failed.
    #[error(transparent)]
    Ranks(#[from] torch_bridge::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Model(#[from] trainer_model::Error),
    /// Pixels or losses could not become tensors or numbers.
    #[error("a tensor could not be made or read")]
    Tensor(#[from] tch::TchError),
    /// Memory was made to run out.
    #[error("out of memory")]
    OutOfMemory,
    /// Images could not be loaded.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// What a rank sent cannot be read.
    #[error("the results of rank {rank} cannot be read")]
    Decode {
        /// The rank.
        rank: usize,
        /// What is wrong with them.
        #[source]
        source: DecodeStatsError,
    },
    /// The results of the ranks do not fit together.
    #[error("the results of the ranks do not fit together")]
    Merge(#[source] DuplicateImageError),
}

/// What came of an evaluation.
#[derive(Debug)]
pub enum Outcome {
    /// All images were evaluated.
    Whole(Measured),
    /// A rank was asked to stop; all ranks left it at the same batch.
    Stopped,
}

/// How good the network is. The same on every rank, except for `skipped`.
#[derive(Debug)]
pub struct Measured {
    /// Precision, recall, mAP.
    pub evaluation: Evaluation,
    /// How precision and recall depend on the confidence, by classes of the labels.
    pub curves: Vec<ClassCurves>,
    /// Validation losses.
    pub losses: EpochSums,
    /// Images that this rank could not decode.
    pub skipped: Vec<SkippedImage>,
}

/// Who asked for an evaluation: may end it and sees how it goes on this rank.
pub trait Audience {
    /// Whether this rank was asked to stop.
    fn wants_stop(&self) -> bool {
        false
    }

    /// So many of this rank's batches are done.
    fn batch_done(&mut self, _done: u64) {}

    /// Image `k` of a batch was evaluated; the detections are in its own pixels.
    fn image(&mut self, _batch: &Batch, _k: usize, _detections: &[Detection]) {}
}

/// Evaluates networks on one set of images.
pub struct Evaluator {
    source: Arc<EvaluateSource>,
    loss: Loss,
    batches: Vec<Vec<u32>>,
    loader: LoaderConfig,
    nms: NmsOptions,
    classes: Classes,
}

/// Which classes detections are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classes {
    /// Those that the network knows.
    Own,
    /// All of the first: how well objects are found, whatever they are.
    Single,
}

/// The losses of one batch.
#[derive(Clone, Copy, Debug)]
struct BatchLosses {
    number: u64,
    sums: EpochSums,
}

impl Evaluator {
    /// Evaluates on the images of `source`, at most `batch` at a time.
    pub fn new(source: EvaluateSource, loss: Loss, batch: usize, loader_threads: usize) -> Self {
        Self {
            batches: source.batches(batch),
            source: Arc::new(source),
            loss,
            loader: LoaderConfig {
                threads: loader_threads,
                prefetch_steps: PREFETCH_STEPS,
            },
            nms: NmsOptions::VALIDATION,
            classes: Classes::Own,
        }
    }

    /// The same with other thresholds and classes than a validation's.
    #[must_use]
    pub fn with(mut self, nms: NmsOptions, classes: Classes) -> Self {
        self.nms = nms;
        if classes == Classes::Single {
            self.nms.competition = Competition::AcrossClasses;
        }
        self.classes = classes;
        self
    }

    /// Batches of an evaluation, over all ranks.
    pub fn batches(&self) -> u64 {
        self.batches.len() as u64
    }

    /// Evaluates what `finder` finds.
    pub fn run(
        &self,
        finder: &Finder,
        ranks: &mut Ranks,
        audience: &mut dyn Audience,
    ) -> Result<Outcome, EvaluateError> {
        let requests = self.requests(ranks);
        let rounds = self.batches().div_ceil(u64::from(ranks.world()));
        let source = Arc::clone(&self.source);
        let mut loader = Loader::start(self.loader, source, requests.into_iter())?;
        let (mut stats, mut losses, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=rounds {
            // Every rank takes part in every round, also one that has no batch left.
            let asked = ranks.sum(&[f64::from(u8::from(audience.wants_stop()))])?;
            if ranks.finish(asked)?[0] > 0.0 {
                return Ok(Outcome::Stopped);
            }
            let Some(batch) = loader.next() else { continue };
            let batch = batch?;
            losses.push(self.one_batch(finder, &batch, &mut stats, audience)?);
            skipped.extend(batch.skipped);
            audience.batch_done(round);
        }
        let (evaluation, curves) = together(&stats, ranks)?;
        Ok(Outcome::Whole(Measured {
            evaluation,
            curves,
            losses: add_up(&losses, ranks)?,
            skipped,
        }))
    }

    /// This rank's batches.
    fn requests(&self, ranks: &Ranks) -> Vec<StepRequest> {
        self.batches
            .iter()
            .enumerate()
            .skip(ranks.rank() as usize)
            .step_by(ranks.world() as usize)
            .map(|(number, indices)| StepRequest {
                epoch: 0,
                step: number as u64,
                indices: indices.clone(),
                drawn: None,
            })
            .collect()
    }

    fn one_batch(
        &self,
        finder: &Finder,
        batch: &Batch,
        stats: &mut Vec<ImageStats>,
        audience: &mut dyn Audience,
    ) -> Result<BatchLosses, EvaluateError> {
        let images = batch.indices.len();
        let (height, width) = (batch.height as usize, batch.width as usize);
        let shape = [images as i64, 3, height as i64, width as i64];
        let pixels = Tensor::f_from_data_size(&batch.images, &shape, Kind::Uint8)?;
        let Found { detections, raw } = finder.find(&pixels, &self.nms)?;

        let assignment = self.loss.assign(&targets(batch), images, height, width)?;
        let terms = self.loss.terms(&raw, &assignment)?;
        let total = terms.total(&terms.own, 1.0)?;
        let parts: Vec<f64> = Vec::try_from(total.parts.f_to_kind(Kind::Double)?)?;

        let batched = batch.indices.iter().zip(&batch.evaluated);
        for (k, (mut found, (index, image))) in detections.into_iter().zip(batched).enumerate() {
            for detection in &mut found {
                detection.xyxy = image.letterbox.to_original(detection.xyxy);
                if self.classes == Classes::Single {
                    detection.class = 0;
                }
            }
            stats.push(ImageStats::new(*index, &found, &image.labels));
            audience.image(batch, k, &found);
        }
        let weight = images as f64;
        Ok(BatchLosses {
            number: batch.step,
            sums: EpochSums {
                images: weight,
                box_loss: parts[0] * weight,
                obj: parts[1] * weight,
                cls: parts[2] * weight,
            },
        })
    }
}

/// The evaluation over all ranks' images, in the order of the images.
fn together(
    stats: &[ImageStats],
    ranks: &mut Ranks,
) -> Result<(Evaluation, Vec<ClassCurves>), EvaluateError> {
    let mut all = Vec::new();
    for (rank, bytes) in ranks
        .gather(&stats_bytes::encode(stats))?
        .iter()
        .enumerate()
    {
        let decoded = stats_bytes::decode(bytes);
        all.extend(decoded.map_err(|source| EvaluateError::Decode { rank, source })?);
    }
    Ok(with_curves(&merge(all).map_err(EvaluateError::Merge)?))
}

/// The losses over all ranks' batches, added in the order of the batches.
fn add_up(losses: &[BatchLosses], ranks: &mut Ranks) -> Result<EpochSums, EvaluateError> {
    let own: Vec<u8> = losses
        .iter()
        .flat_map(|one| one.to_numbers().map(f64::to_le_bytes))
        .flatten()
        .collect();
    let mut all: Vec<BatchLosses> = Vec::new();
    for bytes in ranks.gather(&own)? {
        let numbers: Vec<f64> = bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| f64::from_le_bytes(*bytes))
            .collect();
        all.extend(
            numbers
                .as_chunks::<NUMBERS>()
                .0
                .iter()
                .map(BatchLosses::from_numbers),
        );
    }
    all.sort_by_key(|one| one.number);
    let mut sum = EpochSums::default();
    for one in all {
        sum.add(one.sums);
    }
    Ok(sum)
}

impl BatchLosses {
    fn to_numbers(self) -> [f64; NUMBERS] {
        let EpochSums {
            images,
            box_loss,
            obj,
            cls,
        } = self.sums;
        [self.number as f64, images, box_loss, obj, cls]
    }

    fn from_numbers([number, images, box_loss, obj, cls]: &[f64; NUMBERS]) -> Self {
        Self {
            number: *number as u64,
            sums: EpochSums {
                images: *images,
                box_loss: *box_loss,
                obj: *obj,
                cls: *cls,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_added_in_the_order_of_the_batches() {
        let one = |number, obj| BatchLosses {
            number,
            sums: EpochSums {
                images: 2.0,
                obj,
                ..EpochSums::default()
            },
        };
        // In any other order the small one would be lost.
        let sum = add_up(
            &[one(2, 1.0), one(1, -1e17), one(0, 1e17)],
            &mut Ranks::alone(),
        );
        let sum = sum.expect("alone");
        assert_eq!((6.0, 1.0), (sum.images, sum.obj));
    }
}
