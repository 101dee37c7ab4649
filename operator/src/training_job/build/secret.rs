use contract::config::JobIdentity;
use crds::names;
use k8s_openapi::api::core::v1::Secret;

use crate::metadata::{child, job_labels};

/// The Secret that lets the agents of a job know each other, still without its token: that is made up where
/// it is written, and read by nobody but the pods.
pub fn group(id: &JobIdentity) -> Secret {
    Secret {
        metadata: child(id, names::group_secret(&id.name, &id.uid), job_labels(id)),
        immutable: Some(true),
        ..Secret::default()
    }
}
