//! How many restarts a job has had, and how long the next one waits.

use contract::attempt::Attempt;
use contract::exit::FailureReason;
use contract::progress::{RankFailure, RunReport};
use crds::v1alpha1::{Backoff, Restart};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observe::Observed;
use super::pods::PodView;
use super::restart::{Failure, Member, Why, in_place};
use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::retry::growing_seconds;

/// How long Kubernetes may take to find out that a node is away.
const UNTIL_TAINTED: SignedDuration = SignedDuration::from_secs(120);

/// A program that ran for so long since the last restart had not merely failed again.
const SURELY_FRUITFUL: SignedDuration = SignedDuration::from_secs(600);

/// The restarts of a job up to an attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restarts {
    /// How many.
    pub restarts: u32,
    /// Those that count towards the limit.
    pub counted: u32,
    /// The latest that replaced the workers.
    pub last: Option<Restart>,
}

impl Restarts {
    /// Restarts up to this attempt. Those that the status does not know are taken for such as count, but for one
    /// after a worker was lost and came back by itself.
    pub fn until(observed: &Observed, attempt: Attempt) -> Self {
        let status = &observed.status;
        let unknown = attempt.since(status.attempt.unwrap_or_default());
        let cause = in_place(observed, attempt).and_then(|in_place| in_place.cause);
        let lost =
            |cause: &RankFailure| cause.rank.is_none() && cause.reason == FailureReason::PeerLost;
        let free = u32::from(cause.is_some_and(lost)).min(unknown);
        Self {
            restarts: status.restarts + unknown,
            counted: status.counted_restarts + unknown - free,
            last: status.last_restart.clone(),
        }
    }

    /// One more, which replaces the workers.
    pub fn begin(&mut self, restart: Restart, counted: bool) {
        self.restarts += 1;
        self.counted += u32::from(counted);
        self.last = Some(restart);
    }
}

/// What the status will say of a restart that begins now.
pub fn restart(
    observed: &Observed,
    members: &[Member],
    failure: &Failure,
    now: Timestamp,
) -> Restart {
    let told = observed.progress.as_ref().map(|progress| &progress.report);
    let last_words = observed.pods.iter().filter_map(PodView::last_words);
    let reports: Vec<&RunReport> = last_words.chain(told).collect();
    let seen = reports.iter().map(|report| &report.progress);
    let seen = seen.chain(&observed.status.progress);
    let seen = seen.map(|progress| progress.step).max().unwrap_or(0);
    let reported = reports
        .iter()
        .filter_map(|report| report.checkpoint.as_ref());
    let known = reported.chain(&observed.status.checkpoint);
    let step = known.map(|checkpoint| checkpoint.step).max().unwrap_or(0);
    // Of a program that reports nothing, time tells that it did something.
    let silent = reports.iter().all(|report| report.progress.steps == 0)
        && observed.status.progress.is_none();
    let long_ago = |last: &Restart| silent && now.duration_since(last.time.0) >= SURELY_FRUITFUL;
    let fruitless = match &observed.status.last_restart {
        Some(last) if step <= last.step && seen <= last.reached && !long_ago(last) => {
            last.fruitless.saturating_add(1)
        }
        _ => 0,
    };
    let (avoid, until) = lost_nodes(observed, members, failure, now);
    Restart {
        time: Time(now),
        step,
        reached: observed
            .status
            .last_restart
            .as_ref()
            .map_or(seen, |last| last.reached.max(seen)),
        fruitless,
        avoid,
        avoid_until: until.map(Time),
    }
}

/// Where a worker was that the others lost touch with, now or a moment ago, and until when that counts: until Kubernetes
/// knows that the node is away, it would put another one there. Later restarts for other reasons do not prolong it: in
/// the end all nodes would be kept off, and so none.
fn lost_nodes(
    observed: &Observed,
    members: &[Member],
    failure: &Failure,
    now: Timestamp,
) -> (Vec<String>, Option<Timestamp>) {
    let latest = observed
        .pods
        .iter()
        .rfind(|pod| pod.index == failure.worker);
    let lost = latest.and_then(|pod| pod.node.clone());
    let lost = lost.filter(|_| failure.why == Why::Lost);
    // More may have been lost at the same time.
    let others = members.iter().filter_map(|member| match member {
        Member::Lost { pod, .. } => pod.node.clone(),
        _ => None,
    });
    let lost: Vec<String> = others.chain(lost).collect();
    let before = observed.status.last_restart.as_ref();
    let until = |restart: &Restart| restart.avoid_until.as_ref().map(|until| until.0);
    let recent = before.filter(|restart| until(restart).is_some_and(|until| now < until));
    let until = if lost.is_empty() {
        recent.and_then(until)
    } else {
        now.checked_add(UNTIL_TAINTED).ok()
    };
    let before = recent.map(|restart| restart.avoid.clone());
    let mut nodes: Vec<String> = before.into_iter().flatten().chain(lost).collect();
    nodes.sort();
    nodes.dedup();
    (nodes, until)
}

/// How long the workers of a restart wait after so many that brought the run no further.
pub fn wait(valid: &ValidJob, observed: &Observed, fruitless: u32) -> SignedDuration {
    if fruitless == 0 {
        return SignedDuration::ZERO;
    }
    let Backoff {
        initial_seconds,
        max_seconds,
    } = valid.failure_policy.backoff;
    let seconds = growing_seconds(&observed.id.uid, fruitless, initial_seconds, max_seconds);
    SignedDuration::from_secs(seconds.into())
}

/// Until when the workers of the latest restart wait, and what to say of it.
pub fn until(valid: &ValidJob, observed: &Observed) -> Option<(Timestamp, WaitingOn)> {
    let restart = observed.status.last_restart.as_ref()?;
    let wait = wait(valid, observed, restart.fruitless);
    let waiting_on = WaitingOn::BackOff {
        fruitless: restart.fruitless,
        seconds: wait.as_secs() as u32,
    };
    Some((restart.time.0.checked_add(wait).ok()?, waiting_on))
}
