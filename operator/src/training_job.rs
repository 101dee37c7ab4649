//! One `YoloTrainingJob`: observe → validate → plan → build → apply → status.

pub mod back_off;
pub mod build;
pub mod check;
pub mod cluster;
pub mod controller;
pub mod display;
pub mod gang;
pub mod kubernetes;
pub mod members;
pub mod news;
pub mod observe;
pub mod pace;
pub mod plan;
pub mod pods;
pub mod prefetch;
pub mod queue;
pub mod restart;
pub mod state;
pub mod status;
#[cfg(test)]
mod tests;
pub mod unseen;
pub mod validate;
pub mod waiting;

use contract::config::Images;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use self::build::{BuildError, build};
use self::cluster::{ApplyError, Cluster, WriteError};
use self::observe::{
    ConfigView, EndsSeen, ObserveError, Observed, allow_for_scheduling, remember_ends,
};
use self::pace::{Pace, Urgency, due, urgency};
use self::plan::{Phase, Plan, plan, refuse};
use self::status::{Applied, refused_status, status};
use self::unseen::Unseen;
use self::validate::{InvalidSpec, ValidJob, validate};
use crate::events::events;

/// What is remembered of a job between reconciles. Losing it costs at most a little patience.
#[derive(Clone, Debug, Default)]
pub struct JobMemory {
    /// When the ends of its pods were first seen.
    pub ends: EndsSeen,
    /// When its status was last written.
    pub written: Option<Timestamp>,
    /// What that made of the job, until the cache has it.
    pub unseen: Unseen,
    /// Errors in a row.
    pub failures: u32,
    /// Why the object cannot be read, when its status says so already.
    pub unreadable: Option<String>,
}

/// What does not change from job to job.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Images of new jobs.
    pub images: Images,
    /// How often statuses are written.
    pub pace: Pace,
}

/// What a reconcile leaves to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When to look again although nothing changes.
    pub wake_at: Option<Timestamp>,
    /// The reason of the restart that was begun.
    pub restarted: Option<&'static str>,
}

/// A reconcile did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Reading the cluster.
    #[error("observing the job failed")]
    Observe(#[from] ObserveError),
    /// Building objects.
    #[error("building the job's objects failed")]
    Build(#[from] BuildError),
    /// Writing objects.
    #[error("applying the job's objects failed")]
    Apply(#[from] ApplyError),
    /// Writing the status.
    #[error("writing the job's status failed")]
    Status(#[from] WriteError),
    /// The API server refused to create a pod, or what stands in a queue for the job.
    #[error("the API server refused to create an object: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
}

impl ReconcileError {
    /// The kind of error, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Build(_) => "build",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
            Self::Refused { .. } => "refused",
        }
    }
}

/// A job with what was decided for it.
struct Decided {
    observed: Observed,
    job: Result<ValidJob, InvalidSpec>,
    plan: Plan,
}

/// Takes one job one step further. `cached` is what the watch caches know of it.
pub async fn advance<C: Cluster>(
    cluster: &C,
    job: &YoloTrainingJob,
    cached: Observed,
    policy: &Policy,
    memory: &mut JobMemory,
    now: Timestamp,
) -> Result<Outcome, ReconcileError> {
    let mut decided = decide(job, cached, memory, now);
    // A status that knows less than the pods is mostly one that the cache has not seen yet.
    let known = decided.observed.status.attempt.unwrap_or_default();
    let ended = decided.plan.phase == Phase::Ended;
    // Of a job that has ended the cache knows a part, which must not be written over the whole.
    let status = &decided.observed.status;
    let edited =
        status::has_ended(status) && decided.observed.generation != status.observed_generation;
    if edited || decided.plan.acts() || (known < decided.plan.attempt && !ended) {
        let id = decided.observed.id.clone();
        let progress = decided.observed.progress.take();
        let silent = decided.observed.silent;
        let (job, mut fresh) = match cluster.fresh(&id, progress).await {
            Err(ObserveError::Gone) => return Ok(Outcome::default()),
            read => read?,
        };
        fresh.silent = silent;
        decided = decide(&job, fresh, memory, now);
    }
    let Decided {
        observed,
        job,
        plan,
    } = &mut decided;
    let mut outcome = Outcome {
        wake_at: plan.wake_at,
        restarted: None,
    };
    // Nobody looks for it again once the status says that the job has ended.
    if plan.unguard && plan.ends() {
        let unguarded = build::only_unguard(observed);
        cluster.apply(&observed.id, unguarded).await?;
        plan.unguard = false;
    }
    // What was decided is written down before it is carried out: a process that dies in between, or sees
    // its own deletions, must come to the same decision and the same cause.
    if plan.is_a_decision() {
        let decision = describe(job, observed, plan, &Applied::default(), now);
        write(cluster, observed, &decision, memory, now).await?;
        observed.status = decision;
        if let Phase::Restarting(failure) | Phase::Replacing { failure, .. } = &plan.phase {
            outcome.restarted = Some(failure.why.as_str());
        }
    }
    let mut applied = Applied::default();
    if plan.changes_objects() {
        let prepared = match job {
            Ok(valid) => build(valid, observed, plan, &policy.images)?,
            Err(_) => build::only_stop(observed, plan),
        };
        applied = cluster.apply(&observed.id, prepared).await?;
    }
    let new = describe(job, observed, plan, &applied, now);
    let urgency = urgency(&observed.status, &new);
    let pace = policy.pace.of_workers(new.total_workers);
    match due(urgency, memory.written, pace) {
        Some(when) if when <= now || urgency == Urgency::Now => {
            write(cluster, observed, &new, memory, now).await?;
            if new.attempt == Some(plan.attempt)
                && let Some(in_place) = restart::in_place(observed, plan.attempt)
            {
                outcome.restarted = outcome.restarted.or(Some(in_place.reason()));
            }
        }
        Some(later) => {
            outcome.wake_at = Some(outcome.wake_at.map_or(later, |at| at.min(later)));
        }
        None => {}
    }
    match applied
        .refused
        .map(|(_, message)| message)
        .or(applied.not_queued)
    {
        Some(message) => Err(ReconcileError::Refused { message }),
        None => Ok(outcome),
    }
}

fn decide(
    job: &YoloTrainingJob,
    mut observed: Observed,
    memory: &mut JobMemory,
    now: Timestamp,
) -> Decided {
    remember_ends(&mut observed, &mut memory.ends, now);
    let scheduled = allow_for_scheduling(&mut observed, now);
    let run = job.spec.run_policy();
    let guarded = job.spec.scheduling.pod_disruption_budget;
    let job = valid(job, &observed);
    let mut plan = match &job {
        Ok(valid) => plan(valid, &observed, now),
        Err(refusal) => refuse(&observed, refusal.clone(), run, now),
    };
    plan.unguard &= guarded;
    if let Some(at) = scheduled {
        plan.wake_by(at);
    }
    Decided {
        observed,
        job,
        plan,
    }
}

/// The job as it is planned: with as many workers as its queue admits.
pub(crate) fn valid(job: &YoloTrainingJob, observed: &Observed) -> Result<ValidJob, InvalidSpec> {
    // What began goes on by the rules that let it begin, whatever a later operator would refuse.
    let mut valid = match observed.config {
        ConfigView::Absent | ConfigView::Foreign => validate(job)?,
        ConfigView::Present | ConfigView::Frozen(_) => ValidJob::accepted(job),
    };
    queue::check(&valid, observed).map_err(|problem| InvalidSpec {
        problems: vec![problem],
    })?;
    valid.layout.replicas = queue::replicas(&valid, observed);
    Ok(valid)
}

fn describe(
    job: &Result<ValidJob, InvalidSpec>,
    observed: &Observed,
    plan: &Plan,
    applied: &Applied,
    now: Timestamp,
) -> YoloTrainingJobStatus {
    match job {
        Ok(valid) => status(valid, observed, plan, applied, now),
        Err(_) => refused_status(observed, plan, now),
    }
}

async fn write<C: Cluster>(
    cluster: &C,
    observed: &Observed,
    new: &YoloTrainingJobStatus,
    memory: &mut JobMemory,
    now: Timestamp,
) -> Result<(), WriteError> {
    let dated = YoloTrainingJobStatus {
        last_update_time: Some(MicroTime(now)),
        ..new.clone()
    };
    let version = cluster.write_status(&observed.id, &dated).await?;
    memory.unseen.wrote(version);
    memory.written = Some(now);
    for event in events(&observed.status, new) {
        cluster.publish(&observed.id, event).await;
    }
    Ok(())
}
