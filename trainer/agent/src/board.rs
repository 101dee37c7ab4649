//! What the ranks have said of themselves, as `/progress` and the final words show it.
//!
//! `now` is the time since the agent's start.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::attempt::Attempt;
use contract::keep::Kept;
use contract::progress::{
    AgentProgress, LostWorker, PROGRESS_VERSION, Phase, RankFailure, RankProgress, RunReport,
    Straggler,
};

use crate::group::message::Pace;
use crate::hang::Sighting;
use crate::place::Place;

/// How much of the mean of past steps a new one replaces.
const RECENCY: f64 = 0.2;

/// The latest news of every rank of this worker.
#[derive(Debug)]
pub struct Board {
    place: Place,
    report: Option<RunReport>,
    ranks: BTreeMap<u32, News>,
    restarted_after: Option<RankFailure>,
    straggler: Option<Straggler>,
    /// By worker.
    warnings: BTreeMap<u32, String>,
    lost: Vec<LostWorker>,
    absent: Vec<u32>,
    slow_check: Option<String>,
    /// What the keeper of the run says, where there is one.
    kept: Option<Kept>,
}

#[derive(Debug, Default)]
struct News {
    phase: Phase,
    step: u64,
    /// Whether it ever said something.
    speaks: bool,
    /// The lowest step it spoke of while training: the first, or one that it went back to.
    first_step: Option<u64>,
    heard_at: Duration,
    started: bool,
    alive: bool,
    /// Seconds of a step and the share of it that was waited for the others, recently.
    pace: Option<(f64, f64)>,
    /// Steps that it told the pace of.
    paced: u64,
}

impl Board {
    /// No news yet.
    pub fn new(place: Place) -> Self {
        let ranks = place.ranks().map(|rank| (rank, News::default())).collect();
        Self {
            place,
            report: None,
            ranks,
            restarted_after: None,
            straggler: None,
            warnings: BTreeMap::new(),
            lost: Vec::new(),
            absent: Vec::new(),
            slow_check: None,
            kept: None,
        }
    }

    /// The rank's process runs since `now`.
    pub fn started(&mut self, now: Duration, rank: u32) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            news.alive = true;
            news.started = true;
            news.heard_at = now;
        }
    }

    /// The rank's process is gone.
    pub fn exited(&mut self, rank: u32) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            news.alive = false;
        }
    }

    /// The rank said something.
    pub fn heard(&mut self, now: Duration, rank: u32) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            news.heard_at = now;
            news.speaks = true;
        }
    }

    /// The rank's connection has ended: what it does is no longer known.
    pub fn left(&mut self, rank: u32) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            news.speaks = false;
        }
    }

    /// The rank said where it is.
    pub fn at_step(&mut self, rank: u32, step: u64, phase: Phase) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            news.step = step;
            news.phase = phase;
            if phase == Phase::Training {
                let first = news.first_step.get_or_insert(step);
                *first = step.min(*first);
            }
        }
    }

    /// The rank did a step of so many seconds, and waited for the others in so many of them.
    pub fn paced(&mut self, rank: u32, step: f64, waited: f64) {
        if let Some(news) = self.ranks.get_mut(&rank) {
            // A share, so that one step in which somebody wrote a checkpoint does not weigh more than others.
            let share = if step > 0.0 {
                (waited / step).min(1.0)
            } else {
                0.0
            };
            let (step_before, share_before) = news.pace.unwrap_or((step, 0.0));
            let mean = |before: f64, now: f64| before + RECENCY * (now - before);
            news.pace = Some((mean(step_before, step), mean(share_before, share)));
            news.paced += 1;
        }
    }

    /// The pace of the rank that waits least for the others; none before the first step.
    pub fn pace(&self) -> Option<Pace> {
        let paces = self.ranks.iter();
        let paces = paces.filter_map(|(&rank, news)| Some((rank, news.paced, news.pace?)));
        let least = paces.min_by(|(.., (_, a)), (.., (_, b))| a.total_cmp(b));
        least.map(|(rank, steps, (step, share))| Pace {
            rank,
            steps,
            step_us: (step * 1e6) as u64,
            waited_us: (step * share * 1e6) as u64,
        })
    }

    /// The worker that the others wait for.
    pub fn waits_for(&mut self, straggler: Option<Straggler>) {
        self.straggler = straggler;
    }

    /// The workers whose successors are awaited.
    pub fn awaits(&mut self, lost: Vec<LostWorker>) {
        self.lost = lost;
    }

    /// What is waited for before ranks are started, when that takes long.
    pub fn checks(&mut self, slow_check: Option<String>) {
        self.slow_check = slow_check;
    }

    /// The workers that should have joined by now.
    pub fn lacks(&mut self, absent: Vec<u32>) {
        self.absent = absent;
    }

    /// What a user should know of a worker, if anything. Returns whether that is news.
    pub fn warn(&mut self, worker: u32, warning: Option<String>) -> bool {
        match warning {
            Some(warning) => self.warnings.insert(worker, warning).is_none(),
            None => self.warnings.remove(&worker).is_some(),
        }
    }

    /// The failure after which this attempt began in place.
    pub fn restarted_after(&self) -> Option<RankFailure> {
        self.restarted_after.clone()
    }

    /// Whether a rank has done a training step in this attempt.
    pub fn trained(&self) -> bool {
        self.ranks
            .values()
            .any(|news| news.first_step.is_some_and(|first| news.step > first))
    }

    /// No rank runs until a lost worker is replaced: what they said of themselves is over.
    pub fn pause(&mut self) {
        if let Some(report) = &mut self.report {
            report.phase = Phase::Starting;
        }
        self.ranks = Self::new(self.place.clone()).ranks;
    }

    /// The next attempt begins, after this failure.
    pub fn begin(&mut self, attempt: Attempt, restarted_after: Option<RankFailure>) {
        let report = self.report.take().map(|report| RunReport {
            phase: Phase::Starting,
            ..report
        });
        let mut place = self.place.clone();
        place.attempt = attempt;
        *self = Self {
            // How the run stood is what is known until the ranks say more.
            report,
            restarted_after,
            warnings: std::mem::take(&mut self.warnings),
            lost: std::mem::take(&mut self.lost),
            kept: self.kept.take(),
            ..Self::new(place)
        };
    }

    /// The rank reported how the run stands. Only the first rank's report is kept.
    pub fn reported(&mut self, rank: u32, report: RunReport) {
        self.at_step(rank, report.progress.step, report.phase);
        if rank == self.place.first_rank() {
            self.report = Some(report);
        }
    }

    /// How the run stands in its object store.
    pub fn kept(&mut self, kept: Kept) {
        self.kept = Some(kept);
    }

    /// The last report of the first rank. A checkpoint that is to be kept elsewhere is one when it is there.
    pub fn report(&self) -> Option<RunReport> {
        let mut report = self.report.clone();
        if let (Some(kept), Some(report)) = (&self.kept, &mut report) {
            report.checkpoint.clone_from(&kept.checkpoint);
        }
        report
    }

    /// How many ranks have a running process, and how many there are.
    pub fn alive(&self) -> (usize, usize) {
        let alive = self.ranks.values().filter(|news| news.alive).count();
        (alive, self.ranks.len())
    }

    /// What each rank has said of itself.
    pub fn sightings(&self) -> Vec<Sighting> {
        let sightings = self.ranks.iter().map(|(&rank, news)| Sighting {
            rank,
            speaks: news.alive && news.speaks,
            heard_at: news.heard_at,
            step: news.step,
            phase: news.phase,
        });
        sightings.collect()
    }

    /// The document for `/progress`.
    pub fn progress(&self, now: Duration) -> AgentProgress {
        let ranks = self.ranks.iter().map(|(&rank, news)| RankProgress {
            rank,
            phase: news.phase,
            step: news.step,
            silent_seconds: now.saturating_sub(news.heard_at).as_secs_f64(),
        });
        let trouble = self.kept.as_ref().and_then(|kept| kept.problem.as_ref());
        let trouble = trouble
            .map(|problem| format!("what is to be kept does not reach its store: {problem}"));
        AgentProgress {
            version: PROGRESS_VERSION,
            attempt: self.place.attempt,
            node_rank: self.place.node_rank,
            report: self.report().unwrap_or_default(),
            ranks: ranks.collect(),
            restarted_after: self.restarted_after.clone(),
            started: self.ranks.values().any(|news| news.started),
            straggler: self.straggler.clone(),
            warnings: self.warnings.values().cloned().chain(trouble).collect(),
            lost: self.lost.clone(),
            absent: self.absent.clone(),
            slow_check: self.slow_check.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::last_of_three;
    use contract::progress::Progress;

    fn report_at(step: u64) -> RunReport {
        RunReport {
            phase: Phase::Training,
            progress: Progress {
                step,
                ..Progress::default()
            },
            ..RunReport::default()
        }
    }

    #[test]
    fn silence_is_counted_from_the_last_word_or_the_start() {
        let mut board = Board::new(last_of_three());
        let second = Duration::from_secs(1);
        board.started(second, 4);
        board.started(second, 5);
        board.heard(4 * second, 5);
        let silent: Vec<f64> = board
            .progress(10 * second)
            .ranks
            .iter()
            .map(|rank| rank.silent_seconds)
            .collect();
        assert_eq!(vec![9.0, 6.0], silent);
    }

    #[test]
    fn the_first_ranks_report_stands_for_the_worker() {
        let mut board = Board::new(last_of_three());
        board.reported(4, report_at(7));
        board.reported(5, report_at(8));
        let progress = board.progress(Duration::ZERO);
        assert_eq!(7, progress.report.progress.step);
        let steps: Vec<_> = progress.ranks.iter().map(|r| (r.rank, r.step)).collect();
        assert_eq!(vec![(4, 7), (5, 8)], steps);
        assert!(progress.ranks.iter().all(|r| r.phase == Phase::Training));
    }

    #[test]
    fn a_first_step_of_an_attempt_is_one_more_than_where_it_began() {
        let mut board = Board::new(last_of_three());
        board.at_step(4, 0, Phase::Starting);
        board.at_step(4, 70, Phase::Training);
        assert!(!board.trained());
        board.at_step(4, 71, Phase::Training);
        assert!(board.trained());
        // Back to the last checkpoint.
        board.at_step(4, 60, Phase::Training);
        board.at_step(4, 61, Phase::Training);
        assert!(board.trained());
        board.begin(last_of_three().attempt.next_restart(), None);
        assert!(!board.trained());
        assert_eq!(1, board.progress(Duration::ZERO).attempt.restart);
    }

    #[test]
    fn ranks_are_alive_from_start_to_exit() {
        let mut board = Board::new(last_of_three());
        assert_eq!((0, 2), board.alive());
        board.started(Duration::ZERO, 4);
        board.started(Duration::ZERO, 5);
        board.exited(4);
        assert_eq!((1, 2), board.alive());
    }
}
