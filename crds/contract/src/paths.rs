//! Where things are inside a worker pod, and on the output volume.

/// The frozen [`crate::config::JobConfig`], mounted from the job's ConfigMap.
pub const CONFIG_FILE: &str = "/etc/yolo-operator/job.json";
/// The secret that the agents of a job of several workers share, beside the configuration.
pub const GROUP_TOKEN_FILE: &str = "/etc/yolo-operator/group-token";
/// The workers and their processes as `mpirun` wants them, beside the configuration.
pub const HOSTFILE: &str = "/etc/yolo-operator/hostfile";
/// The user's data set, mounted read-only.
pub const DATASET_DIR: &str = "/data";
/// The data file of [`crate::spec::DataFile`], mounted read-only.
pub const DATA_FILE: &str = "/data-file/data.yaml";
/// Where the pod that fetches a data set sees the volume that it fills.
pub const FETCH_DIR: &str = "/fetch";
/// The user's output volume. A run writes only under [`run_folder`] in it.
pub const OUTPUT_DIR: &str = "/output";
/// What the agent and the keeper of a run in an object store tell each other, see [`crate::keep`].
pub const KEEP_DIR: &str = "/keep";
/// The scratch volume of decoded images, there only when they are kept on disk.
pub const CACHE_DIR: &str = "/cache";
/// Where the first rank of a worker keeps copies of the state in memory.
pub const SNAPSHOT_DIR: &str = "/dev/shm/snapshots";
/// The folder the init container copies the agent into; also holds the agent's socket.
pub const AGENT_DIR: &str = "/yolo";
/// The agent's binary inside [`AGENT_DIR`].
pub const AGENT_BINARY: &str = "/yolo/yolo-agent";
/// Where Katib's collector looks for the metrics of a trial.
pub const KATIB_DIR: &str = "/var/log/katib";
/// The table of epochs in the [`run_folder`].
pub const RESULTS: &str = "results.csv";
/// The Unix socket over which ranks talk to their agent.
pub const AGENT_SOCKET: &str = "/yolo/agent.sock";
/// Where the kubelet reads the worker's final words from.
pub const TERMINATION_MESSAGE_FILE: &str = "/dev/termination-log";
/// The TCP port of the agent's `/metrics`, `/progress` and `/healthz`.
pub const AGENT_PORT: u16 = 9464;
/// The TCP port on worker 0 at which the agents of a job meet.
pub const GROUP_PORT: u16 = 9465;
/// The default rendezvous port on worker 0.
pub const MASTER_PORT: u16 = 29500;

/// The folder on the output volume that belongs to one job: `<name>-<first 8 characters of uid>`.
///
/// The uid keeps two jobs of the same name (one deleted, one new) from meeting in one folder.
pub fn run_folder(job_name: &str, job_uid: &str) -> String {
    let short: String = job_uid.chars().take(8).collect();
    format!("{job_name}-{short}")
}
