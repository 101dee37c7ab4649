//! Copies of the whole state in memory, for ranks that are started anew in the pod that they were in.
//!
//! A snapshot is a checkpoint in a folder that lies in memory: written in the background, with checksums, read
//! as any other. The first rank of each worker keeps them, of which the newest is enough: all ranks have the same
//! state, so the run goes on from any of them, also when the worker of rank 0 was lost.

use std::cmp::Reverse;
use std::fs;
use std::time::{Duration, Instant};

use contract::env::RankEnv;
use contract::spec::TrainerSpec;

use super::{Session, StartOptions};
use crate::checkpoint::{self, CheckpointError, CheckpointStore, Found, RunState, Writer};
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
    /// How long the last step and the last evaluation took.
    step: Duration,
    evaluation: Duration,
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
            step: Duration::ZERO,
            evaluation: Duration::ZERO,
        }
    }

    /// The same state was just written elsewhere.
    pub(crate) fn not_now(&mut self) {
        self.taken = Instant::now();
    }

    /// A step took so long.
    pub(crate) fn stepped(&mut self, took: Duration) {
        self.step = took;
    }

    /// An evaluation took so long.
    pub(crate) fn evaluated(&mut self, took: Duration) {
        self.evaluation = took;
    }

    /// Whether one is to be taken after the step that is about to begin, because the occasion after that would be
    /// later than the interval: after one more step, and the evaluation before it where one comes first.
    fn is_due(&self, evaluates: bool) -> bool {
        let until = self.taken.elapsed() + 2 * self.step;
        let until = if evaluates {
            until + self.evaluation
        } else {
            until
        };
        self.writer.is_some() && until >= self.interval.max(self.cost * SHARE)
    }
}

/// How far a state is. A run that went back is behind its snapshots in steps, and ahead of them in how often it went
/// back.
type Progress = (u32, u64);

fn progress(state: &RunState) -> Progress {
    (state.recovery, state.step)
}

/// Who has the state to go on from.
pub(super) struct Source {
    /// The rank; 0 where there is no state.
    pub(super) rank: u32,
    /// On that rank, what it found.
    pub(super) found: Option<Found>,
}

/// Where this rank keeps snapshots, if it does: the first one of a worker, whose memory the others share.
pub(super) fn keep(
    options: &StartOptions,
    spec: &TrainerSpec,
    store: &CheckpointStore,
    place: &RankEnv,
    reporter: &mut Reporter,
) -> Option<CheckpointStore> {
    let folder = options.snapshots.as_deref();
    let folder = folder.filter(|_| place.local_rank == 0 && spec.training.snapshot_seconds > 0)?;
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
}

/// The state to go on from: the newest whole checkpoint, or the snapshot of any rank that is later.
pub(super) fn find(
    store: &CheckpointStore,
    snapshots: Option<&CheckpointStore>,
    ranks: &mut Ranks,
) -> Result<Source, Error> {
    let mut damaged = None;
    let own = ranks.is_first().then(|| match newest(store, snapshots) {
        Err(error @ CheckpointError::NoneWhole { .. }) => {
            damaged = Some(error);
            Ok(Found::default())
        }
        found => found,
    });
    let source = latest(own.transpose()?, snapshots, ranks)?;
    match damaged {
        Some(error) if source.rank == 0 => Err(error.into()),
        _ => Ok(source),
    }
}

/// Rank 0's state, unless the snapshot of another is later: that of the lowest rank where several are.
fn latest(
    own: Option<Found>,
    snapshots: Option<&CheckpointStore>,
    ranks: &mut Ranks,
) -> Result<Source, Error> {
    let of_first = own.as_ref().map(|found| found.newest.as_ref());
    let progress_here = match of_first {
        Some(newest) => newest.map(|loaded| progress(&loaded.state)),
        None => snapshots.and_then(|kept| Some(progress(&kept.newest_state()?))),
    };
    let text = serde_json::to_vec(&progress_here).expect("numbers become JSON");
    let all = ranks.gather(&text).map_err(lost)?;
    let all = all.iter().map(|text| {
        serde_json::from_slice::<Option<Progress>>(text).expect("all ranks run the same program")
    });
    let mut later: Vec<(Reverse<Option<Progress>>, u32)> = all.map(Reverse).zip(0..).collect();
    let least = later.first().and_then(|(first, _)| first.0);
    later.retain(|(progress, _)| progress.0 > least);
    later.sort_unstable();
    for (_, rank) in later {
        // Only its checksums tell whether it can be had.
        let read = snapshots.filter(|_| ranks.rank() == rank);
        let found = read.and_then(|kept| kept.newest_whole().ok());
        let found = found.filter(|found| {
            let newest = found.newest.as_ref();
            newest.is_some_and(|loaded| Some(progress(&loaded.state)) > least)
        });
        if ranks.value_of(rank, &found.is_some()).map_err(lost)? {
            return Ok(Source { rank, found });
        }
    }
    Ok(Source {
        rank: 0,
        found: own,
    })
}

fn lost(source: torch_bridge::Error) -> Error {
    Error::Ranks {
        when: "the search for the state to go on from",
        source,
    }
}

/// On rank 0: the later one of the newest whole checkpoint and its own newest whole snapshot.
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
    let newest = match durable.newest {
        Some(durable) if progress(&durable.state) >= progress(&kept.state) => durable,
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
    pub(super) fn good_state(&mut self) -> Result<Source, Error> {
        let own = self.ranks.is_first().then(|| self.store.newest_whole());
        let own = own.transpose()?;
        let known = own.as_ref().is_some_and(|found| found.newest.is_some());
        let known = known || self.beginning.is_some();
        if self.ranks.value_of_first(&known).map_err(lost)? {
            return Ok(Source {
                rank: 0,
                found: own,
            });
        }
        let snapshots = self.snapshots.as_ref().map(|kept| &kept.store);
        find(&self.store, snapshots, &mut self.ranks)
    }

    /// Whether rank 0 wants a snapshot. Not while something is written to the run's folder: who goes on from the
    /// snapshot takes it for written.
    pub(crate) fn wants_snapshot(&self) -> bool {
        let writes = self.writer.as_ref().is_some_and(Writer::is_busy);
        let left = self.images() - self.state.position;
        let is_last = left <= u64::from(self.spec().training.batch_size);
        let evaluates = is_last && self.plan.evaluates_after(self.state.epoch + 1);
        let snapshots = self.snapshots.as_ref();
        !writes && snapshots.is_some_and(|snapshots| snapshots.is_due(evaluates))
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

#[cfg(test)]
mod tests {
    use contract::attempt::Attempt;

    use super::*;

    #[test]
    fn a_snapshot_is_taken_before_the_next_occasion_would_be_too_late() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut kept = Snapshots::start(
            CheckpointStore::new(folder.path().to_owned(), Attempt::default()),
            1000,
        );
        let seconds = Duration::from_secs;
        let mut due = |step, evaluation, cost| {
            kept.stepped(seconds(step));
            kept.evaluated(seconds(evaluation));
            kept.cost = seconds(cost);
            [kept.is_due(false), kept.is_due(true)]
        };
        assert_eq!([false, false], due(1, 900, 1));
        assert_eq!([false, true], due(1, 998, 1));
        assert_eq!([true, true], due(500, 0, 1));
        assert_eq!(
            [false, false],
            due(500, 998, 60),
            "it would cost more than a fiftieth"
        );
    }
}
