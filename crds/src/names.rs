//! Names that more than one program must agree on: labels, annotations, containers, ports.

/// API group of the resources and prefix of labels and annotations.
pub const GROUP: &str = "yolo-operator.dev";
/// Field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "yolo-operator";
/// The controller's name in events and metrics.
pub const CONTROLLER: &str = "training_job";

/// Kubernetes' label for the program that manages an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value on everything the operator creates.
pub const MANAGED_BY_VALUE: &str = "yolo-operator";
/// Selects everything the operator created.
pub const MANAGED_BY_SELECTOR: &str = "app.kubernetes.io/managed-by=yolo-operator";
/// Label: the job an object belongs to.
pub const JOB_NAME: &str = "yolo-operator.dev/job-name";
/// Label: the uid of that job; two jobs of one name differ here.
pub const JOB_UID: &str = "yolo-operator.dev/job-uid";
/// Label of pods: index of the worker, from 0.
pub const WORKER_INDEX: &str = "yolo-operator.dev/worker-index";
/// Label of pods: how often the job's pods had been replaced as a gang when this one was made.
pub const INCARNATION: &str = "yolo-operator.dev/incarnation";
/// Label of pods, `true` while the job's Service gives the pod its DNS name. The operator takes it off a pod
/// that is given up, which leaves the name to its replacement at once. Worker 0 has it, whom all others look
/// for, and every worker of a program of one's own. Not all of a thousand: whenever one came or went, the
/// cluster would write the addresses of all.
pub const ACTIVE: &str = "yolo-operator.dev/active";
/// Value of [`ACTIVE`].
pub const ACTIVE_VALUE: &str = "true";
/// Annotation of pods: the attempt as `INCARNATION.RESTART`.
pub const ATTEMPT: &str = "yolo-operator.dev/attempt";

/// The container that runs the agent and, under it, the ranks. Completion is judged by it alone.
pub const WORKER_CONTAINER: &str = "worker";
/// Name of the container beside worker 0 that keeps the run in an object store.
pub const KEEPER_CONTAINER: &str = "keeper";
/// The init container that copies the agent in.
pub const AGENT_CONTAINER: &str = "agent";
/// Port of the agent's `/metrics`, `/progress` and `/healthz`.
pub const METRICS_PORT: &str = "metrics";
/// Rendezvous port of worker 0.
pub const RENDEZVOUS_PORT: &str = "rendezvous";
/// Key of the frozen configuration in the job's ConfigMap.
pub const CONFIG_KEY: &str = "job.json";
/// Port of worker 0 at which the agents of a job meet.
pub const GROUP_PORT: &str = "group";
/// The resource that a GPU is.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// Name of a job's ConfigMap.
pub fn config_map(job: &str) -> String {
    format!("{job}-config")
}

/// Name of the claim that the operator makes for a job's results.
pub fn output_claim(job: &str) -> String {
    format!("{job}-output")
}

/// Name of the claim that the operator makes for a data set that is fetched.
pub fn dataset_claim(job: &str) -> String {
    format!("{job}-dataset")
}

/// Label of pods that are no workers: what they are for.
pub const ROLE: &str = "yolo-operator.dev/role";
/// Value of [`ROLE`]: fetches the data set.
pub const ROLE_FETCH: &str = "fetch";
/// The container that fetches the data set.
pub const FETCH_CONTAINER: &str = "fetch";

/// Name of the `n`th pod (from 0) that fetches a job's data set.
pub fn fetch_pod(job: &str, n: u32) -> String {
    format!("{job}-fetch-{n}")
}

/// The `n` of a pod name made by [`fetch_pod`]; `None` for other names.
pub fn fetch_pod_number(job: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(job)?.strip_prefix("-fetch-")?.parse().ok()
}

/// Key of the list of workers in the job's ConfigMap.
pub const HOSTFILE_KEY: &str = "hostfile";
/// Key of the agents' token in the job's Secret.
pub const GROUP_TOKEN_KEY: &str = "group-token";

/// Name of the Secret that the agents of a job share. With the uid in it, since the Secret of an earlier job
/// of the same name goes later than that job.
pub fn group_secret(job: &str, uid: &str) -> String {
    let short: String = uid.chars().take(8).collect();
    format!("{job}-group-{short}")
}

/// Name of what waits for the job in a queue. With the uid in it, like that of the Secret.
pub fn workload(job: &str, uid: &str) -> String {
    let short: String = uid.chars().take(8).collect();
    format!("{job}-{short}")
}

/// Name of the group that the workers of an incarnation are scheduled as.
pub fn pod_group(job: &str, uid: &str, incarnation: u32) -> String {
    format!("{}-{incarnation}", workload(job, uid))
}

/// Name of what keeps evictions off a job's workers.
pub fn disruption_budget(job: &str, uid: &str) -> String {
    workload(job, uid)
}

/// Name of a job's headless Service, which is also the pods' subdomain.
pub fn service(job: &str) -> String {
    job.to_owned()
}

/// Host name of a worker, the same for all of its pods.
pub fn worker_host(job: &str, index: u32) -> String {
    format!("{job}-worker-{index}")
}

/// Name of the `n`th pod (from 0) of a worker.
pub fn worker_pod(job: &str, index: u32, n: u32) -> String {
    format!("{job}-worker-{index}-{n}")
}

/// The `n` of a pod name made by [`worker_pod`] for this worker; `None` for other names.
pub fn worker_pod_number(job: &str, index: u32, pod: &str) -> Option<u32> {
    pod.strip_prefix(&worker_host(job, index))?
        .strip_prefix('-')?
        .parse()
        .ok()
}

/// The DNS name under which every worker finds worker 0, resolved by the pods' search list.
pub fn master_address(job: &str) -> String {
    worker_address(job, 0)
}

/// The DNS name of a worker, resolved by the pods' search list.
pub fn worker_address(job: &str, index: u32) -> String {
    format!("{}.{}", worker_host(job, index), service(job))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_name_tells_its_number_to_its_own_worker_only() {
        assert_eq!("digits-worker-1-2", worker_pod("digits", 1, 2));
        assert_eq!(Some(2), worker_pod_number("digits", 1, "digits-worker-1-2"));
        assert_eq!(None, worker_pod_number("digits", 1, "digits-worker-11-2"));
        assert_eq!(None, worker_pod_number("digits", 1, "digits-worker-1"));
        assert_eq!(Some(3), fetch_pod_number("digits", &fetch_pod("digits", 3)));
        assert_eq!(None, fetch_pod_number("digits", "digits-worker-1-2"));
    }
}
