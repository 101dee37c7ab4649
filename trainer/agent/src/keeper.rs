//! The keeper beside this worker, which holds the run in an object store: nothing begins before the run's folder is
//! here, and nothing ends well before everything is there.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::exit::FailureReason;
use contract::keep::{FINISH_FILE, KEPT_FILE, KeepFailure, Kept};
use tokio::select;
use tokio::time::{Instant, interval, sleep_until};
use tracing::{info, warn};

use crate::outcome::Outcome;
use crate::shared::Shared;
use crate::signals::{Caught, Signals};

/// Between two looks at what the keeper says.
const LOOK: Duration = Duration::from_millis(200);
/// How long the results of a run may take to reach the store.
const LIMIT: Duration = Duration::from_mins(10);
/// The same after a failure: another pod goes on from what is there.
const LIMIT_FAILED: Duration = Duration::from_secs(30);
/// The same when the pod is to go: the rest of its grace.
const LIMIT_STOPPED: Duration = Duration::from_secs(12);

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

    /// Passes on what it says, for good.
    pub async fn watch(self, shared: Arc<Shared>) {
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            shared.board().kept(self.kept());
        }
    }

    /// Waits until the run's folder is here. Why ranks cannot be started, otherwise.
    pub async fn ready(&self, signals: &mut Signals) -> Result<(), KeepFailure> {
        let mut look = interval(LOOK);
        info!("waiting for the run's folder");
        loop {
            let kept = self.kept();
            if let Some(failure) = kept.failure {
                return Err(failure);
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

    /// Has everything brought to the store, and makes the outcome what it then is.
    pub async fn settle(&self, outcome: &mut Outcome, signals: &mut Signals) {
        let limit = match outcome.result.reason {
            None => LIMIT,
            Some(FailureReason::Stopped) => LIMIT_STOPPED,
            Some(_) => LIMIT_FAILED,
        };
        let problem = self.finish(limit, signals).await.err();
        if let Some(report) = &mut outcome.result.report {
            report.checkpoint = self.kept().checkpoint;
        }
        let Some(problem) = problem else { return };
        warn!("{problem}");
        if outcome.exit_code == 0 {
            outcome.exit_code = FailureReason::IoFailed.exit_code();
            outcome.result.reason = Some(FailureReason::IoFailed);
            outcome.result.message = problem;
        }
    }

    async fn finish(&self, limit: Duration, signals: &mut Signals) -> Result<(), String> {
        let path = self.desk.join(FINISH_FILE);
        fs::write(&path, "")
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        info!("waiting until everything is in the store");
        let mut until = Instant::now() + limit;
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
                    until = until.min(Instant::now() + LIMIT_STOPPED);
                },
                () = sleep_until(until) => {
                    let problem = self.kept().problem.unwrap_or_else(|| "it takes too long".to_owned());
                    return Err(format!("the results are not whole in the object store: {problem}"));
                }
            }
        }
    }
}
