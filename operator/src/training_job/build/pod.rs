//! One worker's pod.

use std::collections::BTreeMap;

use contract::attempt::Attempt;
use contract::config::JobConfig;
use contract::{env, paths};
use crds::names;
use crds::v1alpha1::Workers;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ObjectFieldSelector, Pod,
    PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
};

use super::volumes::{AGENT, mount, mounts, volumes};
use super::{is_group, keeper, placement, resources};
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

/// None of what is empty.
pub(super) fn some<T: Default + PartialEq + Clone>(value: &T) -> Option<T> {
    (*value != T::default()).then(|| value.clone())
}

/// Copies the agent in, so that any image can be the trainer.
fn agent(config: &JobConfig, workers: &Workers) -> Container {
    Container {
        name: names::AGENT_CONTAINER.to_owned(),
        image: Some(config.images.agent.clone()),
        image_pull_policy: Some(config.images.pull_policy.clone()),
        command: Some(vec!["/yolo-agent".to_owned()]),
        args: Some(vec!["install".to_owned(), paths::AGENT_DIR.to_owned()]),
        resources: Some(resources::before_worker(workers)),
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
        resources: Some(resources::of_worker(workers)),
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
pub(super) mod tests;
