use serde::{Deserialize, Serialize};

use super::Cache;

#[cfg(feature = "schema")]
use serde_json::json;

/// How long to train, in which portions, and what to keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "self.cache != 'none' || !has(self.cacheLimit)",
    "message": "training.cacheLimit is set, but training.cache is none: remove cacheLimit or choose ram or disk",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of its own that users write"
)]
pub struct Training {
    /// Passes over the training images. A run on one machine that is resumed may get another number, as it may get
    /// other `iterations`, `hours`, `patience`, `evaluateEvery` and, without `iterations`, another `batchSize`: the
    /// learning rate then goes on from the place that the epochs and images done have in the new plan. A job in
    /// a cluster keeps the settings it was begun with.
    pub epochs: u32,
    /// End the run after so many steps of `batchSize` images, if that is earlier than `epochs`; the learning
    /// rate then falls over these steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u64>,
    /// End the run after so many hours of training, evaluations included and waiting for restarts not, if
    /// that is earlier than `epochs`; the learning rate then falls over this time. Such a run cannot be
    /// repeated bit for bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hours: Option<f64>,
    /// Images per step over all workers together (YOLOv5's --batch-size). A multiple of the number of
    /// processes. Gradients are accumulated up to `hyperparameters.nominalBatchSize`. 0 for the most images that fit
    /// the memory of every process, found at the first start (YOLOv5's -1). When a GPU's memory runs out later, the next
    /// start computes the same batch in more portions.
    #[serde(alias = "batch_size", alias = "batch")]
    pub batch_size: u32,
    /// Side of the square training image in pixels, a multiple of 32 and of the model's largest stride: 64
    /// for yolov5n6 to yolov5x6.
    #[serde(alias = "imgsz", alias = "img_size", alias = "img")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 64 && self <= 8192 && self % 32 == 0",
        "messageExpression": "'training.imageSize is %s: choose a multiple of 32 from 64 to 8192%s'.format([self, self > 64 && self < 8160 ? ', for example %s'.format([(self + 31) / 32 * 32]) : ''])",
        "message": "training.imageSize is …: choose a multiple of 32 from 64 to 8192",
    }]))))]
    pub image_size: u32,
    /// Train with images of other sizes too: each step draws one from `imageSize * (1 - x)` to
    /// `imageSize * (1 + x)`. 0 is off; YOLOv5's --multi-scale is 0.5.
    #[serde(alias = "multi_scale")]
    pub multi_scale: f64,
    /// Lay each image alone into a rectangle that fits the images of its batch, which are of similar shape, in place
    /// of a square: fewer pixels to compute. The order of the images is then the same in every epoch, and
    /// `augmentation.mosaic` must be 0. YOLOv5's --rect.
    pub rect: bool,
    /// Join four images each into one of twice the width and height, or enlarge the first of them to it, each with
    /// probability 1/2; `batchSize` must be a multiple of four times the number of processes. YOLOv5's --quad.
    pub quad: bool,
    /// Draw the images of an epoch with replacement, those more often whose classes are rare or have a low average
    /// precision so far. Images without labels are never drawn. YOLOv5's --image-weights, with any number of
    /// processes.
    #[serde(alias = "image_weights")]
    pub image_weights: bool,
    /// Treat all objects as one class, called item.
    #[serde(alias = "single_cls")]
    pub single_class: bool,
    /// Layers whose weights stay as they are, by number: `[0, 1, 2]` for the first three. `yolo-trainer info`
    /// lists them.
    #[cfg_attr(feature = "schema", schemars(length(max = 1000)))]
    pub freeze: Vec<u32>,
    /// Before the first step, test whether the model's anchors fit the labels; where 98 % of them or fewer can
    /// be matched, look for others by k-means and evolution, and take them if they match more
    /// (YOLOv5's --noautoanchor is `false`). Anchors given in `model.anchors` are never changed.
    #[serde(alias = "autoanchor")]
    pub auto_anchor: bool,
    /// Let batch normalisation go by the images of all processes instead of each process's own, so that many
    /// processes with few images each learn as one with all of them (YOLOv5's --sync-bn; on CPUs too). Costs two
    /// messages for each normalisation in each step.
    #[serde(alias = "sync_bn")]
    pub sync_batch_norm: bool,
    /// Use only algorithms of a GPU that give the same bits each time, and fail where there is none: slower. On CPUs
    /// training always gives the same bits.
    pub deterministic: bool,
    /// Number format of the expensive operations. `auto` is float16 on GPUs, as in YOLOv5, and float32 on
    /// CPUs. Weights, losses and averages are float32 always.
    pub precision: Precision,
    /// Seed of everything random: initial weights, order of images, augmentation. The same seed on the
    /// same kind and number of processes gives the same model, bit for bit on CPU.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 4_294_967_295_u32)))]
    pub seed: u32,
    /// Where to compute: `auto` uses GPUs when `workers.gpusPerWorker` asks for them, else the CPU.
    pub device: Device,
    /// Evaluate on the validation images after every so many epochs (and after the last one).
    pub evaluate_every: u32,
    /// Write a checkpoint after every so many epochs (and after the last one).
    pub checkpoint_every: u32,
    /// Also write a checkpoint when so many minutes have gone by since the last one, in the middle of an epoch if
    /// need be. A restart goes on from there, bit for bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_minutes: Option<f64>,
    /// Keep a copy of the whole state in the memory of each worker, this often in seconds: processes that are started
    /// anew in place, or because a worker was replaced, go on from the latest, bit for bit, so that no more than this
    /// is lost. Taken less often where it would cost more than a fiftieth of the time, and no more once
    /// `workers.sharedMemory` has no room for two; then they go on from the last checkpoint. With
    /// `output.objectStorage` only worker 0 keeps one. 0 keeps none.
    pub snapshot_seconds: u32,
    /// End the run when so many epochs have gone by since the best one (see `fitness`). Kept across
    /// restarts; 0 never ends it.
    pub patience: u32,
    /// By what the best epoch is chosen, and `patience` counted.
    pub fitness: Fitness,
    /// How many of the latest checkpoints to keep, besides the best one.
    pub keep_checkpoints: u32,
    /// Decode JPEGs at a half, a quarter or an eighth of their size where the long side then still has `imageSize` pixels:
    /// images at least twice as large as `imageSize` are read faster, to pixels that differ a little from YOLOv5's. Only
    /// for training; evaluation decodes all pixels.
    pub scaled_decoding: bool,
    /// Where decoded images are kept for later epochs (YOLOv5's --cache): in memory, shared by the processes of a
    /// worker; on disk, in a scratch volume that goes with the worker; or not at all. It changes no result.
    pub cache: Cache,
    /// The most that decoded images may take in each worker: a whole number of Mi, Gi or Ti. In memory it counts
    /// towards the worker's memory limit. Images beyond it are decoded each time. Default: a quarter of the free
    /// memory, or half of the free space of the scratch volume.
    #[serde(alias = "cache_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 16)))]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self.matches('^[1-9][0-9]{0,5}(Mi|Gi|Ti)$')",
        "messageExpression": "\"training.cacheLimit is '\" + self + \"': write a whole number of Mi, Gi or Ti, for example 20Gi\"",
        "message": "training.cacheLimit is '…': write a whole number of Mi, Gi or Ti, for example 20Gi",
    }]))))]
    pub cache_limit: Option<String>,
    /// Threads that decode and augment images, in each process. Default: as many as the process has
    /// CPUs, at most 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loader_threads: Option<u32>,
    /// Threads for tensor arithmetic on the CPU, in each process. Default: the worker's CPUs divided by
    /// its processes. Part of what bit-identity depends on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_threads: Option<u32>,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 100,
            iterations: None,
            hours: None,
            batch_size: 16,
            image_size: 640,
            multi_scale: 0.0,
            rect: false,
            quad: false,
            image_weights: false,
            single_class: false,
            freeze: Vec::new(),
            auto_anchor: true,
            sync_batch_norm: false,
            deterministic: false,
            precision: Precision::Auto,
            seed: 0,
            device: Device::Auto,
            evaluate_every: 1,
            checkpoint_every: 1,
            checkpoint_minutes: None,
            snapshot_seconds: 5,
            patience: 100,
            fitness: Fitness::default(),
            keep_checkpoints: 3,
            scaled_decoding: false,
            cache: Cache::default(),
            cache_limit: None,
            loader_threads: None,
            compute_threads: None,
        }
    }
}

/// Weights of the metrics in the one number that epochs are compared by; their sum. The defaults are
/// YOLOv5's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "self.precision + self.recall + self.mAP50 + self.mAP50_95 > 0.0",
    "message": "training.fitness has no weight above 0: give at least one metric a weight",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fitness {
    /// Weight of the precision.
    pub precision: f64,
    /// Weight of the recall.
    pub recall: f64,
    /// Weight of mAP50.
    #[serde(rename = "mAP50")]
    pub map50: f64,
    /// Weight of mAP50-95.
    #[serde(rename = "mAP50_95")]
    pub map50_95: f64,
}

impl Default for Fitness {
    fn default() -> Self {
        Self {
            precision: 0.0,
            recall: 0.0,
            map50: 0.1,
            map50_95: 0.9,
        }
    }
}

impl Fitness {
    /// The weighted sum of metrics.
    pub fn of(&self, precision: f64, recall: f64, map50: f64, map50_95: f64) -> f64 {
        self.precision * precision
            + self.recall * recall
            + self.map50 * map50
            + self.map50_95 * map50_95
    }

    /// Whether any metric counts.
    pub(super) fn has_weight(&self) -> bool {
        self.of(1.0, 1.0, 1.0, 1.0) > 0.0
    }
}

/// Number format of convolutions and matrix products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// By device.
    #[default]
    Auto,
    /// 32 bits.
    Float32,
    /// 16 bits with the range of float32: about twice as fast on CPUs with AVX-512 BF16 or AMX.
    Bfloat16,
    /// 16 bits with loss scaling, on GPUs only.
    Float16,
}

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// GPUs when there are any, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs, one for each process.
    Cuda,
}

/// How the processes of a job talk to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Distributed {
    /// Collective library: `auto` is NCCL on GPUs and Gloo on CPUs.
    pub backend: Backend,
    /// After how many seconds a collective that does not complete counts as a lost peer.
    pub timeout_seconds: u32,
}

impl Default for Distributed {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            timeout_seconds: 300,
        }
    }
}

/// A collective library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// By device.
    #[default]
    Auto,
    /// Gloo, over TCP, for CPUs.
    Gloo,
    /// NCCL, for NVIDIA GPUs.
    Nccl,
}
