//! Which changes of a status deserve a Kubernetes event.

use contract::progress::failure_sentence;
use crds::conditions::{ConditionType, Reason};
use crds::v1alpha1::{FetchFailure, WorkerState, YoloTrainingJobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::{Event, EventType};

use crate::conditions::{find, holds};

/// Bytes of a note; the API server refuses longer ones.
const NOTE_LIMIT: usize = 1024;

/// The text as the note of an event, shortened where it is longer than the API server takes: it counts bytes.
pub fn note(text: &str) -> String {
    const MORE: &str = "…";
    if text.len() <= NOTE_LIMIT {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(NOTE_LIMIT - MORE.len());
    format!("{}{MORE}", &text[..end])
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEvent {
    /// Whether it is a warning.
    pub warning: bool,
    /// In one word.
    pub reason: String,
    /// In a sentence.
    pub note: String,
    /// Tells events of one reason apart: the recorder merges those that are equal here.
    pub action: String,
}

impl JobEvent {
    /// As the recorder wants it.
    pub fn into_event(self) -> Event {
        Event {
            type_: if self.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: self.reason,
            note: Some(self.note),
            action: self.action,
            secondary: None,
        }
    }
}

/// The events that a change of status deserves.
pub fn events(old: &YoloTrainingJobStatus, new: &YoloTrainingJobStatus) -> Vec<JobEvent> {
    let attempt = new.attempt.unwrap_or_default();
    let event = |warning: bool, reason: &str, text: String| JobEvent {
        warning,
        reason: reason.to_owned(),
        note: note(&text),
        action: format!("{reason}-{attempt}"),
    };
    let mut events = Vec::new();
    if became_true(old, new, ConditionType::Accepted).is_some() {
        let next = match new.total_workers {
            _ if holds(&new.conditions, ConditionType::Suspended) => {
                "the job waits until it is resumed".to_owned()
            }
            _ if queued(new).is_some() => "the job waits in its queue".to_owned(),
            _ if new.fetch.is_some() && new.workers.is_empty() => {
                "the data set is fetched first".to_owned()
            }
            1 => "1 worker is being created".to_owned(),
            n => format!("{n} workers are being created"),
        };
        events.push(event(
            false,
            "Created",
            format!("the configuration is frozen; {next}"),
        ));
    }
    if let Some(waits) = queued(new).filter(|_| queued(old).is_none()) {
        events.push(event(false, "Queued", waits.message.clone()));
    }
    let admitted = |status| reason(status, ConditionType::Admitted) == Some("QuotaReserved");
    if admitted(new) && !admitted(old) {
        let message = find(&new.conditions, ConditionType::Admitted).map(|c| c.message.clone());
        events.push(event(false, "Admitted", message.unwrap_or_default()));
    }
    if let Some(problem) = new_problem(old, new) {
        events.push(event(true, &problem.reason, problem.message.clone()));
    }
    if let Some(failure) = fetch_failure(old, new) {
        let note = format!("{}: {}", failure.reason, failure.message);
        events.push(JobEvent {
            action: format!("DatasetNotFetched-{}", failure.pod),
            ..event(true, "DatasetNotFetched", note)
        });
    }
    let there = |status: &YoloTrainingJobStatus| {
        let fetch = status.fetch.as_ref();
        fetch.is_some_and(|fetch| fetch.state == WorkerState::Succeeded)
    };
    if there(new) && !there(old) {
        let note = "the data set is there".to_owned();
        events.push(event(false, "DatasetFetched", note));
    }
    if let Some(restarting) = restart(old, new) {
        events.push(event(true, "Restarting", restarting.message.clone()));
    }
    if let Some((reason, note)) = restart_in_place(old, new) {
        events.push(event(true, reason, note));
    }
    if let Some(suspended) = became_true(old, new, ConditionType::Suspended) {
        events.push(event(false, "Suspended", suspended.message.clone()));
    }
    let resumed = |status| reason(status, ConditionType::Suspended) == Some("JobResumed");
    if resumed(new) && !resumed(old) {
        events.push(event(
            false,
            "Resumed",
            format!("the job goes on, in attempt {attempt}"),
        ));
    }
    if became_true(old, new, ConditionType::Running).is_some() {
        let workers = match new.total_workers {
            1 => "the worker runs".to_owned(),
            n => format!("all {n} workers run"),
        };
        events.push(event(
            false,
            "Running",
            format!("{workers} in attempt {attempt}"),
        ));
    }
    if let Some(note) = straggler(old, new) {
        events.push(event(true, "Straggler", note));
    }
    if let Some(complete) = became_true(old, new, ConditionType::Complete) {
        events.push(event(false, "Complete", complete.message.clone()));
    }
    if let Some(failed) = became_true(old, new, ConditionType::Failed) {
        events.push(event(
            true,
            "Failed",
            format!("{}: {}", failed.reason, failed.message),
        ));
    }
    events
}

/// A failure of the fetch that the old status does not know.
fn fetch_failure<'a>(
    old: &YoloTrainingJobStatus,
    new: &'a YoloTrainingJobStatus,
) -> Option<&'a FetchFailure> {
    let last = |status: &'a YoloTrainingJobStatus| status.fetch.as_ref()?.last_failure.as_ref();
    let before = old
        .fetch
        .as_ref()
        .and_then(|fetch| fetch.last_failure.as_ref());
    last(new).filter(|failure| before.is_none_or(|before| before.pod != failure.pod))
}

/// What is said of a worker that the others wait for, when the old status names another one or none.
fn straggler(old: &YoloTrainingJobStatus, new: &YoloTrainingJobStatus) -> Option<String> {
    let straggler = new.straggler.as_ref()?;
    let known = old.straggler.as_ref().map(|straggler| straggler.worker);
    if known == Some(straggler.worker) {
        return None;
    }
    let mut workers = new.workers.iter();
    let worker = workers.find(|worker| worker.index == straggler.worker);
    let node = worker.and_then(|worker| worker.node.as_deref());
    Some(format!(
        "the others wait {:.3} s of each step of {:.3} s for worker {} (rank {}) on the node {}: look at what else runs there, and at its clock speed, cooling and disks",
        straggler.waited_seconds,
        straggler.step_seconds,
        straggler.worker,
        straggler.rank,
        node.unwrap_or("unknown")
    ))
}

fn reason(status: &YoloTrainingJobStatus, kind: ConditionType) -> Option<&str> {
    find(&status.conditions, kind).map(|condition| condition.reason.as_str())
}

/// The condition that says that the job waits in its queue, when it does.
fn queued(status: &YoloTrainingJobStatus) -> Option<&Condition> {
    find(&status.conditions, ConditionType::Admitted)
        .filter(|condition| condition.reason == Reason::Queued.as_str())
}

fn became_true<'a>(
    old: &YoloTrainingJobStatus,
    new: &'a YoloTrainingJobStatus,
    kind: ConditionType,
) -> Option<&'a Condition> {
    let before = find(&old.conditions, kind).is_some_and(|condition| condition.status == "True");
    find(&new.conditions, kind).filter(|condition| condition.status == "True" && !before)
}

/// A restart that the old status does not know. A second one may begin while the condition is True.
fn restart<'a>(
    old: &YoloTrainingJobStatus,
    new: &'a YoloTrainingJobStatus,
) -> Option<&'a Condition> {
    let restarting = find(&new.conditions, ConditionType::Restarting)?;
    let later = old.attempt.map(|attempt| attempt.incarnation)
        < new.attempt.map(|attempt| attempt.incarnation);
    (restarting.status == "True" && later && old.attempt.is_some()).then_some(restarting)
}

/// A restart in living pods that the old status does not know.
fn restart_in_place(
    old: &YoloTrainingJobStatus,
    new: &YoloTrainingJobStatus,
) -> Option<(&'static str, String)> {
    let (before, after) = (old.attempt?, new.attempt?);
    if before.incarnation != after.incarnation || before.restart >= after.restart {
        return None;
    }
    let restarting = find(&new.conditions, ConditionType::Restarting)?;
    // The restart of a replaced worker is under way; that of ranks in place is over when it is heard of.
    if restarting.status == "True" {
        return Some(("WorkerReplaced", restarting.message.clone()));
    }
    let note = if restarting.reason == Reason::Restarted.as_str() {
        restarting.message.clone()
    } else {
        // The job has ended meanwhile, of which the condition speaks.
        let mut failures = new.failures.iter();
        let cause = failures.find(|failure| failure.attempt.next_restart() == after);
        let because = cause.map_or_else(String::new, |cause| {
            let sentence = failure_sentence(cause.worker, cause.rank, &cause.message);
            format!(", because of {sentence}")
        });
        format!("restarted in place as attempt {after}{because}")
    };
    Some(("RestartedInPlace", note))
}

/// Something that a user may have to put right and that the old status does not name.
fn new_problem<'a>(
    old: &YoloTrainingJobStatus,
    new: &'a YoloTrainingJobStatus,
) -> Option<&'a Condition> {
    const PROBLEMS: [Reason; 9] = [
        Reason::GangUnavailable,
        Reason::NameTaken,
        Reason::CreateRefused,
        Reason::Unschedulable,
        Reason::VolumeNotReady,
        Reason::ImagePullFailed,
        Reason::ContainerCreateFailed,
        Reason::NotJoined,
        Reason::NotReachable,
    ];
    let kinds = [ConditionType::WorkersReady, ConditionType::PreflightPassed];
    kinds.into_iter().find_map(|kind| {
        let found = find(&new.conditions, kind)?;
        let known = find(&old.conditions, kind).is_some_and(|before| before.reason == found.reason);
        let problem = PROBLEMS
            .iter()
            .any(|reason| reason.as_str() == found.reason);
        (found.status == "False" && problem && !known).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use ConditionType::{Accepted, Failed, Running, WorkersReady};
    use jiff::Timestamp;

    use super::*;
    use crate::conditions::{Stated, merge};

    fn status(stated: &[(ConditionType, bool, &str)]) -> YoloTrainingJobStatus {
        let stated: Vec<_> = stated
            .iter()
            .map(|(kind, holds, reason)| Stated::new(*kind, *holds, *reason, "why"))
            .collect();
        YoloTrainingJobStatus {
            conditions: merge(&[], &stated, None, Timestamp::UNIX_EPOCH),
            ..YoloTrainingJobStatus::default()
        }
    }

    fn reasons(old: &YoloTrainingJobStatus, new: &YoloTrainingJobStatus) -> Vec<String> {
        events(old, new)
            .into_iter()
            .map(|event| event.reason)
            .collect()
    }

    #[test]
    fn a_note_is_as_long_as_the_api_server_takes_in_bytes() {
        assert_eq!("why", note("why"));
        let bars = "█".repeat(400);
        let short = note(&bars);
        assert!(short.len() <= 1024 && short.len() > 1020, "{}", short.len());
        assert!(short.ends_with("█…"));
        assert_eq!("x".repeat(1024), note(&"x".repeat(1024)));
    }

    #[test]
    fn a_change_is_told_once() {
        let empty = YoloTrainingJobStatus::default();
        let pulled = status(&[
            (Accepted, true, "x"),
            (WorkersReady, false, "ImagePullFailed"),
        ]);
        assert_eq!(vec!["Created", "ImagePullFailed"], reasons(&empty, &pulled));
        assert!(reasons(&pulled, &pulled).is_empty());
        let running = status(&[(Accepted, true, "x"), (Running, true, "Starting")]);
        assert_eq!(vec!["Running"], reasons(&pulled, &running));
        let training = status(&[(Accepted, true, "x"), (Running, true, "Training")]);
        assert!(reasons(&running, &training).is_empty());
        let failed = status(&[(Accepted, true, "x"), (Failed, true, "InvalidDataset")]);
        let told = events(&training, &failed);
        assert_eq!("InvalidDataset: why", told[0].note);
        assert!(told[0].warning);
    }
}
