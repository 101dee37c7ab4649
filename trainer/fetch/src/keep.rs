//! Keeps the folder of a run in an object store: what `yolo-fetch keep` does beside worker 0 for the pod's whole
//! life. At its start the folder is brought here as the store has it; then what changes is brought there.
//!
//! ```text
//!            pull                         push, each second                   finish
//!  store ───────────> run folder, ready ──────────────────> store ... agent ─────────> push, complete
//! ```
//!
//! Checkpoints go as soon as they are whole, the newest first, the manifest of each last, so that the store never shows
//! half of one; what the ranks removed goes from the store when it has another. Of a program of one's own nobody knows
//! which files make a checkpoint whole, so all of them come back. Only one start of a run may write: see [`claim`].

mod claim;
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
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{info, warn};

use crate::error::{FetchError, chain};
use crate::source::{Patience, Source};
use claim::{Claim, Holder};
pub use desk::Desk;
use pull::Pulled;
use push::Known;

/// Between two looks at the folder.
const LOOK: Duration = Duration::from_secs(1);
/// Between two pushes of what is no checkpoint: tables, pictures, events.
const REST: Duration = Duration::from_secs(30);
/// Between two tries when the store fails.
const RETRY: Duration = Duration::from_secs(3);
/// How long nothing may arrive before a run is not begun.
const BEGIN_LIMIT: Duration = Duration::from_mins(2);
/// How long a last push may take when the pod ends.
const LAST_PUSH: Duration = Duration::from_secs(20);
/// Between two signs of life, for the agent and for a start that would take the run over.
const BEAT: Duration = Duration::from_secs(5);
/// How long an earlier start may give no sign of life until it counts as gone.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an earlier start is waited for that does give some: its pod's grace and a little.
const HANDOVER: Duration = Duration::from_mins(1);
/// A client that waits longer would hold up a pod that is asked to end.
const PATIENCE: Patience = Patience {
    retry: Duration::from_secs(10),
    read: Duration::from_secs(30),
};

/// One run, its folder here and its place in the store.
pub struct Keeper<'a> {
    source: Source,
    claim: Claim,
    folder: PathBuf,
    /// The folder as seen from the place of all runs.
    run: String,
    desk: &'a Desk,
    /// Whether the run's checkpoints are the trainer's, which have manifests, and not those of a program of one's own.
    manifests: bool,
    pulled: Pulled,
    known: Known,
    pushed_all: Option<Instant>,
}

/// Keeps a job's run until `stop`, and then brings what is left to the store. What cannot be mended is told to the
/// agent, which ends the worker.
pub async fn keep(
    config: Result<JobConfig, FetchError>,
    output: &Path,
    desk: &Desk,
    stop: impl Future<Output = ()>,
) -> Result<(), FetchError> {
    let mut stop = std::pin::pin!(stop);
    let kept = match config.and_then(|config| Keeper::new(&config, output, desk)) {
        Ok(mut keeper) => {
            let claim = keeper.claim.clone();
            tokio::select! {
                kept = keeper.run() => kept,
                error = beat(&claim, desk) => Err(error),
                () = &mut stop => return keeper.end().await,
            }
        }
        Err(error) => Err(error),
    };
    let Err(error) = kept else { return Ok(()) };
    let failure = KeepFailure {
        reason: reason(&error),
        message: chain(&error),
    };
    warn!("{}", failure.message);
    if let Err(unsaid) = desk.fail(failure) {
        warn!("{}", chain(&unsaid));
    }
    stop.await;
    Err(error)
}

/// Gives signs of life, until the run is somebody else's.
async fn beat(claim: &Claim, desk: &Desk) -> FetchError {
    let mut beats = interval(BEAT);
    loop {
        beats.tick().await;
        if let Err(error) = desk.touch() {
            return error;
        }
        // A pull may take long, and is a sign of life as well.
        if !claim.is_taken() && !desk.kept().ready {
            continue;
        }
        // Of anything else the next push tells.
        if let Err(error @ FetchError::TakenOver { .. }) = claim.renew().await {
            return error;
        }
    }
}

impl<'a> Keeper<'a> {
    fn new(config: &JobConfig, output: &Path, desk: &'a Desk) -> Result<Self, FetchError> {
        let storage = config.spec.output.object_storage.as_ref();
        let storage = storage.ok_or(FetchError::NothingToKeep)?;
        let run = paths::run_folder(&config.job.name, &config.job.uid);
        let source = Source::of_run(storage, &run, PATIENCE)?;
        Ok(Self {
            claim: Claim::new(source.clone(), desk.owner().to_owned()),
            source,
            folder: output.join(&run),
            run,
            desk,
            manifests: config.command.is_empty(),
            pulled: Pulled::default(),
            known: Known::default(),
            pushed_all: None,
        })
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

    /// The pod ends. Without a word of the agent, this is the last chance to bring something to the store.
    async fn end(&mut self) -> Result<(), FetchError> {
        if !self.desk.kept().ready {
            return Ok(());
        }
        let pushed = timeout(LAST_PUSH, self.push(true)).await;
        let pushed = pushed.unwrap_or(Err(FetchError::Stopped));
        // Whoever comes next need not wait for us.
        if let Ok(released) = timeout(RETRY, self.claim.release()).await {
            released?;
        }
        pushed
    }

    /// Brings the run's folder here, and makes it ours in the store.
    async fn begin(&mut self) -> Result<(), FetchError> {
        let mut progress = (0, Instant::now());
        loop {
            let error = match self.take_over().await {
                Ok(()) => break,
                Err(error) => error,
            };
            if self.pulled.count() > progress.0 {
                progress = (self.pulled.count(), Instant::now());
            }
            let hopeless = reason(&error) != FailureReason::IoFailed
                || matches!(error, FetchError::TakenOver { .. });
            if hopeless || progress.1.elapsed() > BEGIN_LIMIT {
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
        // A container that is started anew in the same pod finds the folder as the ranks left it, and the run ours, or
        // somebody else's for good.
        if self.desk.kept().ready {
            self.claim.check().await?;
            let here = scan::scan(&self.folder)?;
            self.known = pull::list(&self.source, &here).await?;
            return Ok(());
        }
        self.wait_for_earlier().await?;
        // First of all, so that an earlier start writes nothing behind our back. Also shows that we may write there,
        // before hours of training.
        self.claim.take().await?;
        let (folder, pulled) = (&self.folder, &self.pulled);
        self.known = pull::pull(&self.source, folder, self.manifests, pulled).await?;
        self.claim.check().await
    }

    /// An earlier start of the run may still be bringing its last checkpoint to the store.
    async fn wait_for_earlier(&self) -> Result<(), FetchError> {
        let begun = Instant::now();
        let mut last = (self.claim.holder().await?, Instant::now());
        while let Holder::Other(owner) = &last.0 {
            if last.1.elapsed() >= SILENCE || begun.elapsed() >= HANDOVER {
                info!("{owner} has not let go of the run: taking it over");
                return Ok(());
            }
            self.desk.trouble(&format!(
                "waiting for an earlier start of the run ({owner})"
            ))?;
            sleep(LOOK).await;
            let holder = self.claim.holder().await?;
            if holder != last.0 {
                last = (holder, Instant::now());
            }
        }
        Ok(())
    }

    /// Brings what changed to the store; `all`: also what can wait.
    async fn push(&mut self, all: bool) -> Result<(), FetchError> {
        let rest = all || self.pushed_all.is_none_or(|at| at.elapsed() >= REST);
        let found = scan::scan(&self.folder)?;
        let plan = self.known.plan(&found, rest);
        if !plan.is_empty() {
            let before = self.known.newest_checkpoint(&self.run);
            let (claim, known) = (&self.claim, &mut self.known);
            let done = push::carry_out(&self.source, claim, &self.folder, plan, known).await;
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

    fn trouble(&self, error: &FetchError) -> Result<(), FetchError> {
        let text = chain(error);
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
