//! Small valid objects that tests change.

use contract::config::{FORMAT_VERSION, Images, JobConfig, JobIdentity};
use crds::v1alpha1::{Workers, YoloTrainingJob};
use serde_json::json;

/// A job with so many workers and the least else.
pub fn job(name: &str, replicas: u32) -> YoloTrainingJob {
    serde_json::from_value(json!({
        "apiVersion": "yolo-operator.dev/v1alpha1",
        "kind": "YoloTrainingJob",
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": format!("uid-{name}"),
            "generation": 1,
        },
        "spec": {
            "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
            "output": {"persistentVolumeClaim": {"claimName": "runs"}},
            "training": {"batchSize": 4 * replicas},
            "workers": {"replicas": replicas},
        },
    }))
    .expect("the smallest job")
}

/// Images of the fixtures.
pub fn images() -> Images {
    Images {
        trainer: "trainer:1".to_owned(),
        agent: "operator:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
    }
}

/// The frozen configuration of [`job`], with the part of the spec that only pods need.
pub fn config(name: &str, replicas: u32) -> (JobConfig, Workers) {
    let job = job(name, replicas);
    let config = JobConfig {
        format_version: FORMAT_VERSION,
        job: JobIdentity {
            namespace: "team".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
        },
        workers: job.spec.layout(),
        images: images(),
        command: Vec::new(),
        failure_policy: Some(job.spec.failure_policy.clone()),
        spec: job.spec.trainer(),
    };
    (config, job.spec.workers)
}
