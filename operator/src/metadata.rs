//! Names, labels and owner references of child objects.

use std::collections::BTreeMap;

use contract::attempt::Attempt;
use contract::config::JobIdentity;
use crds::names;
use crds::v1alpha1::YoloTrainingJob;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;

/// Labels of everything that belongs to a job.
pub fn job_labels(id: &JobIdentity) -> BTreeMap<String, String> {
    [
        (names::MANAGED_BY, names::MANAGED_BY_VALUE),
        ("app.kubernetes.io/name", "yolo-training-job"),
        (names::JOB_NAME, &id.name),
        (names::JOB_UID, &id.uid),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// Labels of one worker's pod; `named` where the job's Service gives it its DNS name.
pub fn pod_labels(
    id: &JobIdentity,
    index: u32,
    attempt: Attempt,
    named: bool,
) -> BTreeMap<String, String> {
    let mut labels = job_labels(id);
    labels.extend([
        (names::WORKER_INDEX.to_owned(), index.to_string()),
        (
            names::INCARNATION.to_owned(),
            attempt.incarnation.to_string(),
        ),
    ]);
    if named {
        labels.insert(names::ACTIVE.to_owned(), names::ACTIVE_VALUE.to_owned());
    }
    labels
}

/// What the job's Service selects: the pods that have a DNS name.
pub fn active_selector(id: &JobIdentity) -> BTreeMap<String, String> {
    [
        (names::JOB_UID.to_owned(), id.uid.clone()),
        (names::ACTIVE.to_owned(), names::ACTIVE_VALUE.to_owned()),
    ]
    .into()
}

/// Makes the job the owner, so that deleting it deletes the object.
pub fn owner(id: &JobIdentity) -> OwnerReference {
    OwnerReference {
        api_version: YoloTrainingJob::api_version(&()).into_owned(),
        kind: YoloTrainingJob::kind(&()).into_owned(),
        name: id.name.clone(),
        uid: id.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Metadata of a child object.
pub fn child(id: &JobIdentity, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(id.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![owner(id)]),
        ..ObjectMeta::default()
    }
}

/// Whether an object belongs to the job of this uid.
pub fn owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == uid)
}
