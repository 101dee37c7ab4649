//! What the agents of a group say to each other: lines of JSON, over TCP between pods.
//!
//! Both ends come from one image, which is frozen with the job, so there is one version of this.

use contract::attempt::Attempt;
use contract::progress::RankFailure;
use serde::{Deserialize, Serialize};

/// The first line of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The secret of the job's agents.
    pub token: String,
    /// Index of the worker.
    pub worker: u32,
    /// The incarnation its pod was made for.
    pub incarnation: u32,
    /// Which pod of the worker it is: one with a higher number has taken the place of the others.
    pub number: u32,
    /// How many restarts in place were left when its pod was made.
    pub restarts_left: u32,
    /// Which pod of worker 0 it listened to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listened_to: Option<u32>,
    /// The node it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// How a worker stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The attempt that its ranks are in, or were in last.
    pub attempt: Attempt,
    /// What its ranks do.
    pub phase: Phase,
    /// The failure that explains the others of this worker in this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RankFailure>,
    /// Whether a rank has done a training step in this attempt.
    pub trained: bool,
    /// The attempt that its ranks ran in last, if they ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_in: Option<Attempt>,
    /// Whether its pod can have no further attempt: it was asked to end, or a process is left that nothing ends.
    pub leaving: bool,
    /// Whether it is leaving because it was asked to end.
    #[serde(default)]
    pub asked: bool,
    /// How fast its ranks go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// Its clock, in milliseconds since 1970.
    #[serde(default)]
    pub clock_ms: i64,
}

/// How fast the ranks of a worker go: that of the one that waits least for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// The global rank.
    pub rank: u32,
    /// Steps that it told of.
    pub steps: u64,
    /// Microseconds of a step, recently.
    pub step_us: u64,
    /// Of these, what it waited for the others.
    pub waited_us: u64,
}

/// What the ranks of a worker do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// None was started yet.
    #[default]
    Waiting,
    /// At least one runs.
    Running,
    /// All have ended.
    Ended,
}

/// A line of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    /// Which pod of worker 0 gives it: one with a higher number has taken the place of the others.
    pub number: u32,
    /// What to do.
    pub order: Order,
}

/// What all workers are to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The attempt it is about.
    pub attempt: Attempt,
    /// What to do.
    pub kind: OrderKind,
    /// The failure behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<RankFailure>,
}

/// See [`Order`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderKind {
    /// Have no rank of this attempt or an earlier one run, and wait.
    Stop,
    /// Have the ranks of this attempt run.
    Run,
    /// The last order: have no rank run, and end.
    Finish,
}
