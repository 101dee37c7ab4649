use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of this controller in `managedBy`.
pub const CONTROLLER_NAME: &str = "yolo-operator.dev/controller";

/// The fields of the spec that may be changed while the job exists.
pub const MUTABLE: [&str; 4] = [
    "suspend",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "cleanPodPolicy",
];

/// Which pods are deleted when the job has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CleanPodPolicy {
    /// None. Workers of a failed job that still run go on.
    None,
    /// Those that still run. The others stay for their logs.
    #[default]
    Running,
    /// All, with their logs.
    All,
}

/// When a job runs, for how long, and what is left of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunPolicy {
    /// Whether its workers are stopped.
    pub suspend: bool,
    /// Seconds that it may take.
    pub active_deadline_seconds: Option<u32>,
    /// Seconds after its end at which it is deleted.
    pub ttl_seconds_after_finished: Option<u32>,
    /// Which pods go at its end.
    pub clean_pods: CleanPodPolicy,
}
