//! The status that follows from what was observed, planned and applied. Pure; one patch writes it.

use std::collections::BTreeMap;

use contract::paths;
use contract::progress::{
    AgentProgress, Phase as RunPhase, RunReport, Straggler, failure_sentence,
};
use crds::conditions::{ConditionType, Reason};
use crds::names;
use crds::v1alpha1::{
    AdmissionStatus, FailureRecord, FetchStatus, MAX_FAILURES, MAX_WARNINGS, State, WorkerState,
    WorkerStatus, YoloTrainingJobStatus,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::display::display;
use super::members::{absent, members};
use super::observe::Observed;
use super::plan::{JobFailure, Phase, Plan, name_taken};
use super::pods::{PodState, PodView};
use super::queue::QueueView;
use super::restart::{self, Member, Why};
use super::state::{self, Outlook};
use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::conditions::{find, merge};

/// What carrying out a plan did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Pods that were created, by worker.
    pub created: BTreeMap<u32, String>,
    /// The first worker that cannot be created, since the API server refuses its pod or what that needs, and what it said.
    pub refused: Option<(u32, String)>,
    /// Whether that is the configuration.
    pub unfrozen: bool,
    /// Why nothing could be put into the job's queue for it.
    pub not_queued: Option<String>,
}

/// The new status of a valid job.
pub fn status(
    valid: &ValidJob,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> YoloTrainingJobStatus {
    if matches!(plan.phase, Phase::Deleting | Phase::Ended) {
        return as_it_was(observed);
    }
    let old = &observed.status;
    let workers = workers(valid, observed, plan, applied);
    let ready = workers
        .iter()
        .filter(|worker| matches!(worker.state, WorkerState::Running | WorkerState::Succeeded))
        .count() as u32;
    let placed = workers
        .iter()
        .filter(|worker| worker.node.is_some())
        .count() as u32;
    let report = report(observed, plan);
    let warnings = warnings(valid, observed, plan, report.as_ref());
    let admission = admission(observed, plan);
    let mut refused;
    let mut plan = plan;
    let not_made = applied.refused.as_ref().map(|(_, message)| message);
    if let (Phase::Queued(WaitingOn::Queue { queue, .. }), Some(message)) =
        (&plan.phase, applied.not_queued.as_ref().or(not_made))
    {
        refused = plan.clone();
        refused.phase = Phase::Queued(WaitingOn::queue(queue, Some(message)));
        plan = &refused;
    }
    let absent = absent(observed, now);
    let outlook = Outlook {
        plan,
        old,
        job: &observed.id.name,
        max_restarts: valid.failure_policy.max_restarts,
        in_place: restart::in_place(observed, plan.attempt),
        suspend: valid.run.suspend,
        blocked: name_taken(valid, observed),
        total: valid.layout.replicas,
        ready,
        placed,
        admission: admission.as_ref(),
        config: &observed.config,
        unfrozen: refusal(applied)
            .filter(|_| applied.unfrozen)
            .map(|(_, refused)| refused),
        waiting: waiting(valid, observed, plan, applied),
        ranks_started: ranks_started(observed, plan),
        slow_check: told(observed, plan).and_then(slow_check),
        silent: is_silent(observed, plan).then_some(paths::AGENT_PORT),
        absent: absent.map(|absent| {
            let workers = workers.iter();
            workers
                .filter(|worker| absent.contains(&worker.index))
                .collect()
        }),
        report: report.as_ref(),
        other_program: valid.workers.container.is_some(),
    };
    let conditions = merge(
        &old.conditions,
        &state::conditions(&outlook),
        observed.generation,
        now,
    );
    finish(
        YoloTrainingJobStatus {
            restarts: plan.restarts.restarts,
            counted_restarts: plan.restarts.counted,
            last_restart: plan.restarts.last.clone(),
            attempt: Some(plan.attempt),
            failures: failures(observed, plan),
            straggler: straggler(observed, plan),
            waiting_on: state::waiting_on(&outlook).map(|text| shorten(&text, 1024)),
            admission,
            fetch: fetch(observed, plan, applied),
            ready_workers: ready,
            total_workers: valid.layout.replicas,
            workers,
            conditions,
            ..take_over(old, report, warnings)
        },
        observed,
        &plan.phase,
        now,
    )
}

/// The new status of a job whose spec cannot be obeyed.
pub fn refused_status(observed: &Observed, plan: &Plan, now: Timestamp) -> YoloTrainingJobStatus {
    let Phase::Failed(JobFailure::Invalid(refusal)) = &plan.phase else {
        return as_it_was(observed);
    };
    let old = &observed.status;
    let conditions = merge(
        &old.conditions,
        &state::refused(&refusal.to_string()),
        observed.generation,
        now,
    );
    finish(
        YoloTrainingJobStatus {
            conditions,
            waiting_on: None,
            ..old.clone()
        },
        observed,
        &plan.phase,
        now,
    )
}

/// The status of a job in which nothing changes any more, after its latest generation was looked at.
fn as_it_was(observed: &Observed) -> YoloTrainingJobStatus {
    YoloTrainingJobStatus {
        observed_generation: observed.generation,
        ..observed.status.clone()
    }
}

/// The text with at most `limit` characters.
pub fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// State, times and columns, which follow from the rest.
fn finish(
    mut status: YoloTrainingJobStatus,
    observed: &Observed,
    phase: &Phase,
    now: Timestamp,
) -> YoloTrainingJobStatus {
    let done = matches!(phase, Phase::Complete | Phase::Failed(_));
    status.observed_generation = observed.generation;
    status.state = Some(state::of(&status.conditions));
    if matches!(phase, Phase::Suspended | Phase::Queued(_)) {
        status.start_time = None;
    } else {
        status.start_time.get_or_insert(Time(now));
    }
    if done {
        status.completion_time.get_or_insert(Time(now));
    }
    status.display = Some(display(
        status.ready_workers,
        status.total_workers,
        status.progress.as_ref(),
        status.latest.as_ref(),
        status.state == Some(State::Running),
    ));
    status
}

/// The old status with what a report says. What it does not say yet (after a restart, before the
/// checkpoint is read) stays.
fn take_over(
    old: &YoloTrainingJobStatus,
    report: Option<RunReport>,
    warnings: Option<Vec<String>>,
) -> YoloTrainingJobStatus {
    let mut status = old.clone();
    let Some(report) = report else {
        return status;
    };
    if report.progress.steps > 0 {
        let begun = status
            .progress
            .and_then(|progress| progress.first_step_time);
        let mut progress = report.progress;
        progress.first_step_time = progress.first_step_time.or(begun);
        status.progress = Some(progress);
    }
    status.latest = report.latest.or(status.latest);
    status.best = report.best.or(status.best);
    status.checkpoint = report.checkpoint.or(status.checkpoint);
    status.best_weights = report.best_weights.or(status.best_weights);
    status.skipped_images = status.skipped_images.max(report.skipped_images);
    status.warnings = warnings.unwrap_or(status.warnings);
    status
}

/// What agents and ranks warn of; `None` where nothing new was heard.
fn warnings(
    valid: &ValidJob,
    observed: &Observed,
    plan: &Plan,
    report: Option<&RunReport>,
) -> Option<Vec<String>> {
    let told = told(observed, plan);
    let of_agents = told.map_or(&[][..], |told| &told.warnings);
    let of_ranks = report.map_or(&[][..], |report| &report.warnings);
    // That there are none any more: only worker 0 knows of all, once it has looked at the data set, and its last words
    // leave them out when they become too long.
    let knows_all = |told: &AgentProgress| {
        let looks = matches!(told.report.phase, RunPhase::Starting | RunPhase::Rendezvous);
        told.node_rank == 0
            && told.started
            && (!looks || valid.workers.container.is_some())
            && report == Some(&told.report)
    };
    let warnings = of_agents.iter().chain(of_ranks);
    let warnings: Vec<String> = warnings
        .take(MAX_WARNINGS)
        .map(|warning| shorten(warning, 512))
        .collect();
    (!warnings.is_empty() || told.is_some_and(knows_all)).then_some(warnings)
}

/// The last failures, with their nodes. One attempt has one: a plan that is made again tells no new one.
fn failures(observed: &Observed, plan: &Plan) -> Vec<FailureRecord> {
    let mut failures = observed.status.failures.clone();
    for failure in &plan.failures {
        if failures
            .last()
            .is_none_or(|last| last.attempt < failure.attempt)
        {
            failures.push(FailureRecord {
                node: node_of(&observed.pods, &observed.status.workers, failure),
                ..failure.clone()
            });
        }
    }
    let surplus = failures.len().saturating_sub(MAX_FAILURES);
    failures.split_off(surplus)
}

/// The node of a worker that failed: that of the pod which it had then, not of one that was made since.
fn node_of(pods: &[PodView], known: &[WorkerStatus], failure: &FailureRecord) -> Option<String> {
    let pods = pods.iter().filter(|pod| {
        pod.index == failure.worker && pod.incarnation == failure.attempt.incarnation
    });
    let (then, since): (Vec<_>, Vec<_>) = pods.partition(|pod| pod.made_for <= failure.attempt);
    if let Some(pod) = then.iter().max_by_key(|pod| pod.number) {
        return pod.node.clone();
    }
    let mut known = known.iter();
    let known = known.find(|worker| worker.index == failure.worker)?;
    let is_successor = since.iter().any(|pod| pod.name == known.pod);
    known.node.clone().filter(|_| !is_successor)
}

/// What rank 0 last said in this incarnation: its final words when it has ended, else what the agent
/// serves.
fn report(observed: &Observed, plan: &Plan) -> Option<RunReport> {
    let incarnation = plan.attempt.incarnation;
    let last_words = observed
        .pods
        .iter()
        .rfind(|pod| pod.index == 0 && pod.incarnation + u32::from(leaving(plan)) == incarnation)
        .and_then(|pod| pod.last_words().cloned());
    let polled = || {
        let progress = observed.progress.as_ref()?;
        let mut report = progress.report.clone();
        if progress.attempt != plan.attempt {
            // Numbers stay; that its ranks train was said of others.
            report.phase = RunPhase::Starting;
        }
        (progress.attempt.incarnation == incarnation).then_some(report)
    };
    last_words.or_else(polled)
}

/// What the agents of the present gang last told.
fn told<'a>(observed: &'a Observed, plan: &Plan) -> Option<&'a AgentProgress> {
    let told = observed.progress.as_ref()?;
    (told.attempt == plan.attempt && plan.phase == Phase::Gang).then_some(told)
}

/// What the worker that answers waits for before it starts ranks.
fn slow_check(told: &AgentProgress) -> Option<String> {
    let slow = told.slow_check.as_ref()?;
    Some(failure_sentence(told.node_rank, None, slow))
}

/// Whether no agent of the present workers has answered for long. An operator that has just begun has not asked yet.
fn is_silent(observed: &Observed, plan: &Plan) -> bool {
    let old = &observed.status;
    let known = find(&old.conditions, ConditionType::PreflightPassed)
        .is_some_and(|known| known.reason == Reason::NotReachable.as_str());
    let not_asked = known && old.attempt == Some(plan.attempt) && told(observed, plan).is_none();
    observed.silent == Some(plan.attempt.incarnation) || not_asked
}

/// Whether the agents have started ranks: they do that together, when all are content.
fn ranks_started(observed: &Observed, plan: &Plan) -> bool {
    // Agents of an earlier version do not say so themselves.
    told(observed, plan).is_some_and(|told| told.started || told.report.phase != RunPhase::Starting)
}

fn straggler(observed: &Observed, plan: &Plan) -> Option<Straggler> {
    told(observed, plan)?.straggler.clone()
}

/// What the job's queue gave it, while it has it.
fn admission(observed: &Observed, plan: &Plan) -> Option<AdmissionStatus> {
    match (&observed.queue, &plan.phase) {
        (_, Phase::Queued(_) | Phase::Suspended) => None,
        (QueueView::Entered(entry), _) => entry.admission.clone(),
        _ => observed.status.admission.clone(),
    }
}

/// Whether the pods of the incarnation before are the latest.
fn leaving(plan: &Plan) -> bool {
    matches!(
        plan.phase,
        Phase::Restarting(_) | Phase::Suspended | Phase::Queued(_)
    )
}

/// Every worker as the status lists it.
fn workers(
    valid: &ValidJob,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
) -> Vec<WorkerStatus> {
    let stopped = |pod: &PodView| plan.stop.contains(&pod.name) && !pod.ended();
    let members = members(valid, observed, plan.attempt);
    let listed = (0..).zip(&members).filter_map(|(index, member)| {
        if let Some(pod) = applied.created.get(&index) {
            return Some(pending(index, pod));
        }
        match member {
            Member::Pod(pod) | Member::Lost { pod, .. } => Some(worker(pod, stopped(pod))),
            Member::Gone { index, pod, .. } => {
                let known = observed.status.workers.iter().find(|w| w.index == *index);
                let mut gone = known.cloned().unwrap_or_else(|| blank(*index, pod));
                if gone.state != WorkerState::Succeeded {
                    gone.state = WorkerState::Failed;
                    gone.reason = Some(Reason::PodDeleted.as_str().to_owned());
                    gone.message = Some(format!("its pod {pod} was deleted"));
                }
                Some(gone)
            }
            // Else the pod that was given up would count again.
            Member::Missing => listed_as_replaced(observed, index, plan.attempt),
        }
    });
    let mut listed: Vec<WorkerStatus> = listed.collect();
    // Also where no other can be created at the moment: what was given up must not count again.
    if let Phase::Replacing { failure, workers } = &plan.phase {
        for index in workers {
            if applied.created.contains_key(index) {
                continue;
            }
            let same = |worker: &&mut WorkerStatus| worker.index == *index;
            if let Some(worker) = listed.iter_mut().find(same) {
                worker.state = WorkerState::Replaced;
                worker.node = None;
                worker.reason = Some(failure.why.as_str().to_owned());
                worker.message = Some("another pod takes its place".to_owned());
            }
        }
    }
    listed
}

/// What the status says of a worker that was given up in this incarnation. Those of others are over.
fn listed_as_replaced(
    observed: &Observed,
    index: u32,
    attempt: contract::attempt::Attempt,
) -> Option<WorkerStatus> {
    let known = observed.status.attempt?;
    let present = known.incarnation == attempt.incarnation;
    let mut listed = observed.status.workers.iter().filter(|_| present);
    let replaced = |worker: &&WorkerStatus| worker.state == WorkerState::Replaced;
    listed
        .find(|worker| worker.index == index)
        .filter(replaced)
        .cloned()
}

/// A worker whose pod was just created.
pub(super) fn pending(index: u32, pod: &str) -> WorkerStatus {
    waits(blank(index, pod), &WaitingOn::ContainersStarting)
}

fn blank(index: u32, pod: &str) -> WorkerStatus {
    WorkerStatus {
        index,
        pod: pod.to_owned(),
        node: None,
        state: WorkerState::Pending,
        reason: None,
        message: None,
        exit_code: None,
    }
}

fn waits(mut worker: WorkerStatus, waiting_on: &WaitingOn) -> WorkerStatus {
    worker.reason = Some(waiting_on.reason().as_str().to_owned());
    worker.message = Some(shorten(&waiting_on.message(), 512));
    worker
}

fn worker(pod: &PodView, stopped: bool) -> WorkerStatus {
    let mut status = WorkerStatus {
        node: pod.node.clone(),
        ..blank(pod.index, &pod.name)
    };
    match &pod.state {
        PodState::Waiting(waiting_on) => status = waits(status, waiting_on),
        PodState::Running => status.state = WorkerState::Running,
        PodState::Succeeded(_) => {
            status.state = WorkerState::Succeeded;
            status.exit_code = Some(0);
        }
        PodState::Failed(ended) => {
            status.state = WorkerState::Failed;
            status.reason = Some(Why::of(ended).as_str().to_owned());
            status.message = Some(shorten(&ended.message, 512));
            status.exit_code = ended.exit_code;
        }
        PodState::Evicted(message) => {
            status.state = WorkerState::Failed;
            status.reason = Some(Reason::PodEvicted.as_str().to_owned());
            status.message = Some(shorten(message, 512));
        }
    }
    if stopped {
        status.state = WorkerState::Stopped;
        status.reason = None;
        status.message = None;
    }
    status
}

/// How the fetch of the data set stands once the plan is carried out.
fn fetch(observed: &Observed, plan: &Plan, applied: &Applied) -> Option<FetchStatus> {
    let planned = plan.fetch_status.clone();
    let mut status = planned.or_else(|| {
        let mut known = observed.status.fetch.clone()?;
        // Workers begin with the data set; a cache of jobs that lags behind that of pods does not know yet.
        if !observed.pods.is_empty() {
            known.state = WorkerState::Succeeded;
        }
        Some(known)
    })?;
    if let Some(number) = plan.fetch.filter(|_| applied.refused.is_none()) {
        status.pod = names::fetch_pod(&observed.id.name, number);
    }
    Some(status).filter(|status| !status.pod.is_empty())
}

/// The first worker that the API server keeps from being created, and why.
fn refusal(applied: &Applied) -> Option<(u32, WaitingOn)> {
    let (index, message) = applied.refused.as_ref()?;
    let message = shorten(message, 512);
    Some((*index, WaitingOn::CreateRefused { message }))
}

/// What workers wait for once the plan is carried out.
fn waiting(
    valid: &ValidJob,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
) -> Vec<(u32, WaitingOn)> {
    if let Some(refused) = refusal(applied) {
        return vec![refused];
    }
    let members = members(valid, observed, plan.attempt);
    let each = (0..)
        .zip(&members)
        .filter_map(|(index, member)| match member {
            Member::Pod(PodView {
                state: PodState::Waiting(waiting_on),
                ..
            }) => Some((index, waiting_on.clone())),
            Member::Missing => Some((
                index,
                if applied.created.contains_key(&index) {
                    WaitingOn::ContainersStarting
                } else {
                    WaitingOn::PodCreation
                },
            )),
            _ => None,
        });
    each.collect()
}

/// Whether the status says that the job has ended.
pub fn has_ended(status: &YoloTrainingJobStatus) -> bool {
    matches!(status.state, Some(State::Complete | State::Failed))
        || [ConditionType::Complete, ConditionType::Failed]
            .into_iter()
            .any(|kind| find(&status.conditions, kind).is_some_and(|c| c.status == "True"))
}

#[cfg(test)]
mod tests;
