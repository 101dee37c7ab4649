use std::collections::BTreeMap;

use contract::config::JobConfig;
use contract::{env, paths};
use crds::names;
use crds::v1alpha1::Workers;
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, Pod, PodSpec,
    ResourceRequirements, SecretKeySelector, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::placement;
use super::pod::{container_security, pod_security, some};
use super::resources::limits;
use super::volumes::{CONFIG, claim, fetch_claim, mount};
use crate::metadata::{child, job_labels};

const CACHE: &str = "dataset";
const SCRATCH: &str = "scratch";
/// A fetch goes on where it was stopped, so it need not be given long.
const GRACE_SECONDS: i64 = 5;

/// The `number`th pod that fetches the data set. It runs where workers may run, since its volume may be bound to
/// the node that mounts it first, and asks for no GPU.
pub fn pod(config: &JobConfig, workers: &Workers, number: u32) -> Pod {
    let id = &config.job;
    let template = &workers.template;
    let mut labels = job_labels(id);
    labels.insert(names::ROLE.to_owned(), names::ROLE_FETCH.to_owned());
    // Those that the operator selects by are refused there.
    labels.extend(template.labels.clone());
    let mut metadata = child(id, names::fetch_pod(&id.name, number), labels);
    metadata.annotations = some(&template.annotations);
    Pod {
        metadata,
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod_security()),
            node_selector: some(&template.node_selector),
            affinity: template.affinity.clone(),
            tolerations: Some(placement::tolerations(template)),
            priority_class_name: template.priority_class_name.clone(),
            scheduler_name: template.scheduler_name.clone(),
            image_pull_secrets: some(&template.image_pull_secrets),
            containers: vec![container(config, workers)],
            volumes: Some(volumes(config)),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

fn container(config: &JobConfig, workers: &Workers) -> Container {
    let requests = [("cpu", "100m"), ("memory", "128Mi")]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    let folder = paths::CONFIG_FILE
        .rsplit_once('/')
        .map_or("/", |(folder, _)| folder);
    Container {
        name: names::FETCH_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        command: Some(vec!["/yolo-fetch".to_owned()]),
        env: Some(environment(config)),
        resources: Some(ResourceRequirements {
            limits: limits(workers),
            requests: Some(BTreeMap::from(requests)),
            ..ResourceRequirements::default()
        }),
        security_context: Some(container_security()),
        termination_message_path: Some(paths::TERMINATION_MESSAGE_FILE.to_owned()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![
            VolumeMount {
                read_only: Some(true),
                ..mount(CONFIG, folder)
            },
            mount(SCRATCH, "/tmp"),
            mount(CACHE, paths::FETCH_DIR),
        ]),
        ..Container::default()
    }
}

/// Credentials come from the Secret by the kubelet: nobody here reads them.
fn environment(config: &JobConfig) -> Vec<EnvVar> {
    let dataset = &config.spec.dataset;
    let sub_path = fetch_claim(config).and_then(|claim| claim.sub_path);
    let folder = match sub_path {
        Some(sub_path) => format!("{}/{sub_path}", paths::FETCH_DIR),
        None => paths::FETCH_DIR.to_owned(),
    };
    let plain = [
        (env::CONFIG, paths::CONFIG_FILE.to_owned()),
        (env::FETCH_FOLDER, folder),
        ("HOME", "/tmp".to_owned()),
    ];
    let plain = plain.map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    });
    let storage = dataset.object_storage.as_ref();
    let storage = storage.and_then(|storage| storage.credentials_secret.as_deref());
    let storage = storage.into_iter().flat_map(credentials);
    let archive = dataset.archive.as_ref();
    let archive = archive.and_then(|archive| archive.credentials_secret.as_deref());
    let archive = archive
        .map(|secret| secret_variable(env::FETCH_AUTHORIZATION, secret, "authorization", false));
    plain.into_iter().chain(storage).chain(archive).collect()
}

/// The credentials of an object store, from the Secret that a user named.
pub(super) fn credentials(secret: &str) -> [EnvVar; 3] {
    [
        ("AWS_ACCESS_KEY_ID", false),
        ("AWS_SECRET_ACCESS_KEY", false),
        ("AWS_SESSION_TOKEN", true),
    ]
    .map(|(name, optional)| secret_variable(name, secret, name, optional))
}

fn secret_variable(name: &str, secret: &str, key: &str, optional: bool) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.to_owned(),
                key: key.to_owned(),
                optional: optional.then_some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn volumes(config: &JobConfig) -> Vec<Volume> {
    let named = |name: &str| Volume {
        name: name.to_owned(),
        ..Volume::default()
    };
    vec![
        Volume {
            config_map: Some(ConfigMapVolumeSource {
                name: names::config_map(&config.job.name),
                ..ConfigMapVolumeSource::default()
            }),
            ..named(CONFIG)
        },
        Volume {
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..named(SCRATCH)
        },
        Volume {
            persistent_volume_claim: fetch_claim(config).map(claim),
            ..named(CACHE)
        },
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crds::v1alpha1::Quantity as SpecQuantity;

    use super::super::pod::tests::named as found;
    use super::*;
    use crate::sim::fixture;

    fn built(dataset: Value) -> Value {
        let (mut config, mut workers) = fixture::config("digits", 2);
        workers.gpus_per_worker = 8;
        let limits = [
            ("cpu", "2"),
            ("memory", "4Gi"),
            ("ephemeral-storage", "9Gi"),
        ];
        let limits =
            limits.map(|(name, amount)| (name.to_owned(), SpecQuantity(amount.to_owned())));
        workers.resources.limits = BTreeMap::from(limits);
        workers.template.node_selector = BTreeMap::from([("gpu".to_owned(), "h100".to_owned())]);
        config.spec.dataset = serde_json::from_value(dataset).expect("a data set");
        serde_json::to_value(pod(&config, &workers, 3)).expect("plain data")
    }

    fn s3() -> Value {
        built(json!({
            "objectStorage": {"url": "s3://data/digits", "credentialsSecret": "keys"},
            "fetchTo": {"persistentVolumeClaim": {"claimName": "cache", "subPath": "a/b"}},
        }))
    }

    #[test]
    fn credentials_are_references_and_no_gpu_is_held() {
        let pod = s3();
        assert_eq!("digits-fetch-3", pod["metadata"]["name"]);
        let fetch = &pod["spec"]["containers"][0];
        assert_eq!(
            "/fetch/a/b",
            found(&fetch["env"], "YOLO_FETCH_FOLDER")["value"]
        );
        let key = &found(&fetch["env"], "AWS_SECRET_ACCESS_KEY")["valueFrom"]["secretKeyRef"];
        assert_eq!(
            json!({"name": "keys", "key": "AWS_SECRET_ACCESS_KEY"}),
            *key
        );
        let token = &found(&fetch["env"], "AWS_SESSION_TOKEN")["valueFrom"]["secretKeyRef"];
        assert_eq!(true, token["optional"]);
        assert!(!fetch["resources"].to_string().contains("nvidia"));
        // What a namespace lets a worker have is enough; one without limits is given none.
        let limits = json!({"cpu": "2", "memory": "4Gi"});
        assert_eq!(limits, fetch["resources"]["limits"]);
        assert_eq!("h100", pod["spec"]["nodeSelector"]["gpu"]);
        let claim = &found(&pod["spec"]["volumes"], CACHE)["persistentVolumeClaim"];
        assert_eq!(json!({"claimName": "cache"}), *claim);
        let archive = built(json!({
            "archive": {"url": "https://host/a.zip", "credentialsSecret": "token"},
            "fetchTo": {"volumeClaimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}},
        }));
        let fetch = &archive["spec"]["containers"][0];
        let header = &found(&fetch["env"], "YOLO_FETCH_AUTHORIZATION")["valueFrom"]["secretKeyRef"];
        assert_eq!(json!({"name": "token", "key": "authorization"}), *header);
        assert_eq!("/fetch", found(&fetch["env"], "YOLO_FETCH_FOLDER")["value"]);
        let claim = &found(&archive["spec"]["volumes"], CACHE)["persistentVolumeClaim"];
        assert_eq!(json!({"claimName": "digits-dataset"}), *claim);
    }

    #[test]
    fn it_is_no_worker_and_meets_the_restricted_standard() {
        let pod = s3();
        let labels = &pod["metadata"]["labels"];
        assert_eq!("fetch", labels[names::ROLE]);
        assert!(labels[names::ACTIVE].is_null() && labels[names::WORKER_INDEX].is_null());
        let spec = &pod["spec"];
        assert_eq!(json!(false), spec["automountServiceAccountToken"]);
        assert_eq!(json!(true), spec["securityContext"]["runAsNonRoot"]);
        let security = &spec["containers"][0]["securityContext"];
        assert_eq!(json!(false), security["allowPrivilegeEscalation"]);
        assert_eq!(json!(["ALL"]), security["capabilities"]["drop"]);
        assert_eq!(json!(true), security["readOnlyRootFilesystem"]);
    }
}
