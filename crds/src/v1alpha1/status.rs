use std::collections::BTreeMap;

use contract::attempt::Attempt;
use contract::progress::{CheckpointRef, EpochMetrics, Progress, Straggler};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most warnings that a status holds; later ones are only in the logs.
pub const MAX_WARNINGS: usize = 20;

/// The most failures that a status holds.
pub const MAX_FAILURES: usize = 10;

/// How the job stands. Written by the operator; machines read `conditions`, people `state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct YoloTrainingJobStatus {
    /// The generation of the job that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the job is doing, in a word; derived from the conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Accepted, Admitted, Scheduled, `WorkersReady`, `PreflightPassed`, Running, Restarting, Suspended, Complete and Failed, each with reason and message.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["type"],
    ))]
    pub conditions: Vec<Condition>,
    /// What the job waits for, in words; absent when it waits for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<String>,
    /// What the job's queue gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<AdmissionStatus>,
    /// The present attempt: how often all pods were replaced, and how often processes were restarted since,
    /// inside them or beside a pod that was replaced alone. It never goes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// How often the ranks were started anew after a failure, in the same pods or in new ones; that a job was
    /// suspended does not count.
    pub restarts: u32,
    /// Those that count towards `failurePolicy.maxRestarts`.
    pub counted_restarts: u32,
    /// The latest restart that replaced workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<Restart>,
    /// The last failures, the latest at the end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = MAX_FAILURES))]
    pub failures: Vec<FailureRecord>,
    /// Workers whose container runs or has succeeded.
    pub ready_workers: u32,
    /// Workers that the job wants.
    pub total_workers: u32,
    /// How the data set is fetched, where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FetchStatus>,
    /// Every worker with its present pod.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    // Written as a whole: a key for each worker makes the API server keep, and send to every watch, an owner of
    // each field of each worker.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub workers: Vec<WorkerStatus>,
    /// How far the run is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Losses and metrics of the latest epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<EpochMetrics>,
    /// Losses and metrics of the best epoch, by `training.fitness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<EpochMetrics>,
    /// The latest whole checkpoint, from which a restart continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// The weights of the best epoch, relative to the output volume (or its `subPath`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_weights: Option<String>,
    /// Images that could not be decoded and were skipped.
    pub skipped_images: u64,
    /// What a user should know although the run goes on, for example which file was skipped and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "maxItems" = MAX_WARNINGS))]
    pub warnings: Vec<String>,
    /// The worker that the others wait for, step after step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub straggler: Option<Straggler>,
    /// When this status was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<MicroTime>,
    /// When the operator took up the job, or took it up again after it was suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job completed or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The values above as `kubectl get` shows them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display: Option<Display>,
}

/// What a queue of Kueue gave a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionStatus {
    /// The `LocalQueue`.
    pub queue: String,
    /// The `ClusterQueue` whose quota the workers use.
    pub cluster_queue: String,
    /// The `ResourceFlavor` of each resource: the kind of nodes that the workers run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub flavors: BTreeMap<String, String>,
    /// For how many workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<u32>,
}

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailureRecord {
    /// When it was seen.
    pub time: Time,
    /// The attempt that it ended.
    pub attempt: Attempt,
    /// Index of the worker.
    pub worker: u32,
    /// The node that its pod ran on, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The global rank that failed first, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Why, in a word; `docs/jobs.md` explains them.
    pub reason: String,
    /// The exit code of the rank or of the worker's container, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, in a sentence, with the last lines of its log where that says more.
    pub message: String,
}

/// How the fetch of a data set stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchStatus {
    /// Name of the latest pod that fetches.
    pub pod: String,
    /// What it does.
    pub state: WorkerState,
    /// Pods that failed.
    #[serde(default)]
    pub failures: u32,
    /// Those that count towards `failurePolicy.maxRestarts`.
    #[serde(default)]
    pub counted_failures: u32,
    /// The latest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FetchFailure>,
}

/// Why a pod that fetches the data set failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FetchFailure {
    /// When it was seen.
    pub time: Time,
    /// Name of the pod.
    pub pod: String,
    /// Why, in a word; `docs/jobs.md` explains them.
    pub reason: String,
    /// The exit code of its container, where it has ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, in a sentence.
    pub message: String,
}

/// A restart in which workers were replaced after a failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// When it was decided.
    pub time: Time,
    /// Step of the latest checkpoint then.
    pub step: u64,
    /// The furthest training step that the run was seen at until then.
    #[serde(default)]
    pub reached: u64,
    /// How many restarts before it brought the run no further.
    pub fruitless: u32,
    /// Nodes that the new workers keep off, since others lost touch with a worker there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// Until when they do: Kubernetes knows by then whether they are away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub avoid_until: Option<Time>,
}

/// What a job is doing, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// Waits in its queue.
    Queued,
    /// Not all workers run yet; the condition `WorkersReady` says what is waited for.
    Pending,
    /// All workers run; no training step was done in this attempt yet.
    Starting,
    /// Training.
    Running,
    /// A worker failed, and it or all of them are being replaced.
    Restarting,
    /// The workers are stopped because `spec.suspend` is true.
    Suspended,
    /// Trained to the end.
    Complete,
    /// Ended without success; the condition Failed says why.
    Failed,
}

impl State {
    /// All states, for metrics.
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Pending,
        Self::Starting,
        Self::Running,
        Self::Restarting,
        Self::Suspended,
        Self::Complete,
        Self::Failed,
    ];

    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "Queued",
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Restarting => "Restarting",
            Self::Suspended => "Suspended",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// One worker with its present pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// Index of the worker, from 0.
    pub index: u32,
    /// Name of its present pod.
    pub pod: String,
    /// The node that pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What the worker is doing.
    pub state: WorkerState,
    /// Why it does not run or why it failed, in a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the container `worker`, when it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum WorkerState {
    /// Its container does not run yet.
    #[default]
    Pending,
    /// Its container runs.
    Running,
    /// Its container ended with success.
    Succeeded,
    /// Its container ended without success, or its pod was lost.
    Failed,
    /// It was stopped because the job ended.
    Stopped,
    /// Its pod is given up, and the next one is not there yet.
    Replaced,
}

/// Values of the status as `kubectl get` shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Display {
    /// Workers that run or have succeeded, of those wanted: `2/2`.
    pub workers: String,
    /// The present epoch, of all: `3/30`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Training loss of the present epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<String>,
    /// mAP50-95 of the latest evaluation.
    #[serde(rename = "mAP50_95", skip_serializing_if = "Option::is_none")]
    pub map50_95: Option<String>,
    /// Part of the run that is done: `43%`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Estimated time until the end: `12m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<String>,
}
