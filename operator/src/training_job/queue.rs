//! A job in a queue of Kueue: what it may do, and what is told to Kueue. Pure.
//!
//! The job's label names the queue, and a `Workload` stands in it for the job. The spec is never written: that
//! the job has to wait is known from the `Workload`, and is shown in the status.

use std::collections::BTreeMap;

use crds::v1alpha1::AdmissionStatus;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::observe::Observed;
use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::kueue::{
    ADMITTED, AdmissionCheck, Assignment, EVICTED, FINISHED, PODS_READY, QUOTA_RESERVED, REQUEUED,
    ResourceFlavorSpec, Workload,
};
use crate::metadata::owned_by;

/// The one set of pods that a job has.
pub const POD_SET: &str = "workers";

/// What a job's labels say of queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRequest {
    /// The `LocalQueue`.
    pub queue: String,
    /// The `WorkloadPriorityClass`.
    pub priority_class: Option<String>,
}

/// What stands in a queue for the job.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum QueueView {
    /// Nothing.
    #[default]
    Absent,
    /// Something of its name that belongs to somebody else.
    Foreign,
    /// Its `Workload`.
    Entered(Box<Entry>),
}

/// A job's `Workload`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "Kueue's conditions, each of which may hold beside the others"
)]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Its queue.
    pub queue: String,
    /// Whether it may be admitted; Kueue and people may forbid that.
    pub active: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether quota is set aside for it.
    pub reserved: bool,
    /// Whether the pods may be created.
    pub admitted: bool,
    /// Why the pods must go, when they must: a word and a sentence.
    pub evicted: Option<(String, String)>,
    /// Whether Kueue was told that all pods run.
    pub ready: Option<bool>,
    /// Whether Kueue was told that the job has ended.
    pub finished: bool,
    /// Why it waits, in Kueue's words.
    pub pending: Option<String>,
    /// Workers that it asks for.
    pub wanted: u32,
    /// What it was given.
    pub admission: Option<AdmissionStatus>,
    /// What the pods carry because of that. Known only from a fresh read.
    pub placement: Placement,
}

/// What pods carry because of the quota that they use.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// Labels of the pods.
    pub labels: BTreeMap<String, String>,
    /// Their annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels of their nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Their tolerations.
    pub tolerations: Vec<Toleration>,
}

/// What Kueue is told or asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueStep {
    /// A `Workload` is created.
    Enter,
    /// It is deleted.
    Leave,
    /// The pods are gone, and with them the need for the quota.
    GiveBack {
        /// Why Kueue wanted that, in a word.
        reason: String,
        /// In a sentence.
        message: String,
    },
    /// All pods run, or no longer do.
    PodsReady(bool),
    /// The job has ended.
    Finish {
        /// Whether with success.
        success: bool,
    },
}

/// Whether the workers may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They may.
    Open,
    /// They must not.
    Closed {
        /// Why.
        waiting_on: WaitingOn,
        /// What to tell Kueue.
        step: Option<QueueStep>,
    },
}

/// Reads a `Workload`.
pub fn view(workload: Option<&Workload>, uid: &str) -> QueueView {
    let Some(workload) = workload else {
        return QueueView::Absent;
    };
    if !owned_by(&workload.metadata, uid) {
        return QueueView::Foreign;
    }
    let status = workload.status.clone().unwrap_or_default();
    let find = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind);
    let holds = |kind: &str| find(kind).is_some_and(|c| c.status == "True");
    let words = |c: &Condition| (c.reason.clone(), c.message.clone());
    let assignment = status.admission.as_ref().map(|admission| {
        let given = admission.pod_set_assignments.first();
        AdmissionStatus {
            queue: workload.spec.queue_name.clone(),
            cluster_queue: admission.cluster_queue.clone(),
            flavors: given.map(|given| given.flavors.clone()).unwrap_or_default(),
            workers: given.and_then(|given| given.count),
        }
    });
    QueueView::Entered(Box::new(Entry {
        queue: workload.spec.queue_name.clone(),
        active: workload.spec.active.unwrap_or(true),
        deleting: workload.metadata.deletion_timestamp.is_some(),
        reserved: holds(QUOTA_RESERVED) || status.admission.is_some(),
        admitted: holds(ADMITTED),
        evicted: find(EVICTED).filter(|c| c.status == "True").map(words),
        ready: find(PODS_READY).map(|c| c.status == "True"),
        finished: holds(FINISHED),
        pending: find(QUOTA_RESERVED)
            .filter(|c| c.status != "True")
            .map(|c| c.message.clone()),
        wanted: workload.spec.pod_sets.iter().map(|set| set.count).sum(),
        admission: assignment,
        placement: Placement::default(),
    }))
}

/// The flavours that a `Workload` was given.
pub fn flavors(workload: &Workload) -> Vec<String> {
    let mut names: Vec<String> = assignments(workload)
        .iter()
        .flat_map(|given| given.flavors.values().cloned())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn assignments(workload: &Workload) -> &[Assignment] {
    workload
        .status
        .as_ref()
        .and_then(|status| status.admission.as_ref())
        .map_or(&[], |admission| &admission.pod_set_assignments)
}

/// What the pods carry because of what the `Workload` was given.
pub fn placement(workload: &Workload, flavors: &[ResourceFlavorSpec]) -> Placement {
    let mut placement = Placement::default();
    for flavor in flavors {
        placement.node_selector.extend(flavor.node_labels.clone());
        placement.tolerations.extend(flavor.tolerations.clone());
    }
    let checks: &[AdmissionCheck] = workload
        .status
        .as_ref()
        .map_or(&[], |status| &status.admission_checks);
    for update in checks.iter().flat_map(|check| &check.pod_set_updates) {
        if update.name == POD_SET {
            placement.labels.extend(update.labels.clone());
            placement.annotations.extend(update.annotations.clone());
            placement.node_selector.extend(update.node_selector.clone());
            placement.tolerations.extend(update.tolerations.clone());
        }
    }
    placement
}

/// Whether the workers of a job that is neither suspended nor over may run.
pub fn gate(valid: &ValidJob, observed: &Observed) -> Gate {
    let entry = match (&observed.queue, &valid.queue) {
        (QueueView::Absent | QueueView::Foreign, None) => return Gate::Open,
        (QueueView::Absent, Some(request)) => {
            return Gate::Closed {
                waiting_on: WaitingOn::queue(&request.queue, None),
                step: Some(QueueStep::Enter),
            };
        }
        (QueueView::Foreign, Some(request)) => {
            return Gate::Closed {
                waiting_on: WaitingOn::NameTaken {
                    kind: "Workload",
                    name: request.queue.clone(),
                },
                step: None,
            };
        }
        (QueueView::Entered(entry), _) => entry,
    };
    let closed = |text: Option<&str>, step| Gate::Closed {
        waiting_on: WaitingOn::queue(&entry.queue, text),
        step,
    };
    if entry.deleting {
        return closed(None, None);
    }
    if let Some((reason, message)) = &entry.evicted {
        let step = (entry.reserved && !alive(observed)).then(|| QueueStep::GiveBack {
            reason: reason.clone(),
            message: message.clone(),
        });
        return closed(Some(message), step);
    }
    if entry.admitted {
        return Gate::Open;
    }
    // The gang that began is the gang that goes on.
    if entry.wanted != valid.layout.replicas && !entry.reserved && !alive(observed) {
        return closed(entry.pending.as_deref(), Some(QueueStep::Leave));
    }
    let inactive = "it is not active: Kueue gave it up, or somebody set spec.active of its Workload to false; set that to true to let it wait again";
    let pending = if entry.active {
        entry.pending.as_deref()
    } else {
        Some(inactive)
    };
    closed(pending, None)
}

/// What to tell Kueue of a job that waits because its spec says so: nothing stands in a queue for it once
/// its workers are gone.
pub fn while_suspended(observed: &Observed) -> Option<QueueStep> {
    match &observed.queue {
        QueueView::Entered(entry) if !entry.deleting && !alive(observed) => Some(QueueStep::Leave),
        _ => None,
    }
}

/// What to tell Kueue of workers that may run.
pub fn while_running(observed: &Observed, all_run: bool) -> Option<QueueStep> {
    match &observed.queue {
        QueueView::Entered(entry) if all_run != entry.ready.unwrap_or(false) => {
            Some(QueueStep::PodsReady(all_run))
        }
        _ => None,
    }
}

/// What to tell Kueue of a job that has ended.
pub fn when_over(observed: &Observed, success: bool) -> Option<QueueStep> {
    match &observed.queue {
        QueueView::Entered(entry) if !entry.finished && !entry.deleting => {
            Some(QueueStep::Finish { success })
        }
        _ => None,
    }
}

/// Workers of the gang: as many as it began with; before that, as many as the queue admits, as far as they can
/// share a batch; before that, as many as the spec asks for.
pub fn replicas(valid: &ValidJob, observed: &Observed) -> u32 {
    let wanted = valid.workers.replicas;
    let begun = observed.status.total_workers;
    if is_frozen(observed) && begun > 0 {
        return begun;
    }
    let (Some(least), QueueView::Entered(entry)) = (valid.workers.min_replicas, &observed.queue)
    else {
        return wanted;
    };
    let admitted = entry.admission.as_ref().and_then(|given| given.workers);
    let most = admitted.unwrap_or(wanted).clamp(least, wanted);
    let batch = valid.trainer.training.batch_size;
    let shared = |workers: &u32| batch.is_multiple_of(workers * valid.layout.processes_per_worker);
    (least..=most).rev().find(shared).unwrap_or(least)
}

fn is_frozen(observed: &Observed) -> bool {
    crate::conditions::holds(
        &observed.status.conditions,
        crds::conditions::ConditionType::Accepted,
    )
}

fn alive(observed: &Observed) -> bool {
    observed.pods.iter().any(|pod| !pod.ended())
}

/// Changes the status of a `Workload` as a step wants it.
pub fn tell(status: &mut Value, step: &QueueStep, generation: Option<i64>, now: Timestamp) {
    match step {
        QueueStep::Enter | QueueStep::Leave => {}
        QueueStep::GiveBack { reason, message } => {
            // One that was preempted, or whose nodes failed, may go on at once; Kueue says when others may.
            let at_once = matches!(reason.as_str(), "Preempted" | "NodeFailures");
            let mut state = |kind, holds, reason: &str, message: &str| {
                set(status, kind, holds, (reason, message), generation, now);
            };
            state(REQUEUED, at_once, reason, message);
            state(QUOTA_RESERVED, false, "Pending", message);
            state(
                ADMITTED,
                false,
                "NoReservation",
                "The workload has no reservation",
            );
            if let Some(status) = status.as_object_mut() {
                status.remove("admission");
            }
        }
        QueueStep::PodsReady(ready) => {
            let words = if *ready {
                ("PodsReady", "All workers run")
            } else {
                ("WaitForRecovery", "Workers are being replaced")
            };
            set(status, PODS_READY, *ready, words, generation, now);
        }
        QueueStep::Finish { success } => {
            let words = if *success {
                ("Succeeded", "The job is complete")
            } else {
                ("Failed", "The job has failed")
            };
            set(status, FINISHED, true, words, generation, now);
        }
    }
}

fn set(
    status: &mut Value,
    kind: &str,
    holds: bool,
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) {
    let word = if holds { "True" } else { "False" };
    let mut conditions: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
    let before = conditions.iter().find(|c| c["type"] == kind);
    let since = before
        .filter(|before| before["status"] == word)
        .map_or_else(
            || json!(Time(now)),
            |before| before["lastTransitionTime"].clone(),
        );
    let condition = json!({
        "type": kind,
        "status": word,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
        "observedGeneration": generation.unwrap_or_default(),
    });
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    status["conditions"] = conditions.into();
}
