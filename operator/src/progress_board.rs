//! What the agents of each job last said, and whether anybody has to hear of it now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::progress::{AgentProgress, Phase};
use tokio::time::Instant;

use crate::training_job::state::is_training;
use crate::training_job::status::Crowd;

/// What the agents last said, by the job's uid.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    jobs: Mutex<HashMap<String, Said>>,
    crowd: Mutex<Crowd>,
}

/// What one job's agents said.
#[derive(Debug)]
struct Said {
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

    /// How many jobs have something to say.
    pub fn crowd(&self) -> Crowd {
        *self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how many jobs have something to say.
    pub fn set_crowd(&self, crowd: Crowd) {
        *self.crowd.lock().unwrap_or_else(PoisonError::into_inner) = crowd;
    }

    /// Notes what a job's agents say now; whether it deserves a reconcile. Numbers of a run in progress do so at
    /// most once in `pause`: no status would be written sooner, and nothing else follows from them.
    pub fn put(&self, uid: &str, progress: AgentProgress, pause: Duration, now: Instant) -> bool {
        let mut jobs = self.lock();
        let Some(said) = jobs.get_mut(uid) else {
            let said = Said {
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
        let tell = word || (said.untold && now.duration_since(said.told) >= pause);
        if tell {
            said.told = now;
            said.untold = false;
        }
        tell
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
        let put = |step, seconds| {
            let now = begin + Duration::from_secs(seconds);
            board.put("a", training(step), PAUSE, now)
        };
        assert!(put(1, 0));
        assert!(!put(1, 20), "nothing changed");
        assert!(put(2, 25), "the last was told long ago");
        assert!(!put(3, 30));
        assert!(!put(4, 34));
        assert!(
            put(4, 35),
            "what was said at 30 is due, though the run stands"
        );
        assert!(!put(4, 60));
        assert_eq!(Some(training(4)), board.get("a"));
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
            assert!(board.put("a", training(5), PAUSE, now));
            let mut changed = training(5);
            change(&mut changed);
            assert!(board.put("a", changed, PAUSE, now), "{:?}", board.get("a"));
        }
        let (board, now) = (ProgressBoard::default(), Instant::now());
        assert!(board.put("a", training(0), PAUSE, now));
        assert!(board.put("a", training(1), PAUSE, now), "the first step");
        let mut evaluating = training(1);
        evaluating.report.phase = Phase::Evaluating;
        assert!(!board.put("a", evaluating, PAUSE, now), "the same run");
    }
}
