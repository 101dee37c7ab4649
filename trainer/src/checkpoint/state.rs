//! What a checkpoint holds besides tensors.

use contract::attempt::Attempt;
use contract::progress::{EpochMetrics, Losses};
use contract::spec::TrainerSpec;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use trainer_core::early_stopping::EarlyStopping;

/// The version of [`RunState`] this code writes; others are refused.
pub const FORMAT_VERSION: u32 = 1;

/// How far a run is, at a boundary between two steps of the optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunState {
    /// Version of this format.
    pub format_version: u32,
    /// The attempt that wrote it.
    pub attempt: Attempt,
    /// Training steps (global batches) done over the whole run.
    pub step: u64,
    /// Steps of the optimiser done.
    pub optimizer_steps: u64,
    /// Training steps done at the last step of the optimiser. They are fewer than `step` when an epoch
    /// ended in the middle of an accumulation, whose gradients are dropped as in YOLOv5.
    pub last_optimizer_step: u64,
    /// The present epoch, from 0.
    pub epoch: u32,
    /// Images of the present epoch that its steps have consumed. All of them: the epoch's evaluation is
    /// still to be done.
    pub position: u64,
    /// Training images seen over the whole run.
    pub images_seen: u64,
    /// Images that could not be decoded when their turn came, with the reasons.
    pub skipped: Vec<String>,
    /// Updates of the averaged weights.
    pub ema_updates: u64,
    /// The loss scale of mixed precision; none in full precision.
    pub scaler: Option<f64>,
    /// Steps that the loss scale has lasted.
    #[serde(default)]
    pub scaler_proved: u32,
    /// The share of the time of `training.hours` that was used; 0 in a run without it.
    #[serde(default)]
    pub spent: f64,
    /// How often the run went back to a checkpoint after a non-finite loss.
    pub recovery: u32,
    /// Images that epoch `excluded_epoch` does without, since a batch of them gave a loss that was not
    /// finite.
    #[serde(default)]
    pub excluded: Vec<u32>,
    /// An epoch, from 0.
    #[serde(default)]
    pub excluded_epoch: u32,
    /// Fitness of exactly these weights, when the checkpoint was taken right after an evaluation.
    pub fitness: Option<f64>,
    /// The best fitness so far and its epoch.
    pub early_stopping: EarlyStopping,
    /// Of each class, the average precision over `IoU` 0.5 to 0.95 in the latest evaluation; none before it. Image
    /// weights go by it.
    #[serde(default)]
    pub class_aps: Vec<f64>,
    /// Metrics of the latest epoch that was evaluated.
    #[serde(default, deserialize_with = "metrics")]
    pub latest: Option<EpochMetrics>,
    /// Metrics of the best epoch.
    #[serde(default, deserialize_with = "metrics")]
    pub best: Option<EpochMetrics>,
    /// Losses of the present epoch so far.
    pub epoch_sums: EpochSums,
    /// Seconds spent training and evaluating.
    pub training_seconds: f64,
    /// When the first training step of the run was completed (RFC 3339, UTC).
    pub first_step_time: Option<String>,
    /// The names of the classes.
    pub names: Vec<String>,
    /// BLAKE3 over names and sizes of the training images, in hexadecimal: a position only means
    /// something in the same data set.
    pub dataset: String,
    /// The settings of the run.
    pub spec: TrainerSpec,
    /// Where it was computed.
    pub machine: Machine,
}

impl RunState {
    /// The state before the first step.
    pub fn new(spec: TrainerSpec, names: Vec<String>, dataset: String, machine: Machine) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            attempt: Attempt::default(),
            step: 0,
            optimizer_steps: 0,
            last_optimizer_step: 0,
            epoch: 0,
            position: 0,
            images_seen: 0,
            skipped: Vec::new(),
            ema_updates: 0,
            scaler: None,
            scaler_proved: 0,
            spent: 0.0,
            recovery: 0,
            excluded: Vec::new(),
            excluded_epoch: 0,
            fitness: None,
            early_stopping: EarlyStopping::new(spec.training.patience),
            class_aps: Vec::new(),
            latest: None,
            best: None,
            epoch_sums: EpochSums::default(),
            training_seconds: 0.0,
            first_step_time: None,
            names,
            dataset,
            spec,
            machine,
        }
    }
}

/// Metrics without losses that are not finite: checkpoints of earlier versions have them, and JSON has only `null` for
/// such a number.
fn metrics<'de, D: Deserializer<'de>>(input: D) -> Result<Option<EpochMetrics>, D::Error> {
    let Some(mut metrics) = Option::<Map<String, Value>>::deserialize(input)? else {
        return Ok(None);
    };
    metrics.retain(|_, value| {
        let parts = value.as_object();
        !parts.is_some_and(|parts| parts.values().any(Value::is_null))
    });
    let metrics = serde_json::from_value(Value::Object(metrics));
    metrics.map(Some).map_err(D::Error::custom)
}

/// What bit-identity depends on besides settings and data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// Processes of the job.
    pub world_size: u32,
    /// Threads for tensor arithmetic, in each.
    pub compute_threads: usize,
    /// Portions in which each computes its images of a step.
    #[serde(default = "one")]
    pub portions: u32,
    /// The instruction set of the kernels (`DEFAULT`, `AVX2`, `AVX512`), or the GPU.
    pub device: String,
    /// libtorch's version.
    pub libtorch: String,
}

fn one() -> u32 {
    1
}

impl Machine {
    /// What differs from the machine of a checkpoint, in words; empty if resuming is bit-identical.
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let pairs = [
            (
                "world size",
                before.world_size.to_string(),
                self.world_size.to_string(),
            ),
            (
                "compute threads",
                before.compute_threads.to_string(),
                self.compute_threads.to_string(),
            ),
            (
                "portions",
                before.portions.to_string(),
                self.portions.to_string(),
            ),
            ("device", before.device.clone(), self.device.clone()),
            ("libtorch", before.libtorch.clone(), self.libtorch.clone()),
        ];
        pairs
            .into_iter()
            .filter(|(_, before, now)| before != now)
            .map(|(what, before, now)| format!("{what} was {before} and is {now}"))
            .collect()
    }
}

/// Sums over images from which mean losses come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EpochSums {
    /// Images in the sums.
    pub images: f64,
    /// Box loss times images.
    #[serde(rename = "box")]
    pub box_loss: f64,
    /// Objectness loss times images.
    pub obj: f64,
    /// Class loss times images.
    pub cls: f64,
}

impl EpochSums {
    /// Adds another sum.
    pub fn add(&mut self, other: Self) {
        self.images += other.images;
        self.box_loss += other.box_loss;
        self.obj += other.obj;
        self.cls += other.cls;
    }

    /// Mean losses over the images; none before the first, nor where a part is not finite: JSON, in which states and
    /// reports are written, has no such number.
    pub fn means(&self) -> Option<Losses> {
        (self.images > 0.0 && self.is_finite()).then(|| {
            let [box_loss, obj, cls] =
                [self.box_loss, self.obj, self.cls].map(|sum| sum / self.images);
            Losses {
                box_loss,
                obj,
                cls,
                total: box_loss + obj + cls,
            }
        })
    }

    /// Whether no part is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        (self.box_loss + self.obj + self.cls).is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_weighted_by_images() {
        let mut sums = EpochSums::default();
        assert_eq!(None, sums.means());
        for (images, loss) in [(4.0, 1.0), (12.0, 3.0)] {
            sums.add(EpochSums {
                images,
                box_loss: images * loss,
                obj: 0.0,
                cls: images,
            });
        }
        let means = sums.means().expect("images");
        assert_eq!((2.5, 1.0, 3.5), (means.box_loss, means.cls, means.total));
        for broken in [f64::NAN, f64::INFINITY] {
            sums.obj = broken;
            assert!(!sums.is_finite());
            assert_eq!(None, sums.means());
        }
    }

    #[test]
    fn losses_that_were_not_finite_are_read_as_none() {
        #[derive(Deserialize)]
        struct Part(#[serde(deserialize_with = "metrics")] Option<EpochMetrics>);
        let read = |text: &str| serde_json::from_str::<Part>(text).map(|part| part.0);
        let losses = |obj| format!(r#"{{"box": 0.5, "obj": {obj}, "cls": 0, "total": 1}}"#);
        let epoch = |obj| {
            format!(
                r#"{{"epoch": 3, "mAP50": 0.1, "valLoss": {}}}"#,
                losses(obj)
            )
        };

        let whole = read(&epoch("0.5")).expect("read").expect("metrics");
        assert_eq!(Some(0.5), whole.val_loss.map(|losses| losses.obj));
        let broken = read(&epoch("null")).expect("read").expect("metrics");
        assert_eq!(
            (3, None, Some(0.1)),
            (broken.epoch, broken.val_loss, broken.map50)
        );
        assert_eq!(None, read("null").expect("read"));
        read(r#"{"epoch": null}"#).expect_err("no metrics");
    }

    #[test]
    fn a_machine_names_what_differs() {
        let before = Machine {
            world_size: 2,
            compute_threads: 1,
            portions: 1,
            device: "AVX2".to_owned(),
            libtorch: "2.11.0".to_owned(),
        };
        assert!(before.differences(&before).is_empty());
        let now = Machine {
            compute_threads: 4,
            ..before.clone()
        };
        assert_eq!(
            ["compute threads was 1 and is 4"],
            now.differences(&before)[..]
        );
    }
}
