//! Objects as the watches read them: only what the operator looks at is parsed. The rest (the fields' managers
//! above all) is larger than that, and with many jobs reading it would be most of the work.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crds::conditions::ConditionType;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobSpec, YoloTrainingJobStatus};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, Pod, PodCondition, PodResourceClaim, PodSpec, PodStatus,
    PodTemplateSpec, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use serde::de::{Deserialize, Deserializer};
use serde_json::Value;

use crate::context::GuardedJob;
use crate::kueue::Workload;
use crate::training_job::gang::DEFAULT_SCHEDULER;
use crate::training_job::status::has_ended;

/// What people's tools keep in annotations, which can be as large as the object itself.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object of which only a part was read.
#[derive(Clone, Debug)]
pub struct Lean<K>(pub K);

impl<K: Resource> Resource for Lean<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Meta> for ObjectMeta {
    fn from(meta: Meta) -> Self {
        let mut annotations = meta.annotations;
        if let Some(annotations) = &mut annotations {
            annotations.remove(LAST_APPLIED);
        }
        Self {
            name: meta.name,
            namespace: meta.namespace,
            uid: meta.uid,
            resource_version: meta.resource_version,
            generation: meta.generation,
            creation_timestamp: meta.creation_timestamp,
            deletion_timestamp: meta.deletion_timestamp,
            labels: meta.labels,
            annotations,
            finalizers: meta.finalizers,
            owner_references: meta.owner_references,
            ..Self::default()
        }
    }
}

#[derive(serde::Deserialize)]
struct LeanPod {
    metadata: Meta,
    #[serde(default)]
    spec: LeanPodSpec,
    status: Option<LeanPodStatus>,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeanPodSpec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    resource_claims: Option<Vec<PodResourceClaim>>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeanPodStatus {
    phase: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<PodCondition>>,
    container_statuses: Option<Vec<LeanContainer>>,
    init_container_statuses: Option<Vec<LeanContainer>>,
}

#[derive(serde::Deserialize)]
struct LeanContainer {
    name: String,
    image: String,
    state: Option<ContainerState>,
}

impl From<LeanContainer> for ContainerStatus {
    fn from(container: LeanContainer) -> Self {
        Self {
            name: container.name,
            image: container.image,
            state: container.state,
            ..Self::default()
        }
    }
}

fn containers(list: Option<Vec<LeanContainer>>) -> Option<Vec<ContainerStatus>> {
    list.map(|list| list.into_iter().map(Into::into).collect())
}

impl From<LeanPod> for Pod {
    fn from(pod: LeanPod) -> Self {
        Self {
            metadata: pod.metadata.into(),
            spec: Some(PodSpec {
                node_name: pod.spec.node_name,
                // That of most pods is not kept for each of them.
                scheduler_name: (pod.spec.scheduler_name).filter(|name| name != DEFAULT_SCHEDULER),
                resource_claims: pod.spec.resource_claims,
                ..PodSpec::default()
            }),
            status: pod.status.map(|status| PodStatus {
                phase: status.phase,
                reason: status.reason,
                message: status.message,
                pod_ip: status.pod_ip,
                conditions: status.conditions,
                container_statuses: containers(status.container_statuses),
                init_container_statuses: containers(status.init_container_statuses),
                ..PodStatus::default()
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Lean<Workload> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // There are few, and what their pods are is not looked at again.
        let mut workload = Workload::deserialize(from)?;
        workload.metadata.managed_fields = None;
        for set in &mut workload.spec.pod_sets {
            set.template = PodTemplateSpec::default();
        }
        Ok(Self(workload))
    }
}

impl<'de> Deserialize<'de> for Lean<PartialObjectMeta<Service>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = OnlyMeta::deserialize(deserializer)?;
        Ok(Self(PartialObjectMeta {
            metadata: read.metadata.into(),
            ..PartialObjectMeta::default()
        }))
    }
}

impl<'de> Deserialize<'de> for Lean<Pod> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        LeanPod::deserialize(deserializer).map(|pod| Self(pod.into()))
    }
}

#[derive(serde::Deserialize)]
struct LeanJob {
    metadata: Meta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Option<Value>,
}

impl<'de> Deserialize<'de> for Lean<GuardedJob> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = LeanJob::deserialize(deserializer)?;
        let metadata = read.metadata.into();
        let spec = serde_json::from_value::<YoloTrainingJobSpec>(read.spec);
        let status = read
            .status
            .map(serde_json::from_value::<YoloTrainingJobStatus>);
        let status = status.map(|status| status.map(without_past));
        let job = match (spec, status.transpose()) {
            (Ok(spec), Ok(status)) => Ok(YoloTrainingJob {
                metadata,
                spec,
                status,
            }),
            (Err(error), _) | (_, Err(error)) => Err(InvalidObject {
                error: error.to_string(),
                metadata,
            }),
        };
        Ok(Self(DeserializeGuard(job)))
    }
}

/// Of a job that has ended only what is asked for again: there may be very many. Whoever writes its status reads it anew.
pub fn without_past(status: YoloTrainingJobStatus) -> YoloTrainingJobStatus {
    if !has_ended(&status) {
        return status;
    }
    let over = [ConditionType::Complete, ConditionType::Failed].map(ConditionType::as_str);
    let mut conditions = status.conditions;
    conditions.retain(|condition| over.contains(&condition.type_.as_str()));
    YoloTrainingJobStatus {
        observed_generation: status.observed_generation,
        state: status.state,
        conditions,
        attempt: status.attempt,
        start_time: status.start_time,
        completion_time: status.completion_time,
        progress: status.progress,
        latest: status.latest,
        best: status.best,
        ..YoloTrainingJobStatus::default()
    }
}

#[derive(serde::Deserialize)]
struct OnlyMeta {
    metadata: Meta,
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use kube::core::WatchEvent;
    use serde_json::json;

    use super::*;
    use crate::sim::fixture;
    use crate::training_job::pods::{PodState, PodView};

    fn event<K: serde::de::DeserializeOwned>(object: &Value) -> K {
        let line = json!({"type": "MODIFIED", "object": object}).to_string();
        match serde_json::from_str(&line).expect("an event") {
            WatchEvent::Modified(object) => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_is_seen_as_if_all_of_it_were_read() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "digits-worker-1-2", "namespace": "team", "uid": "u", "resourceVersion": "7",
                "deletionTimestamp": "2026-01-01T00:00:00Z",
                "labels": {
                    crds::names::JOB_NAME: "digits", crds::names::JOB_UID: "uid",
                    crds::names::WORKER_INDEX: "1", crds::names::INCARNATION: "2", crds::names::ACTIVE: "true",
                },
                "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {"nodeName": "n", "containers": [{"name": "worker"}]},
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "hostIP": "10.0.0.2",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "worker", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "lastState": {},
                }],
                "initContainerStatuses": [{
                    "name": "agent", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                    "state": {"terminated": {"exitCode": 0}},
                }],
            },
        });
        let mut waiting = pod.clone();
        waiting["spec"] = json!({"containers": [], "resourceClaims": [
            {"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]});
        waiting["status"] = json!({"phase": "Pending"});
        waiting["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        let mut of_another = waiting.clone();
        of_another["spec"] = json!({"containers": [], "schedulerName": "volcano"});
        let mut of_the_default = waiting.clone();
        of_the_default["spec"] = json!({"containers": [], "schedulerName": "default-scheduler"});
        for waiting in [waiting, of_another, of_the_default] {
            let whole: Pod = serde_json::from_value(waiting.clone()).expect("a pod");
            let Lean(lean) = event::<Lean<Pod>>(&waiting);
            assert_eq!(PodView::of(&whole), PodView::of(&lean));
        }
        let whole: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        let Lean(lean) = event::<Lean<Pod>>(&pod);
        let view = PodView::of(&lean).expect("a worker");
        assert_eq!(PodState::Running, view.state);
        assert_eq!(PodView::of(&whole), Some(view));
        assert_eq!(whole.labels(), lean.labels());
        assert_eq!(None, lean.metadata.managed_fields);
    }

    #[test]
    fn a_job_is_read_without_what_nobody_looks_at() {
        let mut job = serde_json::to_value(fixture::job("digits", 2)).expect("plain data");
        job["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Apply"}]);
        job["metadata"]["annotations"] = json!({LAST_APPLIED: "{}", "a": "b"});
        let Lean(read) = event::<Lean<GuardedJob>>(&job);
        let read = read.0.expect("readable");
        let mut expected = fixture::job("digits", 2);
        expected.metadata.annotations = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(
            serde_json::to_value(expected).expect("plain data"),
            serde_json::to_value(read).expect("plain data")
        );
    }

    #[test]
    fn of_a_job_that_has_ended_only_its_end_is_kept() {
        let condition = |kind: &str, status: &str| {
            json!({
                "type": kind, "status": status, "reason": "Why", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let read = |state: &str| {
            let mut job = serde_json::to_value(fixture::job("digits", 2)).expect("plain data");
            let failed = if state == "Failed" { "True" } else { "False" };
            job["status"] = json!({
                "observedGeneration": 3,
                "state": state,
                "attempt": {"incarnation": 1, "restart": 2},
                "conditions": [condition("Accepted", "True"), condition("Failed", failed)],
                "completionTime": "2026-01-01T00:00:00Z",
                "restarts": 3,
                "warnings": ["a.jpg is damaged"],
                "progress": {"epoch": 1, "epochs": 1, "step": 1, "steps": 1, "percent": 100.0, "trainingSeconds": 1.0},
            });
            let Lean(read) = event::<Lean<GuardedJob>>(&job);
            read.0.expect("readable").status.expect("a status")
        };
        let (runs, ended) = (read("Running"), read("Failed"));
        assert_eq!((2, 1), (runs.conditions.len(), runs.warnings.len()));
        assert_eq!((1, 0), (ended.conditions.len(), ended.warnings.len()));
        assert_eq!((3, 0), (runs.restarts, ended.restarts));
        assert!(has_ended(&ended));
        // What is asked for again.
        assert_eq!(runs.attempt, ended.attempt);
        assert_eq!(runs.observed_generation, ended.observed_generation);
        assert_eq!(runs.completion_time, ended.completion_time);
        assert_eq!(runs.progress, ended.progress);
    }

    #[test]
    fn a_job_that_cannot_be_read_says_so_and_does_not_hide_the_others() {
        let good = serde_json::to_value(fixture::job("digits", 2)).expect("plain data");
        let mut bad = good.clone();
        bad["spec"]["training"]["device"] = "tpu".into();
        let text = json!([bad, good]).to_string();
        let listed: Vec<Lean<GuardedJob>> = serde_json::from_str(&text).expect("both are listed");
        let error = listed[0].0.0.as_ref().expect_err("an unknown device");
        assert!(error.error.contains("tpu"), "{error}");
        assert_eq!(Some("digits"), error.metadata.name.as_deref());
        assert!(listed[1].0.0.is_ok());
    }
}
