//! The keeper beside this worker, which holds the run in an object store: nothing begins before the run's folder is
//! here, and nothing ends well before everything is there.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::exit::FailureReason;
use contract::keep::{FINISH_FILE, KEPT_FILE, KeepFailure, Kept};
use rustix::process::{Signal, getpid, kill_process};
use tokio::select;
use tokio::time::{Instant, interval, sleep_until};
use tracing::{error, info, warn};

use crate::outcome::Outcome;
use crate::shared::Shared;
use crate::signals::{Caught, Signals};

/// Between two looks at what the keeper says.
const LOOK: Duration = Duration::from_millis(200);
/// How long the results of a run may take to reach the store.
const LIMIT: Duration = Duration::from_mins(10);
/// The same after a failure: another pod goes on from what is there.
const LIMIT_FAILED: Duration = Duration::from_secs(30);
/// How long after a request to stop there is still time: the pod's grace, less what the last words take.
const GRACE: Duration = Duration::from_secs(35);
/// How long the keeper may give no sign of life while the run's folder is awaited.
const SILENCE: Duration = Duration::from_mins(2);

/// What the agent knows of the keeper.
#[derive(Clone, Debug)]
pub struct Keeper {
    desk: PathBuf,
}

impl Keeper {
    /// The keeper that speaks through this folder.
    pub fn new(desk: PathBuf) -> Self {
        Self { desk }
    }

    /// What it said last.
    fn kept(&self) -> Kept {
        let text = fs::read_to_string(self.desk.join(KEPT_FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Passes on what it says, for good. When it has given up, ranks that run write for nothing: the worker stops.
    pub async fn watch(self, shared: Arc<Shared>) {
        let mut look = interval(LOOK);
        let mut failed = false;
        loop {
            look.tick().await;
            let kept = self.kept();
            if let Some(failure) = kept.failure.as_ref().filter(|_| kept.ready && !failed) {
                error!("{}", failure.message);
                failed = true;
                if !self.desk.join(FINISH_FILE).exists() {
                    // As if the kubelet had asked.
                    let _ = kill_process(getpid(), Signal::TERM);
                }
            }
            shared.board().kept(kept);
        }
    }

    /// How long the keeper has given no sign of life.
    fn silence(&self, since: Instant) -> Duration {
        let written = fs::metadata(self.desk.join(KEPT_FILE)).and_then(|meta| meta.modified());
        let age = written.ok().and_then(|at| at.elapsed().ok());
        age.unwrap_or(since.elapsed()).min(since.elapsed())
    }

    /// Waits until the run's folder is here. Why ranks cannot be started, otherwise.
    pub async fn ready(&self, signals: &mut Signals) -> Result<(), KeepFailure> {
        let mut look = interval(LOOK);
        let begun = Instant::now();
        info!("waiting for the run's folder");
        loop {
            let kept = self.kept();
            if let Some(failure) = kept.failure {
                return Err(failure);
            }
            if self.silence(begun) > SILENCE {
                return Err(KeepFailure {
                    reason: FailureReason::PreflightFailed,
                    message: "the container keeper, which brings the run's folder, gives no sign of life: look at its log and at its state".to_owned(),
                });
            }
            if kept.ready {
                return Ok(());
            }
            select! {
                _ = look.tick() => {}
                caught = signals.next() => if caught == Caught::Stop {
                    return Err(KeepFailure {
                        reason: FailureReason::Stopped,
                        message: "asked to stop before the run's folder was here".to_owned(),
                    });
                },
            }
        }
    }

    /// Has everything brought to the store, and makes the outcome what it then is. `asked` is when the worker was asked
    /// to end, if it was.
    pub async fn settle(
        &self,
        outcome: &mut Outcome,
        asked: Option<Instant>,
        signals: &mut Signals,
    ) {
        let limit = if outcome.exit_code == 0 {
            LIMIT
        } else {
            LIMIT_FAILED
        };
        let limit = Instant::now() + limit;
        let until = asked.map_or(limit, |asked| limit.min(asked + GRACE));
        let problem = self.finish(until, signals).await.err();
        let kept = self.kept();
        if let Some(report) = &mut outcome.result.report {
            report.checkpoint = kept.checkpoint;
        }
        let Some(problem) = problem else { return };
        warn!("{problem}");
        let stopped = outcome.result.reason == Some(FailureReason::Stopped);
        if outcome.exit_code == 0 || (stopped && kept.failure.is_some()) {
            outcome.exit_code = FailureReason::IoFailed.exit_code();
            outcome.result.reason = Some(FailureReason::IoFailed);
            outcome.result.message = problem;
        }
    }

    async fn finish(&self, mut until: Instant, signals: &mut Signals) -> Result<(), String> {
        let path = self.desk.join(FINISH_FILE);
        fs::write(&path, "")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        info!("waiting until everything is in the store");
        let mut look = interval(LOOK);
        loop {
            let kept = self.kept();
            if kept.complete {
                return Ok(());
            }
            if let Some(failure) = kept.failure {
                return Err(failure.message);
            }
            select! {
                _ = look.tick() => {}
                caught = signals.next() => if caught == Caught::Stop {
                    until = until.min(Instant::now() + GRACE);
                },
                () = sleep_until(until) => {
                    let problem = kept.problem.unwrap_or_else(|| "it takes too long".to_owned());
                    return Err(format!("the results are not whole in the object store: {problem}"));
                }
            }
        }
    }
}
