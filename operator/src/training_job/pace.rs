//! When a new status is written: what is wrong at once, the rest as often as the API server should be bothered with it.

use std::collections::HashSet;

use crds::conditions::{ConditionType, Reason};
use crds::v1alpha1::{State, YoloTrainingJobStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// How soon a new status should be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing changed.
    None,
    /// Only numbers of a run in progress changed.
    Progress,
    /// Workers changed, and no condition but for the usual steps in which they come to be.
    Workers,
    /// Another condition, the attempt or the state changed, or the first step was done.
    Now,
}

/// How often a status of each urgency is written at most.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between statuses in which only progress changed.
    pub progress: SignedDuration,
    /// Between statuses in which only workers changed: many start at the same moment.
    pub workers: SignedDuration,
}

/// Statuses that can wait, of each of the two kinds, a second over all jobs. An API server takes 10 to 15 ms of a
/// processor for one, and others wait behind them.
pub const EACH_SECOND: u32 = 20;

/// Workers whose steps are told a second, where one job has many.
const WORKERS_A_SECOND: u32 = 100;

/// Also where very many jobs start, or never come to, or a job has very many workers.
const LONGEST_SHARE: SignedDuration = SignedDuration::from_secs(10);

impl Pace {
    /// The pace where the workers of so many jobs come to be: each job's steps are told less often where that would
    /// be more than the API server should be bothered with.
    #[must_use]
    pub fn shared_by(self, starting: usize) -> Self {
        let seconds = starting.div_ceil(EACH_SECOND as usize) as i64;
        let share = SignedDuration::from_secs(seconds).min(LONGEST_SHARE);
        Self {
            workers: self.workers.max(share),
            ..self
        }
    }

    /// The pace of a job of so many workers. A status names them all, so one of a thousand takes the API server as long
    /// as fifty of twenty.
    #[must_use]
    pub fn of_workers(self, workers: u32) -> Self {
        let share = SignedDuration::from_secs(i64::from(workers / WORKERS_A_SECOND));
        Self {
            workers: self.workers.max(share.min(LONGEST_SHARE)),
            ..self
        }
    }
}

/// How soon `new` should be written over `old`.
pub fn urgency(old: &YoloTrainingJobStatus, new: &YoloTrainingJobStatus) -> Urgency {
    if old == new {
        return Urgency::None;
    }
    let first_step = |status: &YoloTrainingJobStatus| {
        let progress = status.progress.as_ref();
        progress.is_some_and(|progress| progress.first_step_time.is_some())
    };
    // What workers that were stopped say last is gone with their pods.
    let last_words = matches!(new.state, Some(State::Queued | State::Suspended))
        && old.checkpoint != new.checkpoint;
    // Under the name of a pod that no status has, a pod that disappears unseen would be made once more.
    let known: HashSet<&str> = old
        .workers
        .iter()
        .map(|worker| worker.pod.as_str())
        .collect();
    let mut pods = new.workers.iter().map(|worker| worker.pod.as_str());
    let new_pod = pods.any(|pod| !known.contains(pod));
    let now = last_words
        || new_pod
        || words(&old.conditions) != words(&new.conditions)
        || old.attempt != new.attempt
        || old.state != new.state
        || old.observed_generation != new.observed_generation
        || first_step(old) != first_step(new);
    if now {
        Urgency::Now
    } else if old.workers != new.workers
        || old.fetch != new.fetch
        || old.conditions != new.conditions
    {
        Urgency::Workers
    } else {
        Urgency::Progress
    }
}

/// What conditions say that should be read at once: all but the usual steps in which workers come to be. Those follow
/// each other closely.
fn words(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    let steps = [ConditionType::Scheduled, ConditionType::WorkersReady].map(ConditionType::as_str);
    let usual = [
        Reason::CreatingPods,
        Reason::DevicesNotClaimed,
        Reason::ContainersStarting,
    ]
    .map(Reason::as_str);
    let step = |c: &Condition| {
        let well = c.status == "True" || usual.contains(&c.reason.as_str());
        steps.contains(&c.type_.as_str()) && well
    };
    let conditions = conditions.iter().filter(|c| !step(c));
    conditions
        .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str()))
        .collect()
}

/// When a status of this urgency may be written, given when the last one was.
pub fn due(urgency: Urgency, last: Option<Timestamp>, pace: Pace) -> Option<Timestamp> {
    let gap = match urgency {
        Urgency::None => return None,
        Urgency::Now => SignedDuration::ZERO,
        Urgency::Workers => pace.workers,
        Urgency::Progress => pace.progress,
    };
    Some(last.map_or(Timestamp::MIN, |last| {
        last.saturating_add(gap).unwrap_or(Timestamp::MAX)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Stated, merge};
    use crate::training_job::status::pending;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn progress_waits_for_its_turn_and_conditions_do_not() {
        let old = YoloTrainingJobStatus {
            workers: vec![pending(0, "digits-worker-0-0")],
            ..YoloTrainingJobStatus::default()
        };
        let mut progress = old.clone();
        progress.skipped_images = 1;
        let mut workers = progress.clone();
        workers.workers[0].state = crds::v1alpha1::WorkerState::Running;
        let mut new_pod = workers.clone();
        new_pod.workers = vec![pending(0, "digits-worker-0-1")];
        let mut condition = workers.clone();
        let running = [Stated::new(ConditionType::Running, true, "Starting", "")];
        condition.conditions = merge(&[], &running, None, at(0));
        let pace = Pace {
            progress: SignedDuration::from_secs(10),
            workers: SignedDuration::from_secs(1),
        };
        for (new, expected, when) in [
            (&old, Urgency::None, None),
            (&progress, Urgency::Progress, Some(at(110))),
            (&workers, Urgency::Workers, Some(at(101))),
            (&new_pod, Urgency::Now, Some(at(100))),
            (&condition, Urgency::Now, Some(at(100))),
        ] {
            let urgency = urgency(&old, new);
            assert_eq!(expected, urgency);
            assert_eq!(when, due(urgency, Some(at(100)), pace));
        }
        for (jobs, when) in [(0, 101), (20, 101), (21, 102), (200, 110), (9000, 110)] {
            let due = due(Urgency::Workers, Some(at(100)), pace.shared_by(jobs));
            assert_eq!(Some(at(when)), due, "{jobs} jobs");
        }
        for (workers, when) in [(0, 101), (199, 101), (200, 102), (1000, 110), (9000, 110)] {
            let due = due(Urgency::Workers, Some(at(100)), pace.of_workers(workers));
            assert_eq!(Some(at(when)), due, "{workers} workers");
        }
        assert_eq!(Some(Timestamp::MIN), due(Urgency::Progress, None, pace));
    }

    #[test]
    fn the_usual_steps_of_a_start_wait_and_bad_news_does_not() {
        let status = |type_, holds, reason: Reason| {
            let stated = [Stated::new(type_, holds, reason.as_str(), "")];
            YoloTrainingJobStatus {
                conditions: merge(&[], &stated, None, at(0)),
                ..YoloTrainingJobStatus::default()
            }
        };
        let begun = status(ConditionType::Scheduled, false, Reason::CreatingPods);
        let placed = status(ConditionType::Scheduled, true, Reason::NodesFound);
        let stuck = status(ConditionType::Scheduled, false, Reason::Unschedulable);
        assert_eq!(Urgency::Workers, urgency(&begun, &placed));
        assert_eq!(Urgency::Now, urgency(&begun, &stuck));
        assert_eq!(Urgency::Now, urgency(&stuck, &placed));
    }
}
