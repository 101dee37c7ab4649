//! What the agents of each job last said, and whether anybody has to hear of it now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::progress::{AgentProgress, Phase};
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::context::GuardedJob;
use crate::training_job::state::is_training;

/// What the agents last said, by the job's uid.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    jobs: Mutex<HashMap<String, Said>>,
    starting: AtomicUsize,
}

/// What one job's agents said.
#[derive(Debug)]
struct Said {
    job: ObjectRef<GuardedJob>,
    progress: AgentProgress,
    /// When it was last worth a reconcile.
    told: Instant,
    /// Whether numbers have changed since.
    untold: bool,
}

impl ProgressBoard {
    /// What a job's agents last said.
    pub fn get(&self, uid: &str) -> Option<AgentProgress> {
        self.lock().get(uid).map(|said| said.progress.clone())
    }

    /// Of how many jobs some workers are still to run.
    pub fn starting(&self) -> usize {
        self.starting.load(Ordering::Relaxed)
    }

    /// Notes of how many jobs some workers are still to run.
    pub fn set_starting(&self, jobs: usize) {
        self.starting.store(jobs, Ordering::Relaxed);
    }

    /// Notes what a job's agents say now; whether it deserves a reconcile at once. Numbers of a run in progress wait
    /// for their turn.
    pub fn put(
        &self,
        uid: &str,
        job: &ObjectRef<GuardedJob>,
        progress: AgentProgress,
        now: Instant,
    ) -> bool {
        let mut jobs = self.lock();
        let Some(said) = jobs.get_mut(uid) else {
            let said = Said {
                job: job.clone(),
                progress,
                told: now,
                untold: false,
            };
            jobs.insert(uid.to_owned(), said);
            return true;
        };
        let word = !same_words(&said.progress, &progress);
        said.untold |= said.progress != progress;
        said.progress = progress;
        if word {
            said.told = now;
            said.untold = false;
        }
        word
    }

    /// The job whose numbers have waited longest, if for `pause` at least: no status would be written sooner, and
    /// nothing else follows from them.
    pub fn next(&self, pause: Duration, now: Instant) -> Option<ObjectRef<GuardedJob>> {
        let mut jobs = self.lock();
        let due = |said: &&mut Said| said.untold && now.duration_since(said.told) >= pause;
        let first = jobs.values_mut().filter(due).min_by_key(|said| said.told)?;
        first.told = now;
        first.untold = false;
        Some(first.job.clone())
    }

    /// Forgets all jobs but those of these uids.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Said>> {
        // A panic elsewhere cannot leave a map of plain values half-changed.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two answers of a job's agents differ at most in the numbers of a run in progress.
fn same_words(one: &AgentProgress, other: &AgentProgress) -> bool {
    fn words(said: &AgentProgress) -> impl PartialEq {
        // Without `..`, so that a new field is thought about here.
        let AgentProgress {
            version,
            attempt,
            node_rank,
            report,
            ranks: _,
            restarted_after,
            started,
            straggler,
            warnings,
            lost,
        } = said;
        let straggler = straggler.as_ref().map(|found| (found.worker, found.rank));
        // A run goes to and fro between training, evaluating and writing.
        let under_way = is_training(report);
        let stage = (!under_way || report.phase == Phase::Finished).then_some(report.phase);
        let began = report.progress.first_step_time.is_some();
        let preflight = report.all_reduce_bytes_per_second.is_some();
        let run = (stage, began, preflight, &report.warnings);
        (
            (version, attempt, node_rank, started),
            (restarted_after, straggler, warnings, lost),
            run,
        )
    }
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use contract::attempt::Attempt;
    use contract::progress::RunReport;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn job(name: &str) -> ObjectRef<GuardedJob> {
        ObjectRef::new(name).within("ns")
    }

    fn training(step: u64) -> AgentProgress {
        let mut report = RunReport {
            phase: Phase::Training,
            ..RunReport::default()
        };
        report.progress.step = step;
        AgentProgress {
            version: 1,
            attempt: Attempt::default(),
            node_rank: 0,
            report,
            ranks: Vec::new(),
            restarted_after: None,
            started: true,
            straggler: None,
            warnings: Vec::new(),
            lost: Vec::new(),
        }
    }

    #[test]
    fn numbers_wait_for_their_turn_and_are_never_forgotten() {
        let (board, begin) = (ProgressBoard::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let put =
            |name: &str, step, seconds| board.put(name, &job(name), training(step), at(seconds));
        assert!(put("a", 1, 0) && put("b", 1, 3), "the first is news");
        assert!(!put("a", 1, 20) && !put("b", 1, 20));
        assert_eq!(None, board.next(PAUSE, at(20)), "nothing changed");
        assert!(!put("b", 2, 21) && !put("a", 2, 22));
        assert_eq!(
            Some(job("a")),
            board.next(PAUSE, at(22)),
            "it was told before b"
        );
        assert_eq!(Some(job("b")), board.next(PAUSE, at(22)));
        assert_eq!(None, board.next(PAUSE, at(23)));
        assert!(!put("a", 3, 25) && !put("a", 3, 30));
        assert_eq!(None, board.next(PAUSE, at(31)));
        assert_eq!(
            Some(job("a")),
            board.next(PAUSE, at(32)),
            "though the run stands"
        );
        assert_eq!(None, board.next(PAUSE, at(60)));
        assert_eq!(Some(training(3)), board.get("a"));
        board.keep(|uid| uid == "b");
        assert_eq!(None, board.get("a"));
    }

    #[test]
    fn words_are_told_at_once() {
        let changes: [fn(&mut AgentProgress); 5] = [
            |said| said.attempt.restart = 1,
            |said| said.report.phase = Phase::Finished,
            |said| said.warnings = vec!["the clock of worker 1 is late".to_owned()],
            |said| said.report.warnings = vec!["a.jpg is damaged".to_owned()],
            |said| said.started = false,
        ];
        for change in changes {
            let (board, now) = (ProgressBoard::default(), Instant::now());
            assert!(board.put("a", &job("a"), training(5), now));
            let mut changed = training(5);
            change(&mut changed);
            assert!(
                board.put("a", &job("a"), changed, now),
                "{:?}",
                board.get("a")
            );
        }
        let (board, now) = (ProgressBoard::default(), Instant::now());
        assert!(board.put("a", &job("a"), training(0), now));
        assert!(
            board.put("a", &job("a"), training(1), now),
            "the first step"
        );
        let mut evaluating = training(1);
        evaluating.report.phase = Phase::Evaluating;
        assert!(!board.put("a", &job("a"), evaluating, now), "the same run");
    }
}
