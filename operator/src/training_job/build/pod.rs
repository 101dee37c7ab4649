//! One worker's pod.

use std::collections::BTreeMap;

use contract::attempt::Attempt;
use contract::config::JobConfig;
use contract::{env, paths};
use crds::names;
use crds::v1alpha1::{Quantity as SpecQuantity, Workers};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
    PodSecurityContext, PodSpec, ResourceRequirements, SeccompProfile, SecurityContext,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::volumes::{AGENT, mount, mounts, volumes};
use super::{is_group, keeper, placement};
use crate::metadata::{child, pod_labels};

/// The user and group of every container; files on the output volume belong to it.
const USER: i64 = 65532;
/// Long enough for the ranks to agree on a step, finish it and write a checkpoint.
pub const GRACE_SECONDS: i64 = 40;

/// Which pod it is.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Which worker.
    pub index: u32,
    /// Which pod of that worker.
    pub number: u32,
    /// The attempt that it begins with.
    pub attempt: Attempt,
    /// A label of nodes that has one value for all workers.
    pub same_topology: Option<&'a str>,
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
    // Ranks of the trainer learn of each other through worker 0; a program of one's own has a hostfile.
    let named = place.index == 0 || !config.command.is_empty();
    let own = pod_labels(id, place.index, place.attempt, named);
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
            affinity: placement::affinity(template, place.same_topology, &own, place.avoid),
            topology_spread_constraints: placement::spread(template, &own, place.avoid),
            tolerations: Some(placement::tolerations(template)),
            priority_class_name: template.priority_class_name.clone(),
            runtime_class_name: template.runtime_class_name.clone(),
            scheduler_name: template.scheduler_name.clone(),
            host_network: template.host_network.then_some(true),
            // Else names of the cluster would not be found.
            dns_policy: template
                .host_network
                .then(|| "ClusterFirstWithHostNet".to_owned()),
            resource_claims: some(&template.resource_claims),
            image_pull_secrets: some(&template.image_pull_secrets),
            init_containers: Some(init_containers(config, workers, place.index)),
            containers: vec![worker(config, workers, place)],
            volumes: Some(volumes(config, workers, place.index)),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}

fn init_containers(config: &JobConfig, workers: &Workers, worker: u32) -> Vec<Container> {
    let keeper = keeper::is_beside(config, worker).then(|| keeper::keeper(config, workers));
    let agent = agent(config, workers);
    [agent].into_iter().chain(keeper).collect()
}

/// What a container is given that ends before the worker's begins: the same, but for devices. The pod needs no more for
/// that, and where a quota counts something, each container has to say how much of it.
fn before_worker(workers: &Workers) -> ResourceRequirements {
    const COUNTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
    let ResourceRequirements {
        limits, requests, ..
    } = resources(workers);
    let counted = |amounts: Option<BTreeMap<String, Quantity>>| {
        let mut amounts = amounts?;
        amounts.retain(|name, _| COUNTED.contains(&name.as_str()));
        (!amounts.is_empty()).then_some(amounts)
    };
    ResourceRequirements {
        limits: counted(limits),
        requests: counted(requests),
        claims: None,
    }
}

/// None of what is empty.
pub(super) fn some<T: Default + PartialEq + Clone>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

/// The limits of a container beside the workers that has enough with these: none where the workers have none. Where a
/// quota counts limits, each container has to have one.
pub(super) fn limits(
    workers: &Workers,
    amounts: [(&str, &str); 2],
) -> Option<BTreeMap<String, Quantity>> {
    let limited = |(name, _): &(&str, &str)| workers.resources.limits.contains_key(*name);
    let amounts = amounts.into_iter().filter(limited);
    let limits = amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())));
    some(&limits.collect())
}

/// Copies the agent in, so that any image can be the trainer.
fn agent(config: &JobConfig, workers: &Workers) -> Container {
    Container {
        name: names::AGENT_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        command: Some(vec!["/yolo-agent".to_owned()]),
        args: Some(vec!["install".to_owned(), paths::AGENT_DIR.to_owned()]),
        resources: Some(before_worker(workers)),
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
        volume_mounts: Some(mounts(config, place.index)),
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
        let launched = (of == env::NPROC_PER_NODE).then(|| config.workers.slots().to_string());
        Some((name, launched.unwrap_or_else(|| value.clone())))
    });
    let others = [
        (env::ATTEMPT, place.attempt.to_string()),
        (env::RESTARTS_LEFT, place.restarts_left.to_string()),
        (env::POD_NUMBER, place.number.to_string()),
        (env::CONFIG, paths::CONFIG_FILE.to_owned()),
        // The root file system is read-only; what looks for a home finds the scratch folder.
        ("HOME", "/tmp".to_owned()),
    ];
    let group =
        is_group(config).then(|| (env::GROUP_TOKEN_FILE, paths::GROUP_TOKEN_FILE.to_owned()));
    let hosts = [env::HOSTFILE, env::OMPI_HOSTFILE].map(|name| (name, paths::HOSTFILE.to_owned()));
    let hosts = hosts.into_iter().filter(|_| !config.command.is_empty());
    // Without a restart in place, or of a worker alone, nobody would read them. Where the run's folder is on worker 0's
    // disk, a copy of another worker would be ahead of what is left of that folder once worker 0 is lost.
    let folder_stays = place.index == 0 || config.spec.output.object_storage.is_none();
    let snapshots = (folder_stays && (place.restarts_left > 0 || is_group(config)))
        .then(|| (env::SNAPSHOTS, paths::SNAPSHOT_DIR.to_owned()));
    let keep =
        keeper::is_beside(config, place.index).then(|| (env::KEEP, paths::KEEP_DIR.to_owned()));
    let cublas = config.spec.training.deterministic.then(|| {
        let (name, value) = env::CUBLAS_WORKSPACE;
        (name, value.to_owned())
    });
    let network = workers.network.environment().iter();
    let network = network.map(|&(name, value)| (name, value.to_owned()));
    let all = pairs
        .iter()
        .cloned()
        .chain(torchrun)
        .chain(network)
        .chain(others)
        .chain(group)
        .chain(snapshots)
        .chain(keep)
        .chain(hosts)
        .chain(cublas);
    let all = all.map(|(name, value)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    });
    let own = workers.container.iter().flat_map(|own| own.env.clone());
    let node = EnvVar {
        name: env::NODE_NAME.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: "spec.nodeName".to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    let all = all.chain([node]);
    // What the user writes comes last, and so counts.
    all.chain(workers.env.iter().cloned()).chain(own).collect()
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
    if workers.gpus_per_worker > 0 && !workers.gpu_resource.is_empty() {
        let gpus = Quantity(workers.gpus_per_worker.to_string());
        limits.insert(workers.gpu_resource.clone(), gpus.clone());
        requests.insert(workers.gpu_resource.clone(), gpus);
    }
    ResourceRequirements {
        limits: (!limits.is_empty()).then_some(limits),
        requests: (!requests.is_empty()).then_some(requests),
        claims: some(&workers.resources.claims),
    }
}

/// What the "restricted" Pod Security Standard asks for.
pub(super) fn pod_security() -> PodSecurityContext {
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

pub(super) fn container_security() -> SecurityContext {
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

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::super::volumes::{CONFIG, SHARED_MEMORY};
    use super::*;
    use crate::sim::fixture;

    pub(in super::super) fn built(change: impl FnOnce(&mut JobConfig, &mut Workers)) -> Value {
        built_as(1, change)
    }

    pub(in super::super) fn built_as(
        index: u32,
        change: impl FnOnce(&mut JobConfig, &mut Workers),
    ) -> Value {
        let (mut config, mut workers) = fixture::config("digits", 2);
        change(&mut config, &mut workers);
        let place = Place {
            index,
            number: 3,
            attempt: Attempt {
                incarnation: 2,
                restart: 0,
            },
            same_topology: None,
            avoid: &[],
            restarts_left: 4,
        };
        serde_json::to_value(pod(&config, &workers, &place)).expect("plain data")
    }

    pub(in super::super) fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
        list.as_array()
            .and_then(|list| list.iter().find(|item| item["name"] == name))
            .unwrap_or_else(|| panic!("no {name} in {list}"))
    }

    #[test]
    fn each_container_says_what_it_needs_of_what_a_quota_may_count() {
        let pod = built_as(0, |config, workers| {
            let store = json!({"url": "s3://runs/team"});
            config.spec.output.object_storage = serde_json::from_value(store).expect("a store");
            let resources = json!({
                "requests": {"cpu": "2", "memory": "4Gi"},
                "limits": {"cpu": "4", "memory": "8Gi"},
            });
            workers.resources = serde_json::from_value(resources).expect("resources");
            workers.gpus_per_worker = 1;
        });
        let containers = ["initContainers", "containers"].map(|list| &pod["spec"][list]);
        let containers = containers.into_iter().filter_map(Value::as_array).flatten();
        let mut count = 0;
        for container in containers {
            count += 1;
            for amounts in ["requests", "limits"] {
                for name in ["cpu", "memory"] {
                    let amount = &container["resources"][amounts][name];
                    assert!(amount.is_string(), "{name} of {container}");
                }
            }
        }
        assert_eq!(3, count, "agent, keeper and worker");
        let agent = &named(&pod["spec"]["initContainers"], "agent")["resources"];
        assert_eq!(json!({"cpu": "4", "memory": "8Gi"}), agent["limits"]);
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
            ("YOLO_POD_NUMBER", "3"),
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
    fn a_launcher_starts_a_process_for_each_gpu() {
        let launched = |gpus, processes| {
            let pod = built(|config, workers| {
                config.command = vec!["torchrun".to_owned()];
                workers.gpus_per_worker = gpus;
                workers.processes_per_worker = processes;
                config.workers = workers.layout();
            });
            let env = &pod["spec"]["containers"][0]["env"];
            let names = ["NPROC_PER_NODE", "PET_NPROC_PER_NODE"];
            names.map(|name| named(env, name)["value"].clone())
        };
        assert_eq!(["1", "8"].map(Value::from), launched(8, Some(1)));
        assert_eq!(["8", "8"].map(Value::from), launched(8, None));
        assert_eq!(["1", "1"].map(Value::from), launched(0, None));
        assert_eq!(["2", "2"].map(Value::from), launched(0, Some(2)));
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
    fn only_workers_that_are_looked_for_have_a_name() {
        let label = |pod: &Value| pod["metadata"]["labels"][names::ACTIVE].clone();
        let of_worker = |index, command: &[&str]| {
            let command = command.iter().map(ToString::to_string).collect();
            label(&built_as(index, |config, _| config.command = command))
        };
        assert_eq!(
            json!(["true", null]),
            json!([of_worker(0, &[]), of_worker(1, &[])])
        );
        assert_eq!("true", of_worker(1, &["python", "train.py"]));
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
    fn devices_and_networks_are_what_the_job_says() {
        let workers: Workers = serde_json::from_value(json!({
            "gpusPerWorker": 2,
            "gpuResource": "nvidia.com/mig-1g.10gb",
            "network": "RoCE",
            "env": [{"name": "NCCL_IB_GID_INDEX", "value": "5"}],
            "resources": {"claims": [{"name": "nic"}]},
            "template": {
                "hostNetwork": true,
                "resourceClaims": [{"name": "nic", "resourceClaimTemplateName": "fast-nic"}],
            },
        }))
        .expect("workers");
        let pod = built(|_, own| *own = workers.clone());
        let spec = &pod["spec"];
        let worker = &spec["containers"][0];
        assert_eq!("2", worker["resources"]["limits"]["nvidia.com/mig-1g.10gb"]);
        assert_eq!(json!([{"name": "nic"}]), worker["resources"]["claims"]);
        assert_eq!(
            "fast-nic",
            spec["resourceClaims"][0]["resourceClaimTemplateName"]
        );
        assert_eq!(json!(true), spec["hostNetwork"]);
        assert_eq!("ClusterFirstWithHostNet", spec["dnsPolicy"]);
        assert_eq!("IB", named(&worker["env"], "NCCL_NET")["value"]);
        // The last of a name counts.
        let env = worker["env"].as_array().expect("variables");
        let of_name = |variable: &&Value| variable["name"] == "NCCL_IB_GID_INDEX";
        let last = env.iter().rfind(of_name).expect("there");
        assert_eq!("5", last["value"]);

        let by_claims = built(|_, own| {
            *own = workers.clone();
            own.gpu_resource = String::new();
        });
        let resources = &by_claims["spec"]["containers"][0]["resources"];
        assert!(resources.get("limits").is_none(), "{resources}");
        let plain = built(|_, _| {})["spec"].clone();
        for field in ["hostNetwork", "dnsPolicy", "resourceClaims"] {
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
