//! The pod that fetches a data set before the workers begin: how it stands, and what follows from that. Pure.

use contract::failure_policy::{FailureAction, FailureFacts};
use crds::names;
use crds::v1alpha1::{Backoff, FetchFailure, FetchStatus, WorkerState};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::observe::Observed;
use super::plan::JobFailure;
use super::pods::{PodState, is_over, state};
use super::restart::Why;
use super::status::shorten;
use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::retry::growing_seconds;

/// How much of a failure's message the status keeps.
const MESSAGE_LIMIT: usize = 1024;

/// A pod that fetches a job's data set.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Which one of the job's it is, from 0.
    pub number: u32,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether all of it has ended: containers that others added may outlive the one that fetches.
    pub over: bool,
    /// What it does.
    pub state: PodState,
    /// When its end was first seen, by the observer's clock.
    pub end_seen: Option<Timestamp>,
}

impl FetchView {
    /// Reads a pod; `None` when it fetches nothing.
    pub fn of(pod: &Pod) -> Option<Self> {
        let label = |name: &str| pod.labels().get(name);
        let job = label(names::JOB_NAME)?;
        label(names::ROLE).filter(|role| *role == names::ROLE_FETCH)?;
        let name = pod.name_any();
        Some(Self {
            number: names::fetch_pod_number(job, &name)?,
            deleting: pod.metadata.deletion_timestamp.is_some(),
            over: is_over(pod),
            uid: pod.uid().unwrap_or_default(),
            state: state_of(pod),
            end_seen: None,
            name,
        })
    }

    /// Whether its container has ended.
    pub fn ended(&self) -> bool {
        !matches!(self.state, PodState::Waiting(_) | PodState::Running)
    }
}

fn state_of(pod: &Pod) -> PodState {
    let Some(status) = &pod.status else {
        return PodState::Waiting(WaitingOn::ContainersStarting);
    };
    let mut state = state(status, names::FETCH_CONTAINER);
    if let PodState::Failed(ended) = &mut state
        && !ended.out_of_limit
    {
        // What it leaves behind is a whole sentence, or the end of its log.
        let containers = status.container_statuses.iter().flatten();
        let mut ends =
            containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref());
        let words = ends.find_map(|end| end.message.as_deref());
        let line = words.and_then(|words| words.lines().rfind(|line| !line.trim().is_empty()));
        if let Some(line) = line {
            line.trim().clone_into(&mut ended.message);
        }
    }
    state
}

/// What is next for a data set.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It is there.
    Done,
    /// A pod is needed: the one of this number.
    Create(u32),
    /// Something is awaited, until this time at most.
    Wait(WaitingOn, Option<Timestamp>),
    /// The pod failed, which is to be written down; the next one begins at this time.
    Failed(WaitingOn, Timestamp),
    /// The job fails.
    Fail(JobFailure),
}

/// How the fetch stands, and what is next.
pub fn next(valid: &ValidJob, observed: &Observed, now: Timestamp) -> (FetchStatus, Step) {
    let mut status = observed.status.fetch.clone().unwrap_or_default();
    if status.state == WorkerState::Succeeded {
        return (status, Step::Done);
    }
    let known = names::fetch_pod_number(&observed.id.name, &status.pod);
    let number = new_number(observed, known);
    let latest = observed.fetch.last();
    let latest = latest.filter(|pod| known.is_none_or(|known| pod.number >= known));
    if let Some(pod) = latest {
        status.pod.clone_from(&pod.name);
    }
    if latest.is_some_and(|pod| matches!(pod.state, PodState::Succeeded(_))) {
        status.state = WorkerState::Succeeded;
        return (status, Step::Done);
    }
    let judged = status.last_failure.clone();
    if let Some(failure) = judged.filter(|failure| failure.pod == status.pod) {
        status.state = WorkerState::Failed;
        let (until, waiting_on) = back_off(valid, observed, &status, &failure);
        let step = if until > now {
            Step::Wait(waiting_on, Some(until))
        } else {
            create(&mut status, number)
        };
        return (status, step);
    }
    // One that somebody deleted, or that stopped since the job was suspended, has not failed.
    let Some(pod) = latest.filter(|pod| !pod.deleting) else {
        let step = create(&mut status, number);
        return (status, step);
    };
    let step = match &pod.state {
        PodState::Waiting(waiting_on) => {
            status.state = WorkerState::Pending;
            let what = WaitingOn::FetchPod {
                pod: pod.name.clone(),
                what: Box::new(waiting_on.clone()),
            };
            Step::Wait(what, None)
        }
        PodState::Running => {
            status.state = WorkerState::Running;
            let pod = pod.name.clone();
            Step::Wait(WaitingOn::Fetching { pod }, None)
        }
        PodState::Failed(ended) => {
            let (why, message) = (Why::of(ended), ended.message.as_str());
            judge(
                valid,
                observed,
                &mut status,
                (why, ended.exit_code, message),
                now,
            )
        }
        PodState::Evicted(message) => judge(
            valid,
            observed,
            &mut status,
            (Why::PodEvicted, None, message),
            now,
        ),
        PodState::Succeeded(_) => Step::Done,
    };
    (status, step)
}

fn create(status: &mut FetchStatus, number: u32) -> Step {
    status.state = WorkerState::Pending;
    Step::Create(number)
}

/// What a pod's failure means: try again, counted or not, or fail.
fn judge(
    valid: &ValidJob,
    observed: &Observed,
    status: &mut FetchStatus,
    (why, exit_code, message): (Why, Option<i32>, &str),
    now: Timestamp,
) -> Step {
    let failure = FetchFailure {
        time: Time(now),
        pod: status.pod.clone(),
        reason: why.as_str().to_owned(),
        exit_code,
        message: shorten(message, MESSAGE_LIMIT),
    };
    let policy = &valid.failure_policy;
    let action = policy.action(FailureFacts {
        reason: why.as_str(),
        retry: why.retry(),
        exit_code,
        worker: None,
    });
    status.state = WorkerState::Failed;
    status.failures += 1;
    status.last_failure = Some(failure.clone());
    let counts = match action {
        FailureAction::FailJob => return Step::Fail(JobFailure::NotFetched(failure)),
        FailureAction::RestartGangIgnoringLimit => false,
        FailureAction::RestartGang | FailureAction::RestartInPlace => true,
    };
    if counts && status.counted_failures >= policy.max_restarts {
        return Step::Fail(JobFailure::FetchExhausted(failure));
    }
    status.counted_failures += u32::from(counts);
    let (until, waiting_on) = back_off(valid, observed, status, &failure);
    Step::Failed(waiting_on, until)
}

/// Until when the next pod waits, and what to say of it.
fn back_off(
    valid: &ValidJob,
    observed: &Observed,
    status: &FetchStatus,
    failure: &FetchFailure,
) -> (Timestamp, WaitingOn) {
    let Backoff {
        initial_seconds,
        max_seconds,
    } = valid.failure_policy.backoff;
    let uid = &observed.id.uid;
    let seconds = growing_seconds(uid, status.failures, initial_seconds, max_seconds);
    let wait = SignedDuration::from_secs(seconds.into());
    let until = failure.time.0.saturating_add(wait);
    let waiting_on = WaitingOn::FetchBackOff {
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        seconds,
    };
    (until.unwrap_or(Timestamp::MAX), waiting_on)
}

/// The number of the next pod, above all that ever held such a name.
fn new_number(observed: &Observed, known: Option<u32>) -> u32 {
    let own = observed.fetch.iter().map(|pod| pod.number);
    let strangers = observed.fetch_strangers.iter().copied();
    own.chain(strangers).chain(known).max().map_or(0, |n| n + 1)
}
