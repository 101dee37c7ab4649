//! A job in a queue of Kueue: what it may do, and what is told to Kueue. Pure.
//!
//! The job's label names the queue, and a `Workload` stands in it for the job. The spec is never written: that
//! the job has to wait is known from the `Workload`, and is shown in the status.

use std::collections::BTreeMap;

use crds::names;
use crds::v1alpha1::{AdmissionStatus, CleanPodPolicy};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::observe::{ConfigView, Observed};
use super::pods::{PodState, PodView};
use super::validate::ValidJob;
use super::waiting::WaitingOn;
use crate::kueue::{
    ADMITTED, AdmissionCheck, Assignment, EVICTED, FINISHED, PODS_READY, QUEUE_LABEL,
    QUOTA_RESERVED, REQUEUED, ResourceFlavorSpec, Workload,
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
    /// The operator has no right to look.
    Hidden,
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
    /// Its `WorkloadPriorityClass`, where it has one.
    pub priority_class: Option<String>,
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
    /// Why what it was given cannot be read.
    pub unreadable: Option<String>,
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
    PodsReady {
        /// Whether they do.
        ready: bool,
        /// Workers that were admitted and cannot share the batch: their quota is given back.
        surplus: u32,
    },
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
        priority_class: (workload.spec.priority_class_ref.as_ref())
            .filter(|class| class.kind == "WorkloadPriorityClass")
            .map(|class| class.name.clone()),
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
        unreadable: None,
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

/// Whether the workers of a job that is neither suspended nor over may run. They have `begun` where anything is known of
/// the present ones.
pub fn gate(valid: &ValidJob, observed: &Observed, begun: bool) -> Gate {
    let entry = match (&observed.queue, &valid.queue) {
        (QueueView::Absent | QueueView::Foreign | QueueView::Hidden, None) => return Gate::Open,
        // What runs was let in when there was that right, and how it ends counts.
        (QueueView::Hidden, Some(_)) if begun => return Gate::Open,
        (QueueView::Hidden, Some(request)) => {
            return Gate::Closed {
                waiting_on: hidden(request),
                step: None,
            };
        }
        (QueueView::Absent, Some(request)) => {
            return Gate::Closed {
                waiting_on: WaitingOn::queue(&request.queue, None),
                // Those that still stop use what the next ones are to be given.
                step: (!alive(observed)).then_some(QueueStep::Enter),
            };
        }
        (QueueView::Foreign, Some(_)) => {
            return Gate::Closed {
                waiting_on: WaitingOn::NameTaken {
                    kind: "Workload",
                    name: names::workload(&observed.id.name, &observed.id.uid),
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
    if entry.reserved {
        return match &entry.evicted {
            Some((reason, message)) => {
                let step = (!alive(observed)).then(|| QueueStep::GiveBack {
                    reason: reason.clone(),
                    message: message.clone(),
                });
                closed(Some(message), step)
            }
            None if entry.unreadable.is_some() => closed(entry.unreadable.as_deref(), None),
            None if entry.admitted => Gate::Open,
            None => closed(entry.pending.as_deref(), None),
        };
    }
    // Anew where it was entered for another queue or another number: the gang that began is the gang that goes on.
    let asked = |request: &QueueRequest| {
        request.queue == entry.queue && request.priority_class == entry.priority_class
    };
    let in_its_queue = valid.queue.as_ref().is_some_and(asked);
    if !entry.active && in_its_queue {
        return closed(Some(INACTIVE), None);
    }
    let as_asked = entry.wanted == valid.layout.replicas && in_its_queue;
    if !as_asked && !alive(observed) {
        return closed(entry.pending.as_deref(), Some(QueueStep::Leave));
    }
    if !entry.active {
        return closed(Some(INACTIVE), None);
    }
    let evicted = entry.evicted.as_ref().map(|(_, message)| message.as_str());
    closed(entry.pending.as_deref().or(evicted), None)
}

fn hidden(request: &QueueRequest) -> WaitingOn {
    WaitingOn::queue(&request.queue, Some(HIDDEN))
}

/// Why no pods can be made: what they carry of what the queue gave is not known.
pub fn unknown(valid: &ValidJob, observed: &Observed) -> Option<WaitingOn> {
    let request = valid.queue.as_ref()?;
    (observed.queue == QueueView::Hidden).then(|| hidden(request))
}

/// What is said where the operator may not read what stands in queues.
const HIDDEN: &str = "the operator has no right to use Kueue: set the chart's kueue.enabled to true, or take the label off the job";

/// What is said of a `Workload` that Kueue does not look at.
const INACTIVE: &str = "it is not active: Kueue gave it up, or somebody set spec.active of its Workload to false; set that to true to let it wait again";

/// What to tell Kueue of a job that waits because its spec says so: nothing stands in a queue for it once
/// its workers are gone.
pub fn while_suspended(observed: &Observed) -> Option<QueueStep> {
    match &observed.queue {
        QueueView::Entered(entry) if !entry.deleting && !alive(observed) => Some(QueueStep::Leave),
        _ => None,
    }
}

/// What to tell Kueue of workers that may run.
pub fn while_running(valid: &ValidJob, observed: &Observed, all_run: bool) -> Option<QueueStep> {
    match &observed.queue {
        QueueView::Entered(entry) if all_run != entry.ready.unwrap_or(false) => {
            let admitted = entry.admission.as_ref().and_then(|given| given.workers);
            let surplus = admitted.map_or(0, |given| given.saturating_sub(valid.layout.replicas));
            Some(QueueStep::PodsReady {
                ready: all_run,
                surplus,
            })
        }
        _ => None,
    }
}

/// What to tell Kueue of a job that has ended.
pub fn when_over(
    observed: &Observed,
    success: bool,
    clean_pods: CleanPodPolicy,
) -> Option<QueueStep> {
    // Pods that are to stay are not waited for.
    let stopping = alive(observed) && clean_pods != CleanPodPolicy::None;
    match &observed.queue {
        QueueView::Entered(entry) if !entry.finished && !entry.deleting && !stopping => {
            Some(QueueStep::Finish { success })
        }
        _ => None,
    }
}

/// Whether a job that has yet to begin can have fewer workers than it asks for, where it says so. A label that is
/// taken off later ends nothing.
pub fn check(valid: &ValidJob, observed: &Observed) -> Result<(), String> {
    match valid.workers.min_replicas {
        Some(least)
            if valid.queue.is_none()
                && observed.queue == QueueView::Absent
                && observed.config == ConfigView::Absent =>
        {
            Err(format!(
                "workers.minReplicas is {least}, but only a queue admits fewer workers than workers.replicas: add the label {QUEUE_LABEL}, or remove minReplicas"
            ))
        }
        _ => Ok(()),
    }
}

/// Workers of the gang: as many as it began with; before that, as many as the queue admits, as far as they can
/// share a batch; before that, as many as the spec asks for.
pub fn replicas(valid: &ValidJob, observed: &Observed) -> u32 {
    let wanted = valid.workers.replicas;
    let begun = observed.status.total_workers;
    match &observed.config {
        ConfigView::Frozen(config) => return config.workers.replicas,
        // What the cache knows of it.
        ConfigView::Present if begun > 0 => return begun,
        _ => {}
    }
    let (Some(least), QueueView::Entered(entry)) = (valid.workers.min_replicas, &observed.queue)
    else {
        return wanted;
    };
    let admitted = entry.admission.as_ref().and_then(|given| given.workers);
    let most = admitted.unwrap_or(wanted).clamp(least, wanted);
    let training = &valid.trainer.training;
    let shared = |workers: &u32| valid.workers.can_share(training, *workers);
    (least..=most).rev().find(shared).unwrap_or(least)
}

/// Whether pods use what they asked for, as Kueue counts it: all that runs in them. What the cluster takes away is not
/// waited for, since a node that is lost never says that its pods have ended.
fn alive(observed: &Observed) -> bool {
    let uses = |pod: &PodView| !pod.over && !matches!(pod.state, PodState::Evicted(_));
    observed.pods.iter().any(uses)
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
            // The next start has its own time, whatever became of this one.
            state(PODS_READY, false, "WaitForStart", "Not admitted");
            if let Some(status) = status.as_object_mut() {
                status.remove("admission");
            }
        }
        QueueStep::PodsReady { ready, surplus } => {
            if *ready && *surplus > 0 {
                status["reclaimablePods"] = json!([{"name": POD_SET, "count": surplus}]);
            }
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
