//! What the operator, the agent and the trainer say to each other.
//!
//! This crate is the only thing that the Kubernetes side and the GPU side both know. It holds data
//! and pure functions: no client, no clock, no tensor, no I/O.
//!
//! ```text
//!  user ── YoloTrainingJob ──> operator ── JobConfig (ConfigMap), env ──> agent ── env ──> ranks
//!  user <── status ─────────── operator <── /progress, WorkerResult ──── agent <── RankMessage ──
//! ```
//!
//! - [`spec`]: what a user writes, the same types in the resource and in the trainer's config.
//! - [`config`]: the frozen configuration of one job, as mounted into every worker.
//! - [`attempt`]: which try of a job something belongs to.
//! - [`env`]: the rendezvous environment.
//! - [`protocol`]: the lines that a rank and its agent exchange over a Unix socket.
//! - [`progress`] and [`result`]: what an agent tells the operator, during the run and at its end.
//! - [`keep`]: what an agent and the keeper of a run in an object store tell each other.
//! - [`exit`]: exit codes and what each means for a restart; [`failure_policy`]: what the user makes of them.
//! - [`metric_names`]: every Prometheus series of the project.

pub mod attempt;
pub mod config;
pub mod env;
pub mod exit;
pub mod failure_policy;
pub mod keep;
pub mod metric_names;
pub mod paths;
pub mod progress;
pub mod protocol;
pub mod result;
pub mod spec;
