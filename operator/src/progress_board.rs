//! What the agents of each job last said, and whether anybody has to hear of it now.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::progress::{AgentProgress, Phase};
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::context::GuardedJob;
use crate::training_job::pace::EACH_SECOND;
use crate::training_job::state::is_training;

/// Between two jobs whose numbers are told.
pub const TURN: Duration = Duration::from_millis(1000 / EACH_SECOND as u64);

/// How long agents may leave the operator without an answer before that is told.
const SILENT: Duration = Duration::from_secs(30);

/// What the agents last said, by the job's uid.
#[derive(Debug, Default)]
pub struct ProgressBoard {
    board: Mutex<Board>,
    starting: AtomicUsize,
}

#[derive(Debug, Default)]
struct Board {
    jobs: HashMap<String, Said>,
    /// When the next numbers may be told.
    next_turn: Option<Instant>,
    /// Jobs none of whose agents answers.
    silent: HashMap<String, Silence>,
}

/// That no agent of a job answers.
#[derive(Debug)]
struct Silence {
    incarnation: u32,
    since: Instant,
    /// Whether that is so for long.
    told: bool,
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
    /// Whether they could have been told, had it been this job's turn.
    waits: bool,
}

impl Said {
    fn tell(&mut self, now: Instant) {
        self.told = now;
        self.untold = false;
        self.waits = false;
    }
}

impl ProgressBoard {
    /// What a job's agents last said.
    pub fn get(&self, uid: &str) -> Option<AgentProgress> {
        self.lock().jobs.get(uid).map(|said| said.progress.clone())
    }

    /// Of how many jobs some workers are still to run.
    pub fn starting(&self) -> usize {
        self.starting.load(Ordering::Relaxed)
    }

    /// Notes of how many jobs some workers are still to run.
    pub fn set_starting(&self, jobs: usize) {
        self.starting.store(jobs, Ordering::Relaxed);
    }

    /// Notes what a job's agents say now; whether it deserves a reconcile at once. Numbers of a run in progress do so at
    /// most once in `pause`, since no status would be written sooner and nothing else follows from them, and only
    /// where it is no other job's turn.
    pub fn put(
        &self,
        uid: &str,
        job: &ObjectRef<GuardedJob>,
        progress: AgentProgress,
        pause: Duration,
        now: Instant,
    ) -> bool {
        let mut board = self.lock();
        let busy = board.next_turn.is_some_and(|turn| now < turn)
            || board.jobs.values().any(|said| said.waits);
        let Some(said) = board.jobs.get_mut(uid) else {
            let said = Said {
                job: job.clone(),
                progress,
                told: now,
                untold: false,
                waits: false,
            };
            board.jobs.insert(uid.to_owned(), said);
            return true;
        };
        let word = !same_words(&said.progress, &progress);
        said.untold |= said.progress != progress;
        said.progress = progress;
        if word {
            said.tell(now);
            return true;
        }
        if !said.untold || now.duration_since(said.told) < pause {
            return false;
        }
        if busy {
            said.waits = true;
            return false;
        }
        said.tell(now);
        board.next_turn = Some(now + TURN);
        true
    }

    /// The job whose turn it is to have its numbers told: it was told longest ago. Asked once in [`TURN`].
    pub fn next(&self, now: Instant) -> Option<ObjectRef<GuardedJob>> {
        let mut board = self.lock();
        let waiting = board.jobs.values_mut().filter(|said| said.waits);
        let first = waiting.min_by_key(|said| said.told)?;
        first.tell(now);
        let job = first.job.clone();
        board.next_turn = Some(now + TURN);
        Some(job)
    }

    /// Notes that none of a job's running agents of this incarnation answers; whether that is so for long now, and was
    /// not yet.
    pub fn unanswered(&self, uid: &str, incarnation: u32, now: Instant) -> bool {
        let mut board = self.lock();
        let silent = board.silent.entry(uid.to_owned());
        let silence = silent.or_insert(Silence {
            incarnation,
            since: now,
            told: false,
        });
        if silence.incarnation != incarnation {
            *silence = Silence {
                incarnation,
                since: now,
                told: false,
            };
        }
        let told = silence.told;
        silence.told |= now.duration_since(silence.since) >= SILENT;
        silence.told && !told
    }

    /// Notes that one does; whether none had for long.
    pub fn answered(&self, uid: &str) -> bool {
        let silence = self.lock().silent.remove(uid);
        silence.is_some_and(|silence| silence.told)
    }

    /// The incarnation none of whose agents has answered for long.
    pub fn silent(&self, uid: &str) -> Option<u32> {
        let board = self.lock();
        let silence = board.silent.get(uid).filter(|silence| silence.told);
        silence.map(|silence| silence.incarnation)
    }

    /// Forgets all jobs but those of these uids.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        let mut board = self.lock();
        board.jobs.retain(|uid, _| exists(uid));
        board.silent.retain(|uid, _| exists(uid));
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        // A panic elsewhere cannot leave plain values half-changed.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
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
            absent,
            slow_check,
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
            (
                restarted_after,
                straggler,
                warnings,
                lost,
                absent,
                slow_check,
            ),
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

    #[test]
    fn agents_that_do_not_answer_for_long_are_told_of_once() {
        let board = ProgressBoard::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!board.unanswered("a", 0, at(0)));
        assert!(!board.unanswered("a", 0, at(29)));
        assert_eq!(None, board.silent("a"));
        assert!(board.unanswered("a", 0, at(30)));
        assert!(!board.unanswered("a", 0, at(31)));
        assert_eq!(Some(0), board.silent("a"));
        // Other pods have their own time.
        assert!(!board.unanswered("a", 1, at(40)));
        assert_eq!(None, board.silent("a"));
        assert!(board.unanswered("a", 1, at(70)));
        assert!(board.answered("a"));
        assert!(!board.answered("a"));
        board.unanswered("a", 1, at(80));
        board.keep(|_| false);
        assert!(!board.unanswered("a", 1, at(120)));
    }

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
            absent: Vec::new(),
            slow_check: None,
        }
    }

    #[test]
    fn numbers_wait_for_their_turn_and_are_never_forgotten() {
        let (board, begin) = (ProgressBoard::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let put = |name: &str, step, seconds| {
            board.put(name, &job(name), training(step), PAUSE, at(seconds))
        };
        assert!(put("a", 1, 0) && put("b", 1, 3), "the first is news");
        assert!(!put("a", 1, 20) && !put("b", 1, 20), "nothing changed");
        assert!(put("a", 2, 25), "the last was told long ago");
        assert!(!put("a", 3, 30) && !put("a", 4, 34));
        assert!(
            put("a", 4, 35),
            "what was said at 30 is due, though the run stands"
        );
        assert!(!put("a", 4, 60));
        assert_eq!(None, board.next(at(60)));
        assert_eq!(Some(training(4)), board.get("a"));
        board.keep(|uid| uid == "b");
        assert_eq!(None, board.get("a"));
    }

    #[test]
    fn of_many_jobs_the_one_told_longest_ago_is_next() {
        let (board, begin) = (ProgressBoard::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let put = |name: &str, step, seconds| {
            board.put(name, &job(name), training(step), PAUSE, at(seconds))
        };
        assert!(put("a", 1, 2) && put("b", 1, 1) && put("c", 1, 0));
        assert!(put("a", 2, 20));
        assert!(!put("b", 2, 20) && !put("c", 2, 20), "the turn is a's");
        assert!(!put("a", 3, 31), "others wait");
        assert_eq!(Some(job("c")), board.next(at(31)));
        assert_eq!(Some(job("b")), board.next(at(32)));
        assert_eq!(Some(job("a")), board.next(at(33)));
        assert_eq!(None, board.next(at(34)));
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
            assert!(board.put("a", &job("a"), training(5), PAUSE, now));
            let mut changed = training(5);
            change(&mut changed);
            assert!(
                board.put("a", &job("a"), changed, PAUSE, now),
                "{:?}",
                board.get("a")
            );
        }
        let (board, now) = (ProgressBoard::default(), Instant::now());
        assert!(board.put("a", &job("a"), training(0), PAUSE, now));
        assert!(
            board.put("a", &job("a"), training(1), PAUSE, now),
            "the first step"
        );
        let mut evaluating = training(1);
        evaluating.report.phase = Phase::Evaluating;
        assert!(
            !board.put("a", &job("a"), evaluating, PAUSE, now),
            "the same run"
        );
    }
}
