//! What a failed worker means for the job: try again from the last checkpoint, or fail.

use contract::attempt::Attempt;
use contract::exit::{FailureReason, Retry};
use contract::progress::{RankFailure, failure_sentence};
use crds::conditions::Reason;
use crds::v1alpha1::{FailureAction, FailureFacts, FailurePolicy, FailureRecord};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observe::Observed;
use super::pods::{Ended, PodState, PodView};
use super::status::shorten;

/// How long the results of the other workers are awaited when only echoes are known. Workers see a lost
/// peer within a fraction of a second, and kubelets report within one; longer would only delay restarts.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(2);

/// The same where they name one that still runs: longer than it keeps what the run wrote after a failure.
pub const SETTLE_NAMED: SignedDuration = SignedDuration::from_secs(45);

/// How much of a failure's message the status keeps.
const MESSAGE_LIMIT: usize = 1024;

/// Why a worker did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its own word, or that of its exit code.
    Reported(FailureReason),
    /// Its pod was deleted.
    PodDeleted,
    /// Its pod was taken away by the cluster.
    PodEvicted,
    /// It used more memory than its limit allows.
    OutOfLimit,
    /// The other workers lost touch with it.
    Lost,
}

impl Why {
    /// Why a worker ended.
    pub fn of(ended: &Ended) -> Self {
        if ended.out_of_limit {
            Self::OutOfLimit
        } else {
            Self::Reported(ended.reason)
        }
    }

    /// The word in conditions, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reported(reason) => reason.as_str(),
            Self::PodDeleted => Reason::PodDeleted.as_str(),
            Self::PodEvicted => Reason::PodEvicted.as_str(),
            Self::OutOfLimit => Reason::OOMKilled.as_str(),
            Self::Lost => Reason::WorkerLost.as_str(),
        }
    }

    /// Whether trying again can help, where no rule knows better.
    pub fn retry(self) -> Retry {
        match self {
            Self::Reported(reason) => reason.retry(),
            Self::PodDeleted | Self::PodEvicted | Self::Lost => Retry::Free,
            Self::OutOfLimit => Retry::Counted,
        }
    }

    /// Whether another worker's failure, or what becomes known of this one, explains more.
    fn is_echo(self) -> bool {
        match self {
            Self::Reported(reason) => reason.is_echo(),
            Self::Lost => true,
            Self::PodDeleted | Self::PodEvicted | Self::OutOfLimit => false,
        }
    }
}

/// A worker that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Index of the worker.
    pub worker: u32,
    /// The global rank that failed first, when one is known.
    pub rank: Option<u32>,
    /// Why, in a word.
    pub why: Why,
    /// The exit code of its container, where it has ended.
    pub exit_code: Option<i32>,
    /// Why, in a sentence.
    pub message: String,
}

impl Failure {
    fn facts(&self) -> FailureFacts<'_> {
        FailureFacts {
            reason: self.why.as_str(),
            retry: self.why.retry(),
            exit_code: self.exit_code,
            worker: Some(self.worker),
        }
    }

    /// What the status keeps of it, as the end of this attempt.
    pub fn record(&self, attempt: Attempt, now: Timestamp) -> FailureRecord {
        FailureRecord {
            time: Time(now),
            attempt,
            worker: self.worker,
            node: None,
            rank: self.rank,
            reason: self.why.as_str().to_owned(),
            exit_code: self.exit_code,
            message: shorten(&self.message, MESSAGE_LIMIT),
        }
    }

    /// The failure in a sentence that says where it happened.
    pub fn sentence(&self) -> String {
        failure_sentence(self.worker, self.rank, &self.message)
    }
}

/// A restart that agents made in living pods and that the status does not know yet, with its cause where an
/// agent told it.
#[derive(Clone, Copy, Debug)]
pub struct InPlace<'a> {
    /// What made them restart.
    pub cause: Option<&'a RankFailure>,
}

impl InPlace<'_> {
    /// The cause, in a word.
    pub fn reason(&self) -> &'static str {
        self.cause
            .map_or(Reason::Restarted.as_str(), |cause| cause.reason.as_str())
    }
}

/// Whether this attempt began in place since the status was written.
pub fn in_place(observed: &Observed, attempt: Attempt) -> Option<InPlace<'_>> {
    let known = observed.status.attempt?;
    if known.incarnation != attempt.incarnation || known.restart >= attempt.restart {
        return None;
    }
    let told = observed.progress.as_ref();
    let told = told.filter(|progress| progress.attempt == attempt);
    let told = told.and_then(|progress| progress.restarted_after.as_ref());
    let mut pods = observed.pods.iter();
    Some(InPlace {
        // A run can end before its agents were asked once more; then those that ended tell.
        cause: told.or_else(|| pods.find_map(|pod| pod.restarted_after(attempt))),
    })
}

/// What the status keeps of the failure that agents told with the beginning of this attempt in place.
pub fn told(observed: &Observed, attempt: Attempt, now: Timestamp) -> Option<FailureRecord> {
    let cause = in_place(observed, attempt)?.cause?;
    Some(FailureRecord {
        time: Time(now),
        attempt: Attempt {
            restart: attempt.restart - 1,
            ..attempt
        },
        worker: cause.worker,
        node: None,
        rank: cause.rank,
        reason: cause.reason.as_str().to_owned(),
        exit_code: Some(cause.exit_code.into()),
        message: shorten(&cause.message, MESSAGE_LIMIT),
    })
}

/// One worker of the present incarnation, as far as failures are concerned.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// Its pod is there.
    Pod(&'a PodView),
    /// Its pod runs, as far as the cluster knows, but the others lost touch with it.
    Lost {
        /// Its pod.
        pod: &'a PodView,
        /// How they noticed, in a sentence.
        message: &'a str,
    },
    /// The status knows a pod that is gone. Whether it had succeeded is all that is left of it.
    Gone {
        /// Index of the worker.
        index: u32,
        /// The pod's name.
        pod: &'a str,
        /// Whether the status says that it had succeeded.
        succeeded: bool,
    },
    /// Its pod was never created.
    Missing,
}

/// What becomes of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody failed.
    Healthy,
    /// Somebody failed, but only as an echo: look again at this time.
    Settle(Timestamp),
    /// Replace all workers, as one of the restarts that are counted or not.
    Restart {
        /// Why.
        failure: Failure,
        /// Whether it counts.
        counted: bool,
    },
    /// Replace these workers alone: the others wait in their pods.
    Replace {
        /// Why.
        failure: Failure,
        /// Their indexes.
        workers: Vec<u32>,
        /// Whether it counts.
        counted: bool,
    },
    /// The failure would only repeat itself, or a rule says so.
    Permanent(Failure),
    /// The failure policy allows no more restarts.
    Exhausted(Failure),
}

/// Judges the present incarnation after so many counted restarts.
pub fn judge(members: &[Member], restarts: u32, policy: &FailurePolicy, now: Timestamp) -> Verdict {
    let failures: Vec<(Failure, Option<Timestamp>)> = members.iter().filter_map(failure).collect();
    // Who waits for a node, an image or quota cannot join the others, and that is nobody's fault.
    let waits_for_others = members.iter().any(|member| match member {
        Member::Missing => true,
        Member::Pod(pod) => matches!(pod.state, PodState::Waiting(_)),
        Member::Lost { .. } | Member::Gone { .. } => false,
    });
    let action = |failure: &Failure| {
        let mut facts = failure.facts();
        if waits_for_others && failure.why == Why::Reported(FailureReason::RendezvousFailed) {
            facts.retry = Retry::Free;
        }
        policy.action(facts)
    };
    // What ends the job decides; then whatever is no echo of another worker's failure; then the lowest
    // worker, so that the choice does not depend on order.
    let Some((best, _)) = failures.iter().min_by_key(|(failure, _)| {
        (
            action(failure) != FailureAction::FailJob || failure.why.is_echo(),
            failure.why.is_echo(),
            failure.why != Why::Lost,
            failure.rank.is_none(),
            failure.rank,
            failure.worker,
        )
    }) else {
        return Verdict::Healthy;
    };
    let failure = best.clone();
    if let Some(workers) = replaceable(members)
        && failures
            .iter()
            .all(|(failure, _)| policy.allows_replacing_alone(failure.facts()))
    {
        let counted = action(&failure) == FailureAction::RestartInPlace;
        return if counted && restarts >= policy.max_restarts {
            Verdict::Exhausted(failure)
        } else {
            Verdict::Replace {
                failure,
                workers,
                counted,
            }
        };
    }
    let all_ended = members.iter().all(|member| match member {
        Member::Pod(pod) => pod.ended() || pod.deleting,
        Member::Gone { .. } => true,
        Member::Lost { .. } | Member::Missing => false,
    });
    // Of a lost worker the agents tell when they have looked for it long enough.
    let settled = members
        .iter()
        .any(|member| matches!(member, Member::Lost { .. }));
    if best.why.is_echo() && !all_ended && !settled {
        let first = failures.iter().filter_map(|(_, seen)| *seen).min();
        let patience = if named(members).is_some_and(|(_, runs)| runs) {
            SETTLE_NAMED
        } else {
            SETTLE
        };
        let until = first.unwrap_or(now).saturating_add(patience);
        let until = until.unwrap_or(now);
        if until > now {
            return Verdict::Settle(until);
        }
    }
    let failure = match named(members) {
        Some((named, _)) if best.why.is_echo() => named,
        _ => failure,
    };
    match action(&failure) {
        FailureAction::FailJob => Verdict::Permanent(failure),
        FailureAction::RestartGangIgnoringLimit => Verdict::Restart {
            failure,
            counted: false,
        },
        // What could be restarted in place was: these pods have ended.
        FailureAction::RestartGang | FailureAction::RestartInPlace
            if restarts < policy.max_restarts =>
        {
            Verdict::Restart {
                failure,
                counted: true,
            }
        }
        FailureAction::RestartGang | FailureAction::RestartInPlace => Verdict::Exhausted(failure),
    }
}

/// The failure of a rank because of which the others say that they ended, and whether its worker still runs: that one may
/// be bringing what the run wrote to its store, and tells by itself afterwards.
fn named(members: &[Member]) -> Option<(Failure, bool)> {
    let told = members.iter().filter_map(|member| match member {
        Member::Pod(pod) => match &pod.state {
            PodState::Failed(ended) if ended.reason.is_echo() => {
                let because = ended.result.as_ref()?.because.as_ref()?;
                (because.rank.is_some() && because.worker != pod.index).then_some(because)
            }
            _ => None,
        },
        _ => None,
    });
    let because = told.min_by_key(|because| (because.rank, because.worker))?;
    let runs = match members.get(because.worker as usize)? {
        Member::Pod(pod) => pod.state == PodState::Running && !pod.deleting,
        _ => false,
    };
    let failure = Failure {
        worker: because.worker,
        rank: because.rank,
        why: Why::Reported(because.reason),
        exit_code: Some(because.exit_code.into()),
        message: because.message.clone(),
    };
    Some((failure, runs))
}

/// The workers that are gone, if nothing else is wrong: the others wait or are on their way, and at least one is there.
fn replaceable(members: &[Member]) -> Option<Vec<u32>> {
    let mut gone = Vec::new();
    let mut waits = false;
    for (index, member) in (0..).zip(members) {
        let is_gone = match member {
            Member::Missing => false,
            Member::Gone {
                succeeded: true, ..
            } => return None,
            Member::Lost { .. } | Member::Gone { .. } => true,
            Member::Pod(pod) => match &pod.state {
                _ if pod.deleting => true,
                PodState::Evicted(_) => true,
                // An agent that could still say why it ended, and was not asked to, has told the others, and they end too.
                PodState::Failed(ended) if ended.result.is_none() && ended.exit_code.is_some() => {
                    true
                }
                PodState::Failed(_) | PodState::Succeeded(_) => return None,
                PodState::Waiting(_) => false,
                PodState::Running => {
                    waits = true;
                    false
                }
            },
        };
        if is_gone {
            gone.push(index);
        }
    }
    (waits && !gone.is_empty()).then_some(gone)
}

/// The failure of a worker with the time at which it was first seen; `None` when it has not failed.
fn failure(member: &Member) -> Option<(Failure, Option<Timestamp>)> {
    let pod = match member {
        Member::Pod(pod) => pod,
        Member::Lost { pod, message } => {
            let failure = Failure {
                worker: pod.index,
                rank: None,
                why: Why::Lost,
                exit_code: None,
                message: (*message).to_owned(),
            };
            return Some((failure, None));
        }
        Member::Gone {
            succeeded: true, ..
        }
        | Member::Missing => return None,
        Member::Gone { index, pod, .. } => {
            let failure = Failure {
                worker: *index,
                rank: None,
                why: Why::PodDeleted,
                exit_code: None,
                message: format!("its pod {pod} was deleted"),
            };
            return Some((failure, None));
        }
    };
    let (why, rank, message) = match &pod.state {
        PodState::Succeeded(_) => return None,
        PodState::Evicted(message) => (
            Why::PodEvicted,
            None,
            format!("its pod {} was taken away: {message}", pod.name),
        ),
        // A worker that is asked to stop says `Stopped`; who asked explains more.
        PodState::Failed(ended) if !(pod.deleting && ended.reason.is_echo()) => {
            (Why::of(ended), ended.rank, ended.message.clone())
        }
        _ if pod.deleting => (
            Why::PodDeleted,
            None,
            format!("its pod {} was deleted", pod.name),
        ),
        _ => return None,
    };
    if let Some(other) = of_another(pod) {
        return Some((other, pod.end_seen));
    }
    let failure = Failure {
        worker: pod.index,
        rank,
        why,
        exit_code: match &pod.state {
            PodState::Failed(ended) => ended.exit_code,
            _ => None,
        },
        message,
    };
    Some((failure, pod.end_seen))
}

/// The worker that this one lost touch with, or never met, when it ended because of that.
fn of_another(pod: &PodView) -> Option<Failure> {
    let PodState::Failed(ended) = &pod.state else {
        return None;
    };
    let because = ended.result.as_ref()?.because.as_ref()?;
    if pod.deleting || because.rank.is_some() {
        return None;
    }
    let (why, exit_code) = match because.reason {
        FailureReason::PeerLost if ended.reason.is_echo() => (Why::Lost, None),
        // Workers that never met lost nobody: that counts.
        FailureReason::RendezvousFailed if ended.reason == FailureReason::RendezvousFailed => {
            (Why::Reported(ended.reason), ended.exit_code)
        }
        _ => return None,
    };
    Some(Failure {
        worker: because.worker,
        rank: None,
        why,
        exit_code,
        message: because.message.clone(),
    })
}

#[cfg(test)]
mod tests;
