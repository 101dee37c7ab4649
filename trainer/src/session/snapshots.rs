//! Copies of the whole state in memory, for ranks that are started anew in the pod that they were in.
//!
//! A snapshot is a checkpoint in a folder that lies in memory: written in the background, with checksums, read
//! as any other. Only rank 0 keeps them, of which the newest is enough.

use std::fs;
use std::time::{Duration, Instant};

use contract::spec::TrainerSpec;

use super::{Session, StartOptions};
use crate::checkpoint::{self, CheckpointError, CheckpointStore, Found, Loaded, Writer};
use crate::console::chain;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::report::Reporter;

/// Taking snapshots may cost one part in so many of the time.
const SHARE: u32 = 50;

/// Where snapshots are, and when the next one is due.
pub(crate) struct Snapshots {
    store: CheckpointStore,
    /// `None` once they cannot be written.
    writer: Option<Writer>,
    interval: Duration,
    taken: Instant,
    /// How long the last one kept the training loop.
    cost: Duration,
}

impl Snapshots {
    /// Begins to take snapshots into the store, every so many seconds.
    pub(super) fn start(store: CheckpointStore, seconds: u32) -> Self {
        let for_writer = store.clone();
        Self {
            store,
            writer: Some(Writer::start(move |job| write(&for_writer, job))),
            interval: Duration::from_secs(seconds.into()),
            taken: Instant::now(),
            cost: Duration::ZERO,
        }
    }

    /// The same state was just written elsewhere.
    pub(crate) fn not_now(&mut self) {
        self.taken = Instant::now();
    }

    fn is_due(&self) -> bool {
        self.writer.is_some() && self.taken.elapsed() >= self.interval.max(self.cost * SHARE)
    }
}

/// On rank 0: the state to go on from, and where snapshots are kept, if they are.
pub(super) fn find(
    options: &StartOptions,
    spec: &TrainerSpec,
    store: &CheckpointStore,
    ranks: &Ranks,
    reporter: &mut Reporter,
) -> Result<(Option<Found>, Option<CheckpointStore>), CheckpointError> {
    if !ranks.is_first() {
        return Ok((None, None));
    }
    let folder = options.snapshots.as_deref();
    let folder = folder.filter(|_| spec.training.snapshot_seconds > 0);
    let kept = folder.and_then(|folder| {
        let kept = store.beside(folder.to_owned());
        let made = fs::create_dir_all(folder).map_err(|error| error.to_string());
        let ready = made.and_then(|()| kept.remove_unfinished().map_err(|error| chain(&error)));
        match ready {
            Ok(_) => Some(kept),
            Err(problem) => {
                let folder = folder.display();
                reporter.warn(&format!("no snapshots are kept in {folder}: {problem}"));
                None
            }
        }
    });
    let found = newest(store, kept.as_ref())?;
    Ok((Some(found), kept))
}

/// The state to go on from: the later one of the newest whole checkpoint and the newest whole snapshot.
fn newest(
    store: &CheckpointStore,
    snapshots: Option<&CheckpointStore>,
) -> Result<Found, CheckpointError> {
    let durable = store.newest_whole();
    // A damaged snapshot is as good as none.
    let kept = snapshots.and_then(|snapshots| snapshots.newest_whole().ok());
    let Some(kept) = kept.and_then(|found| found.newest) else {
        return durable;
    };
    let durable = match durable {
        Err(CheckpointError::NoneWhole { problems, .. }) => Found {
            newest: None,
            passed_over: problems,
        },
        other => other?,
    };
    // A run that went back is behind its snapshots in steps, and ahead of them in how often it went back.
    let order = |loaded: &Loaded| (loaded.state.recovery, loaded.state.step);
    let newest = match durable.newest {
        Some(durable) if order(&durable) >= order(&kept) => durable,
        _ => kept,
    };
    Ok(Found {
        newest: Some(newest),
        ..durable
    })
}

fn write(
    store: &CheckpointStore,
    job: &checkpoint::Job,
) -> Result<Option<checkpoint::Saved>, Error> {
    let written = job.write(store);
    if written.is_err() {
        // What is half written must not take the room of the next one.
        store.remove_unfinished()?;
    }
    let written = written?;
    store.keep_only(job.state.step)?;
    Ok(Some(written))
}

impl Session<'_> {
    /// What a run goes back to: the newest checkpoint; a snapshot only where there is nothing else, since when
    /// those are taken is a matter of time, and a run is to be the same each time.
    pub(super) fn good_state(&self) -> Result<Found, CheckpointError> {
        let found = self.store.newest_whole()?;
        if found.newest.is_some() || self.beginning.is_some() {
            return Ok(found);
        }
        newest(&self.store, self.snapshots.as_ref().map(|kept| &kept.store))
    }

    /// Whether rank 0 wants a snapshot.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.snapshots.as_ref().is_some_and(Snapshots::is_due)
    }

    /// Copies the state, where snapshots are kept. Trouble with them is no trouble of the run.
    pub(crate) fn take_snapshot(&mut self) -> Result<(), Error> {
        if self.snapshots.is_none() {
            return Ok(());
        }
        let start = Instant::now();
        let job = self.copy(true, Vec::new())?;
        let Some(snapshots) = &mut self.snapshots else {
            return Ok(());
        };
        let result = match &mut snapshots.writer {
            Some(writer) => writer.write(job),
            None => Ok(None),
        };
        snapshots.taken = Instant::now();
        snapshots.cost = start.elapsed();
        if let Err(error) = result {
            snapshots.writer = None;
            // What is left would only take memory, and grow old.
            let _ = snapshots.store.remove_all();
            self.reporter.warn(&format!(
                "no more snapshots are kept; restarts go on from checkpoints: {}",
                error.message()
            ));
        }
        Ok(())
    }
}
