//! How far a run is. Sent by ranks, served by the agent, copied into the job's status.

use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::exit::FailureReason;

/// The version of the `/progress` document this code writes.
pub const PROGRESS_VERSION: u32 = 1;

/// What a process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Phase {
    /// Reading its configuration and the data set.
    #[default]
    Starting,
    /// Looking for the other ranks.
    Rendezvous,
    /// Computing training steps.
    Training,
    /// Computing validation metrics.
    Evaluating,
    /// Writing a checkpoint.
    Checkpointing,
    /// Done.
    Finished,
}

/// How far the run is, in numbers. All counts include what was done before a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The present epoch, 1-based; 0 before the first.
    pub epoch: u32,
    /// Epochs of the whole run.
    pub epochs: u32,
    /// Training steps done (batches, not optimiser steps).
    pub step: u64,
    /// Training steps of the whole run.
    pub steps: u64,
    /// Part of the run that is done, 0 to 100.
    pub percent: f64,
    /// Estimated seconds until the end, evaluation included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// Training images a second over all ranks, recently.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
    /// Seconds spent training and evaluating since the first step, restarts included, without the time
    /// in which no worker ran.
    pub training_seconds: f64,
    /// When the first training step of the run was completed (RFC 3339, UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step_time: Option<String>,
}

/// Losses as YOLOv5 reports them: means over images, weighted by their gains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Losses {
    /// Box part (1 - CIoU).
    #[serde(rename = "box")]
    pub box_loss: f64,
    /// Objectness part.
    pub obj: f64,
    /// Class part.
    pub cls: f64,
    /// Sum of the three.
    pub total: f64,
}

/// Results of one epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct EpochMetrics {
    /// The epoch, 1-based.
    pub epoch: u32,
    /// Mean training losses of the epoch, so far or whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_loss: Option<Losses>,
    /// Validation losses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<Losses>,
    /// Precision at the confidence of the best F1, mean over classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    /// Recall at that confidence, mean over classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// The mean average precision at IoU `0.50`.
    #[serde(rename = "mAP50", default, skip_serializing_if = "Option::is_none")]
    pub map50: Option<f64>,
    /// The mean average precision over IoU `0.50` to `0.95`.
    #[serde(rename = "mAP50_95", default, skip_serializing_if = "Option::is_none")]
    pub map50_95: Option<f64>,
}

/// A checkpoint on the output volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRef {
    /// Training step at which it was taken.
    pub step: u64,
    /// Its folder, relative to the output volume (or its `subPath`).
    pub path: String,
}

/// What a rank knows of the run. Only rank 0 fills the model-level parts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// What the rank is doing.
    pub phase: Phase,
    /// How far it is.
    pub progress: Progress,
    /// Losses and metrics of the latest epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<EpochMetrics>,
    /// Those of the best epoch (by `training.fitness`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<EpochMetrics>,
    /// The latest whole checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// The weights of the best epoch so far, relative to the output volume (or its `subPath`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_weights: Option<String>,
    /// Images that could not be decoded and were skipped.
    #[serde(default)]
    pub skipped_images: u64,
    /// What a user should know although the run goes on: a skipped file and its reason, and the like.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Bytes a second that a small all-reduce over all ranks moved before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_reduce_bytes_per_second: Option<f64>,
}

/// The `/progress` document of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentProgress {
    /// Version of this document.
    pub version: u32,
    /// The attempt the agent's ranks belong to.
    pub attempt: Attempt,
    /// Index of the worker.
    pub node_rank: u32,
    /// The report of the worker's first rank; on worker 0 that is rank 0 of the job.
    pub report: RunReport,
    /// Every rank of this worker.
    pub ranks: Vec<RankProgress>,
    /// What made the agents start the present attempt in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_after: Option<RankFailure>,
    /// Whether ranks were started in this attempt.
    #[serde(default)]
    pub started: bool,
    /// The worker that the others wait for, step after step. Only worker 0 knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub straggler: Option<Straggler>,
    /// What a user should know of the workers, though they run: clocks that differ, for example. Only worker 0
    /// knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Workers that are gone and whose successors the others wait for. Worker 0 knows, and of its own loss the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostWorker>,
    /// Workers that have not joined the others although they had time to. Only worker 0 knows, before all ran together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<u32>,
    /// What this worker waits for before it starts ranks, once that takes long: a volume that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_check: Option<String>,
}

/// A worker that is gone, as far as the others can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostWorker {
    /// Index of the worker.
    pub worker: u32,
    /// Which pod of it: [`crate::env::POD_NUMBER`].
    pub number: u32,
    /// How that was noticed, in a sentence.
    pub message: String,
}

/// A worker that the others wait for, step after step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Straggler {
    /// Index of the worker.
    pub worker: u32,
    /// Its slowest rank.
    pub rank: u32,
    /// Duration of a step in seconds, recently.
    pub step_seconds: f64,
    /// Seconds of each step that the others wait for it: the median over them.
    pub waited_seconds: f64,
}

/// Why a rank did not succeed, as the agents of a job tell it to each other and to the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankFailure {
    /// Index of the worker.
    pub worker: u32,
    /// The global rank; none when the whole worker was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Why, in a word.
    pub reason: FailureReason,
    /// The exit code that the worker takes over from it.
    pub exit_code: u8,
    /// Why, in a sentence.
    pub message: String,
}

impl RankFailure {
    /// The failure in a sentence that says where it happened.
    pub fn sentence(&self) -> String {
        failure_sentence(self.worker, self.rank, &self.message)
    }
}

/// A failure in a sentence that says where it happened.
pub fn failure_sentence(worker: u32, rank: Option<u32>, message: &str) -> String {
    let rank = rank
        .map(|rank| format!(" (rank {rank})"))
        .unwrap_or_default();
    format!("worker {worker}{rank}: {message}")
}

/// One rank as its agent sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankProgress {
    /// Global rank.
    pub rank: u32,
    /// What it says it is doing.
    pub phase: Phase,
    /// The last step it reported.
    pub step: u64,
    /// Seconds since it last said anything.
    pub silent_seconds: f64,
}
