//! What a user writes: the parts of a `YoloTrainingJob`'s spec that the trainer obeys.
//!
//! One set of types serves the resource and the trainer's configuration, so a setting cannot mean two
//! things. Fields are camelCase; YOLOv5's own names are accepted as aliases where they differ (in
//! files; the API server knows only camelCase).
//!
//! Each range is written once, in [`LIMITS`]: the API server's rules are made from it, and [`check`]
//! refuses with the same words where there is no API server. Combinations are CEL rules beside their
//! fields and branches of [`check`].

mod augmentation;
mod cache;
mod check;
mod claim;
mod dataset;
mod fetch;
mod hyperparameters;
mod limits;
mod model;
mod output;
mod training;

pub use augmentation::Augmentation;
pub use cache::Cache;
pub use check::{SpecProblem, check};
pub use claim::{
    AccessMode, ClaimRequests, ClaimResources, ClaimTemplate, RetentionPolicy, VolumeClaim,
};
pub use dataset::{DataFile, Dataset, ImageSource, PullPolicy};
pub use fetch::{Archive, ArchiveFormat, FetchTo, ObjectStorage};
pub use hyperparameters::{Hyperparameters, LossNormalisation, OptimizerKind, Schedule};
pub use limits::{LIMITS, Limit, out_of_range};
pub use model::{Activation, MAX_ARCHITECTURE, Model, ModelSize, image_size_problem};
pub use output::Output;
pub use training::{Backend, Device, Distributed, Fitness, Precision, Training};

use serde::{Deserialize, Serialize};

/// Everything the trainer needs to know of a job, as the user wrote it and with defaults filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrainerSpec {
    /// The network.
    #[serde(default)]
    pub model: Model,
    /// The images and labels.
    pub dataset: Dataset,
    /// How long and in which portions.
    #[serde(default)]
    pub training: Training,
    /// The optimiser's and the loss's numbers.
    #[serde(default)]
    pub hyperparameters: Hyperparameters,
    /// Random changes to training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// How processes talk to each other.
    #[serde(default)]
    pub distributed: Distributed,
    /// Where results go.
    pub output: Output,
}
