//! Who the workers of a job are: its pods, what the status knows of pods that are gone, and whom the agents miss.

use contract::attempt::Attempt;
use contract::progress::LostWorker;
use crds::conditions::ConditionType;
use crds::names;
use crds::v1alpha1::WorkerState;
use jiff::{SignedDuration, Timestamp};

use super::observe::Observed;
use super::pods::{PodState, PodView};
use super::restart::Member;
use super::validate::ValidJob;
use crate::conditions::find;

/// The latest attempt that status, pods or agents know. A status restored from a backup cannot bring an
/// earlier one back.
pub fn present_attempt(observed: &Observed) -> Attempt {
    let of_pods = observed.pods.iter().map(PodView::attempt);
    of_pods
        .chain(observed.status.attempt)
        .chain(observed.progress.as_ref().map(|progress| progress.attempt))
        .max()
        .unwrap_or_default()
}

/// The workers of the present incarnation, by index.
pub fn members<'a>(valid: &ValidJob, observed: &'a Observed, attempt: Attempt) -> Vec<Member<'a>> {
    let status = &observed.status;
    let mut members = vec![Member::Missing; valid.layout.replicas as usize];
    let lost = lost(observed, attempt);
    // The status names pods of its own attempt only.
    let current = status
        .attempt
        .is_some_and(|known| known.incarnation == attempt.incarnation);
    for worker in status.workers.iter().filter(|_| current) {
        if worker.state == WorkerState::Replaced {
            continue;
        }
        if let Some(member) = members.get_mut(worker.index as usize) {
            *member = Member::Gone {
                index: worker.index,
                pod: &worker.pod,
                succeeded: worker.state == WorkerState::Succeeded,
            };
        }
    }
    // Of a worker's pods the latest comes last.
    for pod in &observed.pods {
        if pod.incarnation == attempt.incarnation
            && pod.number >= least_number(observed, attempt, pod.index)
            && let Some(member) = members.get_mut(pod.index as usize)
        {
            let lost = lost.iter().find(|lost| {
                (lost.worker, lost.number) == (pod.index, pod.number) && !pod.deleting
            });
            *member = match lost {
                Some(lost) if pod.state == PodState::Running => Member::Lost {
                    pod,
                    message: &lost.message,
                },
                _ => Member::Pod(pod),
            };
        }
    }
    if let Some(told) = &observed.progress {
        lose_with_worker_0(&mut members, told.node_rank);
    }
    members
}

/// Who lost touch with worker 0 cannot tell of others, since that was worker 0's to know. When its node is cut off,
/// those on the same node are lost too, unless the one that tells is there itself.
fn lose_with_worker_0(members: &mut [Member], teller: u32) {
    let Some(Member::Lost { pod: first, .. }) = members.first() else {
        return;
    };
    let node = first.node.as_deref();
    let is_there = |member: &Member| match member {
        Member::Pod(pod) | Member::Lost { pod, .. } => pod.node.as_deref() == node,
        Member::Gone { .. } | Member::Missing => false,
    };
    if members.get(teller as usize).is_none_or(is_there) {
        return;
    }
    for member in members.iter_mut().skip(1) {
        if let Member::Pod(pod) = member
            && pod.state == PodState::Running
            && !pod.deleting
            && pod.node.as_deref() == node
        {
            *member = Member::Lost {
                pod,
                message: "it is on the node of worker 0, which the others lost touch with",
            };
        }
    }
}

/// The workers that the agents of this incarnation lost touch with.
fn lost(observed: &Observed, attempt: Attempt) -> &[LostWorker] {
    let told = observed.progress.as_ref();
    let told = told.filter(|told| told.attempt.incarnation == attempt.incarnation);
    told.map_or(&[], |told| &told.lost)
}

/// How long workers that run may take to find each other until those who do not are named.
const TIME_TO_JOIN: SignedDuration = SignedDuration::from_secs(10);

/// The workers that run and have not joined the others although they had time to; `None` while worker 0, which alone
/// knows, does not tell.
pub fn absent(observed: &Observed, now: Timestamp) -> Option<&[u32]> {
    let absent = not_joined(observed)?;
    let late = joined_by(observed).is_some_and(|by| by <= now);
    Some(if late { absent } else { &[] })
}

/// When those who have not joined are named, where there are any.
pub fn joined_by(observed: &Observed) -> Option<Timestamp> {
    not_joined(observed).filter(|absent| !absent.is_empty())?;
    let ready = find(&observed.status.conditions, ConditionType::WorkersReady)?;
    let since = (ready.status == "True").then_some(ready.last_transition_time.0)?;
    since.checked_add(TIME_TO_JOIN).ok()
}

/// Those that worker 0 does not know yet.
fn not_joined(observed: &Observed) -> Option<&[u32]> {
    let attempt = observed.status.attempt?;
    let told = observed.progress.as_ref();
    let told = told.filter(|told| told.node_rank == 0)?;
    (told.attempt.incarnation == attempt.incarnation).then_some(&told.absent)
}

/// The number of the first pod of a worker that was not given up for another.
pub fn least_number(observed: &Observed, attempt: Attempt, index: u32) -> u32 {
    let Some(known) = observed.status.attempt else {
        return 0;
    };
    let listed = observed.status.workers.iter();
    let mut listed = listed.filter(|_| known.incarnation == attempt.incarnation);
    let Some(worker) = listed.find(|worker| worker.index == index) else {
        return 0;
    };
    let number = names::worker_pod_number(&observed.id.name, index, &worker.pod);
    let given_up = u32::from(worker.state == WorkerState::Replaced);
    number.unwrap_or_default() + given_up
}
