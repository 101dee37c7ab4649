//! The container beside worker 0 that keeps the run in an object store.

use std::collections::BTreeMap;

use contract::config::JobConfig;
use contract::{env, paths};
use crds::names;
use crds::v1alpha1::Workers;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceRequirements, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::fetch::credentials;
use super::pod::container_security;
use super::resources::limits_of;
use super::volumes::{CONFIG, KEEP, OUTPUT, mount};

/// Whether this worker has one: rank 0 alone writes, and begins with what was written.
pub fn is_beside(config: &JobConfig, worker: u32) -> bool {
    config.spec.output.object_storage.is_some() && worker == 0
}

/// It starts before the worker's container and is stopped after it, as init containers that are always restarted are.
pub fn keeper(config: &JobConfig, workers: &Workers) -> Container {
    let requests = [("cpu", "50m"), ("memory", "64Mi")]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    let folder = paths::CONFIG_FILE
        .rsplit_once('/')
        .map_or("/", |(folder, _)| folder);
    Container {
        name: names::KEEPER_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        restart_policy: Some("Always".to_owned()),
        command: Some(vec!["/yolo-fetch".to_owned()]),
        args: Some(vec!["keep".to_owned()]),
        env: Some(environment(config)),
        resources: Some(ResourceRequirements {
            limits: limits_of(workers, [("cpu", "1"), ("memory", "1Gi")]),
            requests: Some(BTreeMap::from(requests)),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        volume_mounts: Some(vec![
            VolumeMount {
                read_only: Some(true),
                ..mount(CONFIG, folder)
            },
            mount(OUTPUT, paths::OUTPUT_DIR),
            mount(KEEP, paths::KEEP_DIR),
        ]),
        ..Container::default()
    }
}

fn environment(config: &JobConfig) -> Vec<EnvVar> {
    let plain = [
        (env::CONFIG, paths::CONFIG_FILE),
        (env::KEEP, paths::KEEP_DIR),
    ];
    let plain = plain.map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    });
    let pod = EnvVar {
        name: "POD_NAME".to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "metadata.name".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let storage = config.spec.output.object_storage.as_ref();
    let secret = storage.and_then(|storage| storage.credentials_secret.as_deref());
    let credentials = secret.into_iter().flat_map(credentials);
    plain.into_iter().chain([pod]).chain(credentials).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::pod::tests::{built_as, named};

    #[test]
    fn worker_0_alone_has_a_keeper_which_alone_has_the_credentials() {
        let pod = |index| {
            built_as(index, |config, _| {
                let output = &mut config.spec.output;
                output.persistent_volume_claim = None;
                let storage = json!({"url": "s3://runs/team", "credentialsSecret": "keys"});
                output.object_storage = serde_json::from_value(storage).expect("a store");
            })["spec"]
                .clone()
        };
        let first = pod(0);
        let keeper = named(&first["initContainers"], "keeper");
        assert_eq!("Always", keeper["restartPolicy"]);
        assert_eq!(json!(["keep"]), keeper["args"]);
        let key = &named(&keeper["env"], "AWS_ACCESS_KEY_ID")["valueFrom"]["secretKeyRef"];
        assert_eq!("keys", key["name"]);
        let worker = &first["containers"][0];
        assert!(!worker["env"].to_string().contains("AWS_"), "{worker}");
        assert_eq!("/keep", named(&worker["env"], "YOLO_KEEP")["value"]);
        assert_eq!(json!({}), named(&first["volumes"], "output")["emptyDir"]);
        assert_eq!(json!({}), named(&first["volumes"], "keep")["emptyDir"]);

        let second = pod(1);
        assert_eq!(1, second["initContainers"].as_array().map_or(0, Vec::len));
        assert!(!second.to_string().contains("YOLO_KEEP"), "{second}");
        // The run's folder goes with worker 0's pod, and a copy of the state elsewhere would be ahead of it.
        assert!(worker["env"].to_string().contains("YOLO_SNAPSHOTS"));
        assert!(!second.to_string().contains("YOLO_SNAPSHOTS"), "{second}");
        assert_eq!(json!({}), named(&second["volumes"], "output")["emptyDir"]);
    }
}
