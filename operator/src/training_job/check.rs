//! What must hold for every plan. Tests check each plan they make against it.

use crds::v1alpha1::WorkerState;

use super::members::members;
use super::observe::Observed;
use super::plan::{Phase, Plan};
use super::pods::PodView;
use super::restart::Member;
use super::validate::ValidJob;

/// Every invariant that the plan breaks, in a sentence.
pub fn broken_invariants(valid: &ValidJob, observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            broken.push(text);
        }
    };
    if let Some(known) = observed.status.attempt {
        must(
            plan.attempt >= known,
            format!("attempt goes back from {known} to {}", plan.attempt),
        );
    }
    let latest = observed.pods.iter().map(|pod| pod.incarnation).max();
    must(
        latest.is_none_or(|incarnation| plan.attempt.incarnation >= incarnation),
        format!("attempt {} is before a pod's incarnation", plan.attempt),
    );
    let ending = matches!(
        plan.phase,
        Phase::Deleting | Phase::Ended | Phase::Complete | Phase::Failed(_)
    );
    must(
        !ending || !creates(plan),
        format!("a job that has ended gets new objects: {plan:?}"),
    );
    must(
        !matches!(plan.phase, Phase::Suspended | Phase::Queued(_)) || plan.create.is_empty(),
        format!("a job that is suspended or waits in a queue gets pods: {plan:?}"),
    );
    must(
        !plan.delete_job || plan.phase == Phase::Ended,
        "a job is deleted that has not ended".to_owned(),
    );
    let restarting = matches!(plan.phase, Phase::Restarting(_) | Phase::Replacing { .. });
    let present = members(valid, observed, plan.attempt);
    for index in 0..valid.layout.replicas {
        let created = plan.create.iter().filter(|pod| pod.index == index).count();
        must(created <= 1, format!("worker {index} gets {created} pods"));
        let there = stays(&present[index as usize], plan);
        must(
            !(there && created == 1),
            format!("worker {index} has a pod and gets another"),
        );
        let begins = restarting || plan.phase == Phase::Gang;
        let goes_on = begins && !plan.create.is_empty();
        let gone = matches!(
            present[index as usize],
            Member::Gone {
                succeeded: true,
                ..
            }
        );
        must(
            !goes_on || there || created == 1 || gone,
            format!("worker {index} has no pod and gets none"),
        );
    }
    must(
        plan.create
            .iter()
            .all(|pod| pod.index < valid.layout.replicas),
        "a pod is created for a worker that the job does not have".to_owned(),
    );
    for pod in &plan.create {
        let taken = observed
            .pods
            .iter()
            .map(|other| (other.index, other.number))
            .chain(observed.strangers.iter().copied())
            .any(|name| name == (pod.index, pod.number));
        must(!taken, format!("the name of a new pod is taken: {pod:?}"));
    }
    let stands_still = ending || matches!(plan.phase, Phase::Blocked(_));
    let before = |pod: &&PodView| pod.incarnation < plan.attempt.incarnation && !stands_still;
    for pod in observed.pods.iter().filter(before) {
        let retired = plan.retire.iter().find(|retired| retired.name == pod.name);
        // Two active pods of one worker would share a DNS name.
        must(
            !pod.active || retired.is_some_and(|retired| retired.release),
            format!("{} stays active in a later incarnation", pod.name),
        );
        must(
            pod.deleting || retired.is_some_and(|retired| retired.delete),
            format!("{} is left running in a later incarnation", pod.name),
        );
    }
    broken.extend(about_giving_up(observed, plan));
    broken.extend(about_fetching(valid, observed, plan));
    broken
}

/// Whether the worker has a pod that it keeps.
fn stays(member: &Member, plan: &Plan) -> bool {
    let (Member::Pod(pod) | Member::Lost { pod, .. }) = member else {
        return false;
    };
    let given_up = plan.retire.iter().any(|retired| retired.name == pod.name);
    // One that is on its way out already needs nothing more.
    let leaves = pod.deleting && !pod.active && matches!(plan.phase, Phase::Replacing { .. });
    !given_up && !leaves
}

/// Whether anything new comes to be.
fn creates(plan: &Plan) -> bool {
    let objects = plan.freeze || plan.expose || !plan.claims.is_empty();
    objects || plan.fetch.is_some() || !plan.create.is_empty()
}

/// Invariants of pods that are given up.
fn about_giving_up(observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut broken = Vec::new();
    for retired in &plan.retire {
        let mut pods = observed.pods.iter();
        let current = pods
            .find(|pod| pod.name == retired.name && pod.incarnation == plan.attempt.incarnation);
        let replaced = current.is_none_or(|pod| {
            let later = |index, number| index == pod.index && number > pod.number;
            let mut others = observed.pods.iter();
            let mut listed = observed.status.workers.iter();
            let given_up_now = matches!(
                &plan.phase,
                Phase::Replacing { workers, .. } if workers.contains(&pod.index)
            );
            given_up_now
                || others.any(|other| {
                    other.incarnation == pod.incarnation && later(other.index, other.number)
                })
                || listed.any(|worker| {
                    worker.index == pod.index
                        && (worker.pod != pod.name || worker.state == WorkerState::Replaced)
                })
        });
        if !replaced {
            broken.push(format!(
                "{} is of the present incarnation and given up for none",
                retired.name
            ));
        }
    }
    broken
}

/// Invariants of the fetch of a data set.
fn about_fetching(valid: &ValidJob, observed: &Observed, plan: &Plan) -> Vec<String> {
    let mut broken = Vec::new();
    let mut must = |holds: bool, text: String| {
        if !holds {
            broken.push(text);
        }
    };
    must(
        plan.fetch.is_none() || plan.create.is_empty(),
        format!("workers begin while their data set is fetched: {plan:?}"),
    );
    must(
        plan.phase != Phase::Suspended || plan.fetch.is_none(),
        format!("a suspended job fetches: {plan:?}"),
    );
    let fetched = plan.fetch_status.as_ref().map(|fetch| fetch.state);
    let begun = plan.attempt.incarnation > 0
        || !observed.pods.is_empty()
        || !observed.status.workers.is_empty();
    let there = !valid.fetches() || begun || fetched == Some(WorkerState::Succeeded);
    must(
        there || plan.create.is_empty(),
        format!("workers begin without their data set: {plan:?}"),
    );
    let mut fetches = observed.fetch.iter();
    must(
        plan.fetch.is_none() || !fetches.any(|pod| !pod.ended() && !pod.deleting),
        format!("two pods fetch the data set: {plan:?}"),
    );
    broken
}
