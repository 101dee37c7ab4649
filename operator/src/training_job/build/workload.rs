//! What stands in a queue of Kueue for a job.

use std::collections::BTreeMap;

use contract::config::JobConfig;
use crds::names;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kueue::{PodSet, PriorityClassRef, Workload, WorkloadSpec};
use crate::metadata::{child, job_labels};
use crate::training_job::queue::{POD_SET, QueueRequest};
use crate::training_job::validate::ValidJob;

/// The `Workload` of a job whose pods are like this one, still without the value of its priority class: that is
/// read where it is written.
pub fn workload(
    config: &JobConfig,
    valid: &ValidJob,
    request: &QueueRequest,
    frozen: bool,
    pod: Pod,
) -> Workload {
    let id = &config.job;
    let labels: BTreeMap<String, String> = pod.metadata.labels.unwrap_or_default();
    let class = |group: &str, kind: &str, name: &String| PriorityClassRef {
        group: group.to_owned(),
        kind: kind.to_owned(),
        name: name.clone(),
    };
    let queue_class = (request.priority_class.as_ref())
        .map(|name| class("kueue.x-k8s.io", "WorkloadPriorityClass", name));
    let pod_class = (valid.workers.template.priority_class_name.as_ref())
        .map(|name| class("scheduling.k8s.io", "PriorityClass", name));
    Workload {
        metadata: child(id, names::workload(&id.name, &id.uid), job_labels(id)),
        spec: WorkloadSpec {
            pod_sets: vec![PodSet {
                name: POD_SET.to_owned(),
                count: valid.layout.replicas,
                // The gang that began is the gang that goes on.
                min_count: valid.workers.min_replicas.filter(|_| !frozen),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(labels),
                        ..ObjectMeta::default()
                    }),
                    spec: pod.spec,
                },
            }],
            queue_name: request.queue.clone(),
            priority_class_ref: queue_class.or(pod_class),
            priority: None,
            active: None,
        },
        status: None,
    }
}
