//! The part of Kueue's API that the operator uses: `kueue.x-k8s.io/v1beta2`, which Kueue serves since 0.15.
//!
//! Fields that nothing here reads or writes are left out; a status is therefore never written from these
//! types, but changed where it is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodTemplateSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Label of a job: the `LocalQueue` that it waits in.
pub const QUEUE_LABEL: &str = "kueue.x-k8s.io/queue-name";
/// Label of a job: the `WorkloadPriorityClass` with which it waits there.
pub const PRIORITY_LABEL: &str = "kueue.x-k8s.io/priority-class";

/// The condition that says that the pods may be created.
pub const ADMITTED: &str = "Admitted";
/// The condition that says that quota is set aside.
pub const QUOTA_RESERVED: &str = "QuotaReserved";
/// The condition that says that the pods must go.
pub const EVICTED: &str = "Evicted";
/// The condition that says whether a workload that was evicted may be admitted again at once.
pub const REQUEUED: &str = "Requeued";
/// The condition that says that all pods run.
pub const PODS_READY: &str = "PodsReady";
/// The condition that says that the job has ended.
pub const FINISHED: &str = "Finished";

/// What waits in a queue for all the pods of a job.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kueue.x-k8s.io",
    version = "v1beta2",
    kind = "Workload",
    namespaced,
    status = "WorkloadStatus",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// The pods. The API server wants one set at least.
    #[serde(default)]
    pub pod_sets: Vec<PodSet>,
    /// The `LocalQueue`.
    #[serde(default)]
    pub queue_name: String,
    /// The class that the priority is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_ref: Option<PriorityClassRef>,
    /// The value of that class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether it may be admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<bool>,
}

/// Pods that are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSet {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u32,
    /// How many are enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_count: Option<u32>,
    /// What each is. The cache does not keep it.
    #[serde(default)]
    pub template: PodTemplateSpec,
}

/// A class of priorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriorityClassRef {
    /// `kueue.x-k8s.io` or `scheduling.k8s.io`.
    pub group: String,
    /// `WorkloadPriorityClass` or `PriorityClass`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What Kueue decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// Where it stands.
    pub conditions: Vec<Condition>,
    /// What it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admission: Option<Admission>,
    /// What other programs say of it.
    pub admission_checks: Vec<AdmissionCheck>,
}

/// What a workload was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Admission {
    /// The `ClusterQueue` that pays.
    pub cluster_queue: String,
    /// What each set of pods was given.
    pub pod_set_assignments: Vec<Assignment>,
}

/// What a set of pods was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignment {
    /// The set's name.
    pub name: String,
    /// The `ResourceFlavor` of each resource.
    pub flavors: BTreeMap<String, String>,
    /// For how many pods.
    pub count: Option<u32>,
}

/// What another program says of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionCheck {
    /// The check's name.
    pub name: String,
    /// What the pods must carry because of it.
    pub pod_set_updates: Vec<PodSetUpdate>,
}

/// What pods must carry besides what their job says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSetUpdate {
    /// Of which set.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Labels of their nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
}

/// A kind of nodes that quota is for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "kueue.x-k8s.io",
    version = "v1beta2",
    kind = "ResourceFlavor",
    derive = "PartialEq",
    schema = "disabled"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceFlavorSpec {
    /// Labels of such nodes.
    pub node_labels: BTreeMap<String, String>,
    /// What pods on them tolerate.
    pub tolerations: Vec<Toleration>,
}
