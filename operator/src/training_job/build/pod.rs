//! One worker's pod.

use std::collections::BTreeMap;

use contract::attempt::Attempt;
use contract::config::JobConfig;
use contract::spec::{Cache, VolumeClaim};
use contract::{env, paths};
use crds::names;
use crds::v1alpha1::{Quantity as SpecQuantity, Workers};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    ImageVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext,
    PodSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretProjection,
    SecurityContext, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::placement;
use crate::metadata::{child, pod_labels};

/// The user and group of every container; files on the output volume belong to it.
const USER: i64 = 65532;
/// Long enough for the ranks to agree on a step, finish it and write a checkpoint.
pub const GRACE_SECONDS: i64 = 40;

const CONFIG: &str = "config";
const AGENT: &str = "agent";
const SHARED_MEMORY: &str = "shared-memory";
const SCRATCH: &str = "scratch";
const CACHE: &str = "image-cache";
const DATASET: &str = "dataset";
const OUTPUT: &str = "output";

/// Which pod it is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Which worker.
    pub index: u32,
    /// Which pod of that worker.
    pub number: u32,
    /// The attempt that it begins with.
    pub attempt: Attempt,
    /// Nodes that it keeps off where it can.
    pub avoid: &'a [String],
    /// How often its agent may restart ranks in place.
    pub restarts_left: u32,
}

/// The pod of a worker in an attempt.
///
/// It has no probes: the agent ends the container itself when a rank fails or hangs, and a probe that
/// knows less (a data set may take minutes to read) could only kill a healthy run.
pub fn pod(config: &JobConfig, workers: &Workers, place: &Place<'_>) -> Pod {
    let id = &config.job;
    let template = &workers.template;
    let own = pod_labels(id, place.index, place.attempt);
    let mut labels = own.clone();
    // Those that the operator selects by are refused there.
    labels.extend(template.labels.clone());
    let name = names::worker_pod(&id.name, place.index, place.number);
    let mut metadata = child(id, name, labels);
    let mut annotations = BTreeMap::from([(
        "kubectl.kubernetes.io/default-container".to_owned(),
        names::WORKER_CONTAINER.to_owned(),
    )]);
    annotations.extend(template.annotations.clone());
    annotations.insert(names::ATTEMPT.to_owned(), place.attempt.to_string());
    metadata.annotations = Some(annotations);
    Pod {
        metadata,
        spec: Some(PodSpec {
            hostname: Some(names::worker_host(&id.name, place.index)),
            subdomain: Some(names::service(&id.name)),
            restart_policy: Some("Never".to_owned()),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod_security()),
            node_selector: some(&template.node_selector),
            affinity: placement::affinity(template, place.avoid),
            topology_spread_constraints: placement::spread(template, &own, place.avoid),
            tolerations: Some(placement::tolerations(template)),
            priority_class_name: template.priority_class_name.clone(),
            runtime_class_name: template.runtime_class_name.clone(),
            scheduler_name: template.scheduler_name.clone(),
            image_pull_secrets: some(&template.image_pull_secrets),
            init_containers: Some(vec![agent(config)]),
            containers: vec![worker(config, workers, place)],
            volumes: Some(volumes(config, workers)),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

/// None of what is empty.
fn some<T: Default + PartialEq + Clone>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

/// Copies the agent in, so that any image can be the trainer.
fn agent(config: &JobConfig) -> Container {
    Container {
        name: names::AGENT_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        command: Some(vec!["/yolo-agent".to_owned()]),
        args: Some(vec!["install".to_owned(), paths::AGENT_DIR.to_owned()]),
        security_context: Some(container_security()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount(AGENT, paths::AGENT_DIR)]),
        ..Container::default()
    }
}

fn worker(config: &JobConfig, workers: &Workers, place: &Place<'_>) -> Container {
    let argument = |text: &str| text.to_owned();
    let command = if config.command.is_empty() {
        ["yolo-trainer", "train"].map(argument).to_vec()
    } else {
        config.command.clone()
    };
    Container {
        name: names::WORKER_CONTAINER.to_owned(),
        image: Some(config.images.trainer.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        command: Some(vec![argument(paths::AGENT_BINARY)]),
        args: Some(
            ["run", "--"]
                .map(argument)
                .into_iter()
                .chain(command)
                .collect(),
        ),
        env: Some(environment(config, workers, place)),
        ports: Some(vec![
            port(names::METRICS_PORT, paths::AGENT_PORT),
            port(names::RENDEZVOUS_PORT, paths::MASTER_PORT),
            port(names::GROUP_PORT, paths::GROUP_PORT),
        ]),
        resources: Some(resources(workers)),
        security_context: Some(container_security()),
        termination_message_path: Some(paths::TERMINATION_MESSAGE_FILE.to_owned()),
        // An agent that is itself killed leaves no message; the end of the log then explains more.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(mounts(config)),
        ..Container::default()
    }
}

fn environment(config: &JobConfig, workers: &Workers, place: &Place<'_>) -> Vec<EnvVar> {
    let pairs = [
        (env::MASTER_ADDR, names::master_address(&config.job.name)),
        (env::MASTER_PORT, paths::MASTER_PORT.to_string()),
        (env::NNODES, config.workers.replicas.to_string()),
        (env::NODE_RANK, place.index.to_string()),
        (
            env::NPROC_PER_NODE,
            config.workers.processes_per_worker.to_string(),
        ),
    ];
    let torchrun = env::TORCHRUN_NAMES.into_iter().filter_map(|(name, of)| {
        let (_, value) = pairs.iter().find(|(pair, _)| *pair == of)?;
        Some((name, value.clone()))
    });
    let others = [
        (env::ATTEMPT, place.attempt.to_string()),
        (env::RESTARTS_LEFT, place.restarts_left.to_string()),
        (env::CONFIG, paths::CONFIG_FILE.to_owned()),
        // The root file system is read-only; what looks for a home finds the scratch folder.
        ("HOME", "/tmp".to_owned()),
    ];
    let group =
        is_group(config).then(|| (env::GROUP_TOKEN_FILE, paths::GROUP_TOKEN_FILE.to_owned()));
    let hosts = [env::HOSTFILE, env::OMPI_HOSTFILE].map(|name| (name, paths::HOSTFILE.to_owned()));
    let hosts = hosts.into_iter().filter(|_| !config.command.is_empty());
    // Without a restart in place nobody would read them.
    let snapshots =
        (place.restarts_left > 0).then(|| (env::SNAPSHOTS, paths::SNAPSHOT_DIR.to_owned()));
    let cublas = config.spec.training.deterministic.then(|| {
        let (name, value) = env::CUBLAS_WORKSPACE;
        (name, value.to_owned())
    });
    let all = pairs
        .iter()
        .cloned()
        .chain(torchrun)
        .chain(others)
        .chain(group)
        .chain(snapshots)
        .chain(hosts)
        .chain(cublas);
    let all = all.map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    });
    let own = workers.container.iter().flat_map(|own| own.env.clone());
    all.chain(own).collect()
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        ..ContainerPort::default()
    }
}

fn resources(workers: &Workers) -> ResourceRequirements {
    let plain = |resources: &BTreeMap<String, SpecQuantity>| -> BTreeMap<String, Quantity> {
        resources
            .iter()
            .map(|(name, quantity)| (name.clone(), Quantity(quantity.0.clone())))
            .collect()
    };
    let mut limits = plain(&workers.resources.limits);
    let mut requests = plain(&workers.resources.requests);
    if workers.gpus_per_worker > 0 {
        let gpus = Quantity(workers.gpus_per_worker.to_string());
        limits.insert(names::GPU_RESOURCE.to_owned(), gpus.clone());
        requests.insert(names::GPU_RESOURCE.to_owned(), gpus);
    }
    ResourceRequirements {
        limits: (!limits.is_empty()).then_some(limits),
        requests: (!requests.is_empty()).then_some(requests),
        ..ResourceRequirements::default()
    }
}

/// What the "restricted" Pod Security Standard asks for.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        // Without this the kubelet changes the owner of every file of a volume, at every start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        ..SecurityContext::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// Whether data set and output are on the same claim. A pod then has one volume for both: two volumes of
/// one claim in a pod do not mount with every driver.
fn one_claim(config: &JobConfig) -> bool {
    let output = &config.spec.output.persistent_volume_claim;
    let dataset = config.spec.dataset.persistent_volume_claim.as_ref();
    dataset.is_some_and(|dataset| dataset.claim_name == output.claim_name)
}

fn mounts(config: &JobConfig) -> Vec<VolumeMount> {
    let folder = paths::CONFIG_FILE
        .rsplit_once('/')
        .map_or("/", |(folder, _)| folder);
    let dataset = config.spec.dataset.persistent_volume_claim.as_ref();
    let dataset_volume = if one_claim(config) { OUTPUT } else { DATASET };
    let mut mounts = vec![
        VolumeMount {
            read_only: Some(true),
            ..mount(CONFIG, folder)
        },
        mount(AGENT, paths::AGENT_DIR),
        mount(SCRATCH, "/tmp"),
        mount(SHARED_MEMORY, "/dev/shm"),
        VolumeMount {
            read_only: Some(true),
            sub_path: dataset.and_then(|claim| claim.sub_path.clone()),
            ..mount(dataset_volume, paths::DATASET_DIR)
        },
        VolumeMount {
            sub_path: config.spec.output.persistent_volume_claim.sub_path.clone(),
            ..mount(OUTPUT, paths::OUTPUT_DIR)
        },
    ];
    if config.spec.training.cache == Cache::Disk {
        mounts.push(mount(CACHE, paths::CACHE_DIR));
    }
    mounts
}

fn volumes(config: &JobConfig, workers: &Workers) -> Vec<Volume> {
    let named = |name: &str| Volume {
        name: name.to_owned(),
        ..Volume::default()
    };
    let empty = |name: &str| Volume {
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..named(name)
    };
    let mut volumes = vec![
        Volume {
            projected: Some(ProjectedVolumeSource {
                sources: Some(configuration(config)),
                ..ProjectedVolumeSource::default()
            }),
            ..named(CONFIG)
        },
        empty(AGENT),
        empty(SCRATCH),
        Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                medium: Some("Memory".to_owned()),
                size_limit: Some(Quantity(workers.shared_memory.clone())),
                ..EmptyDirVolumeSource::default()
            }),
            ..named(SHARED_MEMORY)
        },
        Volume {
            persistent_volume_claim: Some(claim(&config.spec.output.persistent_volume_claim)),
            ..named(OUTPUT)
        },
    ];
    if !one_claim(config) {
        volumes.push(dataset(config, named(DATASET)));
    }
    let training = &config.spec.training;
    if training.cache == Cache::Disk {
        volumes.push(Volume {
            empty_dir: Some(EmptyDirVolumeSource {
                size_limit: training.cache_limit.clone().map(Quantity),
                ..EmptyDirVolumeSource::default()
            }),
            ..named(CACHE)
        });
    }
    volumes
}

/// The frozen configuration, and beside it what the agents know each other by.
fn configuration(config: &JobConfig) -> Vec<VolumeProjection> {
    let config_map = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: names::config_map(&config.job.name),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    let token = KeyToPath {
        key: names::GROUP_TOKEN_KEY.to_owned(),
        path: names::GROUP_TOKEN_KEY.to_owned(),
        ..KeyToPath::default()
    };
    let secret = is_group(config).then(|| VolumeProjection {
        secret: Some(SecretProjection {
            name: names::group_secret(&config.job.name, &config.job.uid),
            items: Some(vec![token]),
            ..SecretProjection::default()
        }),
        ..VolumeProjection::default()
    });
    [config_map].into_iter().chain(secret).collect()
}

/// Whether there is more than one agent.
fn is_group(config: &JobConfig) -> bool {
    config.workers.replicas > 1
}

fn dataset(config: &JobConfig, volume: Volume) -> Volume {
    let source = &config.spec.dataset;
    Volume {
        // Read-only as a whole, so that the kubelet does not change the owner of the user's files.
        persistent_volume_claim: source.persistent_volume_claim.as_ref().map(|source| {
            PersistentVolumeClaimVolumeSource {
                read_only: Some(true),
                ..claim(source)
            }
        }),
        image: source.image.as_ref().map(|image| ImageVolumeSource {
            reference: Some(image.reference.clone()),
            pull_policy: Some(image.pull_policy.as_str().to_owned()),
        }),
        ..volume
    }
}

fn claim(claim: &VolumeClaim) -> PersistentVolumeClaimVolumeSource {
    PersistentVolumeClaimVolumeSource {
        claim_name: claim.claim_name.clone(),
        read_only: None,
    }
}

#[cfg(test)]
mod tests {
    use contract::spec::ImageSource;
    use serde_json::{Value, json};

    use super::*;
    use crate::sim::fixture;

    fn built(change: impl FnOnce(&mut JobConfig, &mut Workers)) -> Value {
        let (mut config, mut workers) = fixture::config("digits", 2);
        change(&mut config, &mut workers);
        let place = Place {
            index: 1,
            number: 3,
            attempt: Attempt {
                incarnation: 2,
                restart: 0,
            },
            avoid: &[],
            restarts_left: 4,
        };
        serde_json::to_value(pod(&config, &workers, &place)).expect("plain data")
    }

    fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
        list.as_array()
            .and_then(|list| list.iter().find(|item| item["name"] == name))
            .unwrap_or_else(|| panic!("no {name} in {list}"))
    }

    #[test]
    fn a_worker_knows_its_place() {
        let pod = built(|_, _| {});
        assert_eq!("digits-worker-1-3", pod["metadata"]["name"]);
        let spec = &pod["spec"];
        assert_eq!(
            (json!("digits-worker-1"), json!("digits")),
            (spec["hostname"].clone(), spec["subdomain"].clone())
        );
        let env = &spec["containers"][0]["env"];
        for (name, value) in [
            ("MASTER_ADDR", "digits-worker-0.digits"),
            ("PET_MASTER_ADDR", "digits-worker-0.digits"),
            ("MASTER_PORT", "29500"),
            ("NNODES", "2"),
            ("NODE_RANK", "1"),
            ("PET_NODE_RANK", "1"),
            ("NPROC_PER_NODE", "1"),
            ("YOLO_ATTEMPT", "2.0"),
            ("YOLO_CONFIG", "/etc/yolo-operator/job.json"),
            ("YOLO_RESTARTS_LEFT", "4"),
            ("YOLO_SNAPSHOTS", "/dev/shm/snapshots"),
        ] {
            assert_eq!(value, named(env, name)["value"], "{name}");
        }
        assert_eq!(
            json!(["/yolo/yolo-agent"]),
            spec["containers"][0]["command"]
        );
    }

    #[test]
    fn another_program_gets_the_same_place() {
        let container: crds::v1alpha1::WorkerContainer = serde_json::from_value(json!({
            "image": "team/train:7", "command": ["python", "train.py"],
            "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        }))
        .expect("a container");
        let pod = built(|config, workers| {
            config.command = container.command.clone();
            config.images.trainer = container.image.clone();
            workers.container = Some(container.clone());
        });
        let worker = &pod["spec"]["containers"][0];
        assert_eq!("team/train:7", worker["image"]);
        assert_eq!(json!(["run", "--", "python", "train.py"]), worker["args"]);
        for (name, value) in [
            ("NCCL_DEBUG", "INFO"),
            ("PET_NNODES", "2"),
            ("YOLO_HOSTFILE", "/etc/yolo-operator/hostfile"),
        ] {
            assert_eq!(value, named(&worker["env"], name)["value"], "{name}");
        }
        let plain = built(|_, _| {});
        let worker = &plain["spec"]["containers"][0];
        assert_eq!(
            json!(["run", "--", "yolo-trainer", "train"]),
            worker["args"]
        );
        assert!(!worker["env"].to_string().contains("HOSTFILE"));
    }

    #[test]
    fn agents_of_several_workers_share_a_secret() {
        let shared = |replicas| {
            let pod = built(|config, _| config.workers.replicas = replicas);
            let volume = named(&pod["spec"]["volumes"], CONFIG).clone();
            let env = pod["spec"]["containers"][0]["env"].to_string();
            (volume["projected"]["sources"].clone(), env)
        };
        let (sources, env) = shared(2);
        assert_eq!("digits-config", sources[0]["configMap"]["name"]);
        assert_eq!(
            json!({"name": "digits-group-uid-digi", "items": [{"key": "group-token", "path": "group-token"}]}),
            sources[1]["secret"]
        );
        assert!(env.contains("/etc/yolo-operator/group-token"), "{env}");
        let (sources, env) = shared(1);
        assert_eq!(1, sources.as_array().map_or(0, Vec::len));
        assert!(!env.contains("group-token"), "{env}");
    }

    #[test]
    fn cublas_is_told_to_be_repeatable_where_the_job_is() {
        let env = |deterministic| {
            let pod = built(|config, _| config.spec.training.deterministic = deterministic);
            pod["spec"]["containers"][0]["env"].clone()
        };
        let cublas = "CUBLAS_WORKSPACE_CONFIG";
        assert_eq!(":4096:8", named(&env(true), cublas)["value"]);
        assert!(!env(false).to_string().contains(cublas));
    }

    #[test]
    fn the_template_adds_to_what_the_operator_needs() {
        let pod = built(|_, workers| {
            let template = &mut workers.template;
            template.labels = BTreeMap::from([
                ("team".to_owned(), "vision".to_owned()),
                ("app.kubernetes.io/name".to_owned(), "detector".to_owned()),
            ]);
            template.annotations = BTreeMap::from([("a/b".to_owned(), "c".to_owned())]);
            template.node_selector = BTreeMap::from([("disk".to_owned(), "fast".to_owned())]);
            template.priority_class_name = Some("high".to_owned());
            template.runtime_class_name = Some("nvidia".to_owned());
            template.scheduler_name = Some("volcano".to_owned());
        });
        let metadata = &pod["metadata"];
        assert_eq!("vision", metadata["labels"]["team"]);
        assert_eq!("detector", metadata["labels"]["app.kubernetes.io/name"]);
        assert_eq!("true", metadata["labels"][names::ACTIVE]);
        assert_eq!("c", metadata["annotations"]["a/b"]);
        assert_eq!("2.0", metadata["annotations"][names::ATTEMPT]);
        let spec = &pod["spec"];
        assert_eq!(json!({"disk": "fast"}), spec["nodeSelector"]);
        assert_eq!("high", spec["priorityClassName"]);
        assert_eq!("nvidia", spec["runtimeClassName"]);
        assert_eq!("volcano", spec["schedulerName"]);
        let plain = built(|_, _| {})["spec"].clone();
        for field in ["nodeSelector", "affinity", "imagePullSecrets"] {
            assert!(plain.get(field).is_none(), "{field}");
        }
    }

    #[test]
    fn a_worker_meets_the_restricted_standard() {
        let spec = built(|_, _| {})["spec"].clone();
        assert_eq!(json!(false), spec["automountServiceAccountToken"]);
        assert_eq!(json!(true), spec["securityContext"]["runAsNonRoot"]);
        assert_eq!(
            "RuntimeDefault",
            spec["securityContext"]["seccompProfile"]["type"]
        );
        for container in [&spec["containers"][0], &spec["initContainers"][0]] {
            let security = &container["securityContext"];
            assert_eq!(json!(false), security["allowPrivilegeEscalation"]);
            assert_eq!(json!(["ALL"]), security["capabilities"]["drop"]);
            assert_eq!(json!(true), security["readOnlyRootFilesystem"]);
        }
    }

    #[test]
    fn the_data_set_is_read_only_from_any_source() {
        let data = |spec: &Value| {
            let mounts = spec["containers"][0]["volumeMounts"].as_array().cloned();
            mounts
                .into_iter()
                .flatten()
                .find(|mount| mount["mountPath"] == "/data")
                .expect("a mount")
        };
        let own = built(|_, _| {})["spec"].clone();
        assert_eq!(json!(true), data(&own)["readOnly"]);
        let claim = &named(&own["volumes"], DATASET)["persistentVolumeClaim"];
        assert_eq!(json!({"claimName": "digits", "readOnly": true}), *claim);

        let image = built(|config, _| {
            config.spec.dataset.persistent_volume_claim = None;
            config.spec.dataset.image = Some(ImageSource {
                reference: "data:1".to_owned(),
                pull_policy: contract::spec::PullPolicy::Always,
            });
        })["spec"]
            .clone();
        assert_eq!(
            json!({"reference": "data:1", "pullPolicy": "Always"}),
            named(&image["volumes"], DATASET)["image"]
        );

        let shared = built(|config, _| {
            config.spec.dataset.persistent_volume_claim = Some(VolumeClaim {
                claim_name: "runs".to_owned(),
                sub_path: Some("digits".to_owned()),
            });
        })["spec"]
            .clone();
        assert_eq!(
            json!({"name": OUTPUT, "mountPath": "/data", "readOnly": true, "subPath": "digits"}),
            data(&shared)
        );
        let volumes = shared["volumes"].as_array().expect("a list");
        let claims = volumes
            .iter()
            .filter(|v| v["persistentVolumeClaim"].is_object());
        assert_eq!(1, claims.count());
    }

    #[test]
    fn images_cached_on_disk_have_a_volume_of_their_own() {
        let spec = |cache, limit: Option<&str>| {
            built(|config, _| {
                config.spec.training.cache = cache;
                config.spec.training.cache_limit = limit.map(str::to_owned);
            })["spec"]
                .clone()
        };
        let disk = spec(Cache::Disk, Some("20Gi"));
        let volume = named(&disk["volumes"], CACHE);
        assert_eq!(json!({"sizeLimit": "20Gi"}), volume["emptyDir"]);
        let mount = named(&disk["containers"][0]["volumeMounts"], CACHE);
        assert_eq!(json!({"name": CACHE, "mountPath": "/cache"}), *mount);
        let unlimited = spec(Cache::Disk, None);
        assert_eq!(json!({}), named(&unlimited["volumes"], CACHE)["emptyDir"]);
        for cache in [Cache::Ram, Cache::None] {
            assert!(!spec(cache, None).to_string().contains(CACHE), "{cache:?}");
        }
    }

    #[test]
    fn gpus_and_shared_memory_are_asked_for() {
        let pod = built(|config, workers| {
            workers.gpus_per_worker = 2;
            workers.shared_memory = "3Gi".to_owned();
            config.workers = workers.layout();
        });
        let spec = &pod["spec"];
        assert_eq!(
            "2",
            spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
        );
        assert_eq!(
            "2",
            named(&spec["containers"][0]["env"], "NPROC_PER_NODE")["value"]
        );
        assert_eq!(
            json!({"medium": "Memory", "sizeLimit": "3Gi"}),
            named(&spec["volumes"], SHARED_MEMORY)["emptyDir"]
        );
    }
}
