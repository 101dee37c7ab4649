//! The conditions of a job, and the one word that people read.

mod workers;

pub use self::workers::waiting_on;
use self::workers::{admitted, preflight, scheduled, workers_ready};

use std::fmt::Write as _;

use contract::progress::{Phase as RunPhase, Progress, RunReport};
use crds::conditions::{ConditionType, Reason};
use crds::names;
use crds::v1alpha1::{AdmissionStatus, State, WorkerStatus, YoloTrainingJobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::back_off::Restarts;
use super::display::duration;
use super::observe::ConfigView;
use super::plan::{JobFailure, Phase, Plan};
use super::restart::InPlace;
use super::status::shorten;
use super::waiting::WaitingOn;
use crate::conditions::{Stated, find, holds};

/// The API server takes messages of up to this many bytes; characters may have four.
const MESSAGE_LIMIT: usize = 4096;

/// Everything that the conditions follow from.
pub struct Outlook<'a> {
    /// What was planned.
    pub plan: &'a Plan,
    /// The status before.
    pub old: &'a YoloTrainingJobStatus,
    /// The job's name.
    pub job: &'a str,
    /// Restarts that the failure policy allows.
    pub max_restarts: u32,
    /// The restart in place that the status before does not know.
    pub in_place: Option<InPlace<'a>>,
    /// Whether the spec says that the job waits.
    pub suspend: bool,
    /// What the job cannot begin without.
    pub blocked: Option<WaitingOn>,
    /// Workers that the job wants.
    pub total: u32,
    /// Workers that run or have succeeded.
    pub ready: u32,
    /// Workers whose pod has a node.
    pub placed: u32,
    /// What the job's queue gave it.
    pub admission: Option<&'a AdmissionStatus>,
    /// The configuration that pods are made from.
    pub config: &'a ConfigView,
    /// That the API server refused the configuration.
    pub unfrozen: Option<WaitingOn>,
    /// What the others wait for.
    pub waiting: Vec<(u32, WaitingOn)>,
    /// Whether ranks were started.
    pub ranks_started: bool,
    /// What a worker waits for before it starts ranks, when that takes long.
    pub slow_check: Option<String>,
    /// The port of the present workers' agents, when none has answered there for long.
    pub silent: Option<u16>,
    /// Workers that run and have not found the others although they had time to, while somebody knows.
    pub absent: Option<Vec<&'a WorkerStatus>>,
    /// Whether another program than the trainer runs, which may report nothing.
    pub other_program: bool,
    /// What rank 0 last said.
    pub report: Option<&'a RunReport>,
}

/// Whether a rank that reports this has begun to train.
pub fn is_training(report: &RunReport) -> bool {
    match report.phase {
        RunPhase::Training => report.progress.step > 0,
        RunPhase::Evaluating | RunPhase::Checkpointing | RunPhase::Finished => true,
        RunPhase::Starting | RunPhase::Rendezvous => false,
    }
}

/// The word for people.
pub fn of(conditions: &[Condition]) -> State {
    if holds(conditions, ConditionType::Failed) {
        State::Failed
    } else if holds(conditions, ConditionType::Complete) {
        State::Complete
    } else if holds(conditions, ConditionType::Suspended) {
        State::Suspended
    } else if find(conditions, ConditionType::Admitted).is_some_and(|c| c.status == "False") {
        State::Queued
    } else if holds(conditions, ConditionType::Restarting) {
        State::Restarting
    } else if holds(conditions, ConditionType::Running) {
        let at_work = [Reason::Training, Reason::ProgramRunning].map(Reason::as_str);
        let works = find(conditions, ConditionType::Running)
            .is_some_and(|running| at_work.contains(&running.reason.as_str()));
        if works {
            State::Running
        } else {
            State::Starting
        }
    } else {
        State::Pending
    }
}

/// All conditions of a valid job.
pub fn conditions(outlook: &Outlook) -> Vec<Stated> {
    let mut stated = vec![
        accepted(outlook),
        admitted(outlook),
        scheduled(outlook),
        workers_ready(outlook),
        preflight(outlook),
        running(outlook),
        restarting(outlook),
        suspended(outlook),
        complete(outlook),
        failed(outlook),
    ];
    for condition in &mut stated {
        condition.message = shorten(&condition.message, MESSAGE_LIMIT);
    }
    stated
}

/// All conditions of a job whose spec cannot be obeyed.
pub fn refused(problems: &str) -> Vec<Stated> {
    let problems = shorten(problems, MESSAGE_LIMIT);
    let failed = |kind| {
        Stated::new(
            kind,
            false,
            Reason::JobFailed.as_str(),
            "the job has failed",
        )
    };
    vec![
        Stated::new(
            ConditionType::Accepted,
            false,
            Reason::InvalidSpec.as_str(),
            problems.as_str(),
        ),
        failed(ConditionType::Admitted),
        failed(ConditionType::Scheduled),
        failed(ConditionType::WorkersReady),
        failed(ConditionType::PreflightPassed),
        failed(ConditionType::Running),
        failed(ConditionType::Restarting),
        failed(ConditionType::Suspended),
        failed(ConditionType::Complete),
        Stated::new(
            ConditionType::Failed,
            true,
            Reason::InvalidSpec.as_str(),
            problems,
        ),
    ]
}

/// False for a job that has ended, or that waits, in the words of that.
fn not_now(kind: ConditionType, phase: &Phase) -> Option<Stated> {
    match phase {
        Phase::Queued(waiting_on) => Some(Stated::new(
            kind,
            false,
            waiting_on.reason().as_str(),
            waiting_on.message(),
        )),
        Phase::Suspended => Some(Stated::new(
            kind,
            false,
            Reason::JobSuspended.as_str(),
            "the job is suspended",
        )),
        Phase::Complete => Some(Stated::new(
            kind,
            false,
            Reason::JobComplete.as_str(),
            "the job is complete",
        )),
        Phase::Failed(_) => Some(Stated::new(
            kind,
            false,
            Reason::JobFailed.as_str(),
            "the job has failed",
        )),
        _ => None,
    }
}

fn accepted(outlook: &Outlook) -> Stated {
    match &outlook.blocked {
        Some(waiting_on) => Stated::new(
            ConditionType::Accepted,
            false,
            waiting_on.reason().as_str(),
            waiting_on.message(),
        ),
        None if config_waits(outlook) => Stated::new(
            ConditionType::Accepted,
            false,
            Reason::Queued.as_str(),
            "the configuration is frozen when the queue says how many workers there are",
        ),
        None if let Some(refused) = &outlook.unfrozen => Stated::new(
            ConditionType::Accepted,
            false,
            refused.reason().as_str(),
            refused.message(),
        ),
        None => Stated::new(
            ConditionType::Accepted,
            true,
            Reason::ConfigurationFrozen.as_str(),
            format!(
                "configuration and images are frozen in the ConfigMap {}",
                names::config_map(outlook.job)
            ),
        ),
    }
}

/// Whether the configuration can only be frozen when the job's queue says how many workers there are.
fn config_waits(outlook: &Outlook) -> bool {
    let waits = matches!(
        outlook.plan.phase,
        Phase::Queued(_) | Phase::Suspended | Phase::Blocked(_)
    );
    waits && !outlook.plan.freeze && *outlook.config == ConfigView::Absent
}

fn all_run(outlook: &Outlook) -> bool {
    outlook.plan.phase == Phase::Gang
        && outlook.waiting.is_empty()
        && outlook.ready == outlook.total
}

fn running(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Running;
    if let Some(ended) = not_now(kind, &outlook.plan.phase) {
        return ended;
    }
    let before = find(&outlook.old.conditions, kind).filter(|c| c.status == "True");
    if outlook.plan.phase == Phase::Settling
        && let Some(before) = before
    {
        return Stated::new(kind, true, &before.reason, &before.message);
    }
    if let Phase::Replacing { failure, .. } = &outlook.plan.phase {
        return Stated::new(
            kind,
            false,
            Reason::Restarting.as_str(),
            format!(
                "worker {} is being replaced, and the others wait",
                failure.worker
            ),
        );
    }
    if matches!(outlook.plan.phase, Phase::Restarting(_)) {
        return Stated::new(
            kind,
            false,
            Reason::Restarting.as_str(),
            "all workers are being replaced",
        );
    }
    if !all_run(outlook) {
        return Stated::new(
            kind,
            false,
            Reason::WorkersNotReady.as_str(),
            "not all workers run; see the condition WorkersReady",
        );
    }
    let attempt = outlook.plan.attempt;
    // Agents that do not answer for a moment do not make a job start again.
    let trained_before = outlook.old.attempt == Some(attempt)
        && before.is_some_and(|before| before.reason == Reason::Training.as_str());
    if outlook.report.is_some_and(is_training) || trained_before {
        Stated::new(
            kind,
            true,
            Reason::Training.as_str(),
            format!("training in attempt {attempt}"),
        )
    } else if outlook.other_program {
        Stated::new(
            kind,
            true,
            Reason::ProgramRunning.as_str(),
            format!("workers.container runs in attempt {attempt} and reports no progress"),
        )
    } else {
        Stated::new(
            kind,
            true,
            Reason::Starting.as_str(),
            format!(
                "the workers of attempt {attempt} read the data set, find each other and begin"
            ),
        )
    }
}

fn restarting(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Restarting;
    let suspended = matches!(outlook.plan.phase, Phase::Suspended | Phase::Queued(_));
    if let Some(ended) = not_now(kind, &outlook.plan.phase).filter(|_| !suspended) {
        return ended;
    }
    let under_way = !suspended && !all_run(outlook);
    let attempt = outlook.plan.attempt;
    if let Phase::Restarting(failure) | Phase::Replacing { failure, .. } = &outlook.plan.phase {
        return Stated::new(
            kind,
            true,
            failure.why.as_str(),
            format!(
                "{} as attempt {attempt}, because of {}",
                which(outlook),
                failure.sentence()
            ),
        );
    }
    let before = find(&outlook.old.conditions, kind);
    let unseen = outlook
        .old
        .attempt
        .is_some_and(|known| known.incarnation < attempt.incarnation);
    if unseen && under_way {
        return Stated::new(
            kind,
            true,
            Reason::Restarting.as_str(),
            format!(
                "{} as attempt {attempt}; its cause was not recorded",
                which(outlook)
            ),
        );
    }
    if let Some(in_place) = outlook.in_place {
        let because = in_place.cause.map_or_else(
            || "; its cause was not recorded".to_owned(),
            |cause| format!(", because of {}", cause.sentence()),
        );
        return Stated::new(
            kind,
            false,
            Reason::Restarted.as_str(),
            format!("{} in place as attempt {attempt}{because}", which(outlook)),
        );
    }
    match before {
        Some(before) if before.status == "True" && under_way => {
            Stated::new(kind, true, &before.reason, &before.message)
        }
        Some(before) if before.status == "True" => Stated::new(
            kind,
            false,
            Reason::Restarted.as_str(),
            format!("the last one was {}", before.message),
        ),
        Some(before) if before.reason == Reason::Restarted.as_str() => {
            Stated::new(kind, false, &before.reason, &before.message)
        }
        _ => Stated::new(
            kind,
            false,
            Reason::NoRestart.as_str(),
            "no worker has failed",
        ),
    }
}

/// Which restart it is, of how many.
fn which(outlook: &Outlook) -> String {
    let Restarts {
        restarts, counted, ..
    } = outlook.plan.restarts;
    let max = outlook.max_restarts;
    if restarts == counted {
        format!("restart {counted} of {max}")
    } else {
        format!("restart {restarts} ({counted} of {max} that count)")
    }
}

fn suspended(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Suspended;
    if outlook.plan.phase == Phase::Suspended {
        return Stated::new(
            kind,
            true,
            Reason::JobSuspended.as_str(),
            standstill(outlook),
        );
    }
    let queued = matches!(outlook.plan.phase, Phase::Queued(_));
    if let Some(ended) = not_now(kind, &outlook.plan.phase).filter(|_| !queued) {
        return ended;
    }
    let before = find(&outlook.old.conditions, kind);
    let resumed = before.is_some_and(|before| {
        before.status == "True" || before.reason == Reason::JobResumed.as_str()
    });
    if resumed {
        Stated::new(
            kind,
            false,
            Reason::JobResumed.as_str(),
            "the job was suspended and goes on",
        )
    } else {
        Stated::new(
            kind,
            false,
            Reason::NotSuspended.as_str(),
            "the job was never suspended",
        )
    }
}

/// What a suspended job waits for, and where its run stands, in a sentence.
fn standstill(outlook: &Outlook) -> String {
    let waits = if outlook.suspend {
        "spec.suspend is true"
    } else {
        "resumed, and goes on when its earlier workers have stopped"
    };
    let checkpoint = outlook.report.and_then(|report| report.checkpoint.as_ref());
    match checkpoint.or(outlook.old.checkpoint.as_ref()) {
        Some(checkpoint) => format!("{waits}; the run stands at step {}", checkpoint.step),
        None => format!("{waits}; nothing of the run was written yet"),
    }
}

fn complete(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Complete;
    match &outlook.plan.phase {
        Phase::Complete => Stated::new(
            kind,
            true,
            Reason::WorkersSucceeded.as_str(),
            outcome(outlook),
        ),
        Phase::Failed(_) => Stated::new(
            kind,
            false,
            Reason::JobFailed.as_str(),
            "the job has failed",
        ),
        _ => Stated::new(
            kind,
            false,
            Reason::NotFinished.as_str(),
            "the job has not ended",
        ),
    }
}

/// What a completed job brought, in a sentence.
fn outcome(outlook: &Outlook) -> String {
    let report = outlook.report;
    let progress = report
        .map(|report| &report.progress)
        .filter(|progress| progress.steps > 0)
        .or(outlook.old.progress.as_ref());
    let best = report
        .and_then(|report| report.best.as_ref())
        .or(outlook.old.best.as_ref());
    let weights = report
        .and_then(|report| report.best_weights.as_deref())
        .or(outlook.old.best_weights.as_deref());
    let mut sentence = match progress {
        Some(progress) => {
            let took = duration(progress.training_seconds as u64);
            let Progress { epoch, epochs, .. } = *progress;
            if epoch < epochs {
                format!(
                    "trained {epoch} of {epochs} epochs in {took}, since no later one was better for training.patience epochs"
                )
            } else {
                format!("trained {epoch} epochs in {took}")
            }
        }
        None => "every worker ended with success".to_owned(),
    };
    if let Some(best) = best
        && let (Some(map50), Some(map50_95)) = (best.map50, best.map50_95)
    {
        let _ = write!(
            sentence,
            "; best mAP50 {map50:.3}, mAP50-95 {map50_95:.3} in epoch {}",
            best.epoch
        );
    }
    if let Some(weights) = weights {
        let _ = write!(sentence, "; weights in {weights}");
    }
    sentence
}

fn failed(outlook: &Outlook) -> Stated {
    let kind = ConditionType::Failed;
    match &outlook.plan.phase {
        Phase::Failed(JobFailure::Permanent(failure)) => {
            Stated::new(kind, true, failure.why.as_str(), failure.sentence())
        }
        Phase::Failed(JobFailure::Exhausted(failure)) => Stated::new(
            kind,
            true,
            Reason::RestartLimitReached.as_str(),
            format!(
                "no restart is left (failurePolicy.maxRestarts is {}); the last failure was {}: {}",
                outlook.max_restarts,
                failure.why.as_str(),
                failure.sentence()
            ),
        ),
        Phase::Failed(JobFailure::NotFetched(failure)) => Stated::new(
            kind,
            true,
            &*failure.reason,
            format!("the data set was not fetched: {}", failure.message),
        ),
        Phase::Failed(JobFailure::FetchExhausted(failure)) => Stated::new(
            kind,
            true,
            Reason::RestartLimitReached.as_str(),
            format!(
                "the data set was not fetched, and no try is left (failurePolicy.maxRestarts is {}); the last failure was {}: {}",
                outlook.max_restarts, failure.reason, failure.message
            ),
        ),
        Phase::Failed(JobFailure::Overdue(seconds)) => Stated::new(
            kind,
            true,
            Reason::DeadlineExceeded.as_str(),
            format!("the job took longer than activeDeadlineSeconds, {seconds} s"),
        ),
        Phase::Failed(JobFailure::Invalid(refusal)) => Stated::new(
            kind,
            true,
            Reason::InvalidSpec.as_str(),
            refusal.to_string(),
        ),
        Phase::Complete => Stated::new(
            kind,
            false,
            Reason::JobComplete.as_str(),
            "the job is complete",
        ),
        _ => Stated::new(
            kind,
            false,
            Reason::NotFinished.as_str(),
            "the job has not ended",
        ),
    }
}

#[cfg(test)]
mod tests {
    use ConditionType::{Accepted, Complete, Failed, Restarting, Running, Suspended};
    use jiff::Timestamp;

    use super::*;
    use crate::conditions::merge;

    #[test]
    fn the_word_for_people_follows_from_the_conditions() {
        let word = |stated: &[(ConditionType, &str)]| {
            let stated: Vec<_> = stated
                .iter()
                .map(|(kind, reason)| Stated::new(*kind, true, *reason, ""))
                .collect();
            of(&merge(&[], &stated, None, Timestamp::UNIX_EPOCH))
        };
        assert_eq!(State::Pending, word(&[(Accepted, "ConfigurationFrozen")]));
        assert_eq!(State::Starting, word(&[(Running, "Starting")]));
        assert_eq!(State::Running, word(&[(Running, "Training")]));
        assert_eq!(State::Restarting, word(&[(Restarting, "Killed")]));
        assert_eq!(State::Suspended, word(&[(Suspended, "JobSuspended")]));
        assert_eq!(State::Complete, word(&[(Complete, "WorkersSucceeded")]));
        assert_eq!(State::Failed, word(&[(Failed, "Killed"), (Complete, "x")]));
    }

    #[test]
    fn every_condition_type_is_stated() {
        let kinds: Vec<_> = refused("x").iter().map(|stated| stated.kind).collect();
        assert_eq!(ConditionType::ALL.to_vec(), kinds);
    }
}
