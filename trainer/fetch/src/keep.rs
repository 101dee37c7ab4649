//! Keeps the folder of a run in an object store: what `yolo-fetch keep` does beside worker 0 for the pod's whole
//! life. At its start the folder is brought here as the store has it; then what changes is brought there.
//!
//! ```text
//!            pull                         push, each second                   finish
//!  store ───────────> run folder, ready ──────────────────> store ... agent ─────────> push, complete
//! ```
//!
//! Checkpoints go as soon as they are whole, their manifest last, so that the store never shows half of one. Only one
//! start of a run may write: the latest.

mod desk;
mod pull;
mod push;
mod scan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::config::JobConfig;
use contract::exit::FailureReason;
use contract::keep::KeepFailure;
use contract::paths;
use object_store::ObjectStoreExt as _;
use object_store::path::Path as Location;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::error::FetchError;
use crate::source::{Patience, Source};
pub use desk::Desk;
use push::Known;

/// Between two looks at the folder.
const LOOK: Duration = Duration::from_secs(1);
/// Between two pushes of what is no checkpoint: tables, pictures, events.
const REST: Duration = Duration::from_secs(30);
/// Between two tries when the store fails.
const RETRY: Duration = Duration::from_secs(3);
/// How long the store may fail before a run is not begun.
const BEGIN_LIMIT: Duration = Duration::from_mins(2);
/// How long a last push may take when the pod ends.
const LAST_PUSH: Duration = Duration::from_secs(20);
/// The object that says which start of a run may write.
const OWNER: &str = ".owner";
/// A client that waits longer would hold up a pod that is asked to end.
const PATIENCE: Patience = Patience {
    retry: Duration::from_secs(10),
    read: Duration::from_secs(30),
};

/// One run, its folder here and its place in the store.
pub struct Keeper {
    source: Source,
    folder: PathBuf,
    /// The folder as seen from the place of all runs.
    run: String,
    /// Tells this start from others.
    owner: String,
    desk: Desk,
    known: Known,
    pushed_all: Option<Instant>,
}

impl Keeper {
    /// The keeper of a job's run; `owner` differs between any two starts.
    pub fn new(
        config: &JobConfig,
        output: &Path,
        desk: Desk,
        owner: String,
    ) -> Result<Self, FetchError> {
        let storage = config.spec.output.object_storage.as_ref();
        let storage = storage.ok_or(FetchError::NothingToKeep)?;
        let run = paths::run_folder(&config.job.name, &config.job.uid);
        Ok(Self {
            source: Source::of_run(storage, &run, PATIENCE)?,
            folder: output.join(&run),
            run,
            owner,
            desk,
            known: Known::default(),
            pushed_all: None,
        })
    }

    /// Keeps the run until `stop`, and then brings what is left to the store.
    pub async fn keep(mut self, stop: impl Future<Output = ()>) -> Result<(), FetchError> {
        let mut stop = std::pin::pin!(stop);
        let kept = tokio::select! {
            kept = self.run() => kept,
            () = &mut stop => Ok(()),
        };
        match kept {
            Ok(()) if self.desk.kept().ready => {
                // What the agent asked for is there already; without its word, this is the last chance.
                match timeout(LAST_PUSH, self.push(true)).await {
                    Ok(pushed) => pushed,
                    Err(_) => Err(FetchError::Stopped),
                }
            }
            Ok(()) => Ok(()),
            Err(error) => {
                let failure = KeepFailure {
                    reason: reason(&error),
                    message: crate::error::chain(&error),
                };
                warn!("{}", failure.message);
                self.desk.fail(failure)?;
                // The agent ends the worker, and with it this container.
                stop.await;
                Err(error)
            }
        }
    }

    async fn run(&mut self) -> Result<(), FetchError> {
        self.begin().await?;
        loop {
            let finish = self.desk.is_finish_asked();
            match self.push(finish).await {
                Ok(()) => {
                    self.desk.solved()?;
                    if finish && !self.desk.kept().complete {
                        info!("everything is in {}", self.source.url);
                        self.desk.complete()?;
                    }
                    sleep(LOOK).await;
                }
                Err(error @ FetchError::TakenOver { .. }) => return Err(error),
                // Credentials may be renewed, servers come back, and the run need not wait for that.
                Err(error) => {
                    self.trouble(&error)?;
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Brings the run's folder here, and makes it ours in the store.
    async fn begin(&mut self) -> Result<(), FetchError> {
        let begun = Instant::now();
        loop {
            let error = match self.take_over().await {
                Ok(()) => break,
                Err(error) => error,
            };
            let hopeless = reason(&error) != FailureReason::IoFailed;
            if hopeless || begun.elapsed() > BEGIN_LIMIT {
                return Err(error);
            }
            self.trouble(&error)?;
            sleep(RETRY).await;
        }
        info!("the run is kept in {}", self.source.url);
        let newest = self.known.newest_checkpoint(&self.run);
        self.desk.ready(newest)
    }

    async fn take_over(&mut self) -> Result<(), FetchError> {
        // A container that is started anew in the same pod finds the folder as the ranks left it.
        if self.desk.kept().ready {
            self.known = pull::list(&self.source).await?;
        } else {
            self.known = pull::pull(&self.source, &self.folder).await?;
        }
        // Also shows that we may write there, before hours of training.
        let location = self.owner_location();
        let put = self.source.store.put(&location, self.owner.clone().into());
        put.await
            .map_err(|error| self.source.explain(&error, &self.url_of(OWNER)))?;
        Ok(())
    }

    /// Brings what changed to the store; `all`: also what can wait.
    async fn push(&mut self, all: bool) -> Result<(), FetchError> {
        let rest = all || self.pushed_all.is_none_or(|at| at.elapsed() >= REST);
        let found = scan::scan(&self.folder)?;
        let plan = self.known.plan(&found, rest);
        if !plan.is_empty() {
            self.check_owner().await?;
            let before = self.known.newest_checkpoint(&self.run);
            let done = push::carry_out(&self.source, &self.folder, plan, &mut self.known).await;
            let newest = self.known.newest_checkpoint(&self.run);
            if newest != before
                && let Some(newest) = newest
            {
                info!("the checkpoint of step {} is in the store", newest.step);
                self.desk.checkpoint(newest)?;
            }
            done?;
        }
        if rest {
            self.pushed_all = Some(Instant::now());
        }
        Ok(())
    }

    /// That no later start of the run has begun to write.
    async fn check_owner(&self) -> Result<(), FetchError> {
        let url = self.url_of(OWNER);
        let failed = |error: object_store::Error| self.source.explain(&error, &url);
        let found = self.source.store.get(&self.owner_location()).await;
        let found = found.map_err(failed)?.bytes().await.map_err(failed)?;
        if found.as_ref() == self.owner.as_bytes() {
            return Ok(());
        }
        Err(FetchError::TakenOver {
            url: self.source.url.clone(),
            owner: String::from_utf8_lossy(&found).into_owned(),
        })
    }

    fn owner_location(&self) -> Location {
        self.source.path.clone().join(OWNER)
    }

    fn url_of(&self, name: &str) -> String {
        format!("{}/{name}", self.source.url)
    }

    fn trouble(&self, error: &FetchError) -> Result<(), FetchError> {
        let text = crate::error::chain(error);
        if self.desk.trouble(&text)? {
            warn!("{text}; trying again");
        }
        Ok(())
    }
}

/// The reason of an error of the output's store: those of data sets mean something else there.
fn reason(error: &FetchError) -> FailureReason {
    match error.reason() {
        FailureReason::InvalidDataset => FailureReason::OutputUnwritable,
        FailureReason::FetchFailed => FailureReason::IoFailed,
        other => other,
    }
}
