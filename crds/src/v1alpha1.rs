//! Version `v1alpha1` of the API.

mod container;
mod quantity;
mod run_policy;
mod scheduling;
mod status;
mod template;
mod training_job;
mod workers;

pub use container::{WorkerContainer, is_reserved_variable};
pub use contract::failure_policy::{
    Backoff, FailureAction, FailureFacts, FailurePolicy, FailureRule, failure_words,
};
pub use quantity::Quantity;
pub use run_policy::{CONTROLLER_NAME, CleanPodPolicy, MUTABLE, RunPolicy};
pub use scheduling::{Gang, Network, Scheduling};
pub use status::{
    AdmissionStatus, Display, FailureRecord, FetchFailure, FetchStatus, MAX_FAILURES, MAX_WARNINGS,
    Restart, State, WorkerState, WorkerStatus, YoloTrainingJobStatus,
};
pub use template::{WorkerTemplate, is_reserved};
pub use training_job::{
    COSCHEDULING_UNNAMED, MAX_NAME_LENGTH, NO_GPU_RESOURCE, OTHER_SCHEDULER, VOLCANO_QUEUE_ALONE,
    YoloTrainingJob, YoloTrainingJobSpec, name_problem, root_rules,
};
pub use workers::{Resources, Workers};
