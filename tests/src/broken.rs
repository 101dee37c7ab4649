//! What tests break. Each of these is broken for as long as it lives, and mended when it goes, also when a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::cluster::{Output, kubectl, kubectl_in, script};
use crate::{Namespace, OPERATOR_NAMESPACE, until};

/// Mends by a script, with each of these arguments; a test that fails already is not stopped in it.
fn mend(path: &str, all: &[&[&str]]) {
    let done: Vec<Output> = all
        .iter()
        .map(|arguments| script(path, arguments))
        .collect();
    for Output {
        success,
        stdout,
        stderr,
    } in done
    {
        assert!(success || std::thread::panicking(), "{stdout}{stderr}");
    }
}

/// A node that is cut off from everything else.
pub struct NodeCut(String);

impl NodeCut {
    const SCRIPT: &str = "tests/cluster/node.sh";

    /// Takes its cable out.
    pub fn of(node: &str) -> Self {
        let cut = Self(node.to_owned());
        script(Self::SCRIPT, &["cut", node]).expect("cutting a node off");
        cut
    }
}

impl Drop for NodeCut {
    fn drop(&mut self) {
        mend(Self::SCRIPT, &[&["restore", &self.0]]);
    }
}

/// A network between the nodes that is worse, or that answers no names.
pub struct WorseNetwork;

impl WorseNetwork {
    const SCRIPT: &str = "tests/cluster/network.sh";

    /// `slow RATE`, `lossy PERCENT`, `delayed TIME` or `dns-stop`.
    pub fn new(arguments: &[&str]) -> Self {
        let worse = Self;
        script(Self::SCRIPT, arguments).expect("making the network worse");
        worse
    }
}

impl Drop for WorseNetwork {
    fn drop(&mut self) {
        mend(Self::SCRIPT, &[&["mend"], &["dns-start"]]);
    }
}

/// A cluster whose API server is gone.
pub struct WithoutApiServer;

impl WithoutApiServer {
    const SCRIPT: &str = "tests/cluster/api-server.sh";

    /// Stops it.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        let without = Self;
        script(Self::SCRIPT, &["stop"]).expect("stopping the API server");
        without
    }

    /// Stops it and starts it at once.
    pub fn for_a_moment() {
        script(Self::SCRIPT, &["restart"]).expect("restarting the API server");
    }
}

impl Drop for WithoutApiServer {
    fn drop(&mut self) {
        mend(Self::SCRIPT, &[&["start"]]);
    }
}

/// A copy of what the API server knows, to which it can be put back.
pub struct Backup(PathBuf);

impl Backup {
    const SCRIPT: &str = "tests/cluster/etcd.sh";

    /// Takes a copy.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("yolo-etcd-{}", std::process::id()));
        let backup = Self(folder);
        script(Self::SCRIPT, &["backup", &backup.folder()]).expect("taking a backup");
        backup
    }

    /// Puts it back.
    pub fn restore(&self) {
        script(Self::SCRIPT, &["restore", &self.folder()]).expect("restoring the backup");
    }

    fn folder(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node that takes no pods, and whose pods of a job were sent away.
pub struct Drained(String);

impl Drained {
    /// Sends them away as `kubectl drain` does.
    pub fn of(node: &str, job: &str) -> Self {
        let drained = Self(node.to_owned());
        kubectl(&[
            "drain",
            node,
            &format!("--pod-selector=yolo-operator.dev/job-name={job}"),
            "--force",
            "--delete-emptydir-data",
            "--ignore-daemonsets",
            "--timeout=90s",
        ])
        .expect("draining a node");
        drained
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        kubectl(&["uncordon", &self.0]);
    }
}

/// A node that takes only pods that tolerate this.
pub struct Tainted {
    node: &'static str,
    key: &'static str,
}

impl Tainted {
    /// Taints it.
    pub fn new(node: &'static str, key: &'static str) -> Self {
        kubectl(&["taint", "node", node, &format!("{key}:NoSchedule")]).expect("a taint");
        Self { node, key }
    }
}

impl Drop for Tainted {
    fn drop(&mut self) {
        kubectl(&["taint", "node", self.node, &format!("{}-", self.key)]);
    }
}

/// A class of priority above that of all jobs.
pub struct Priority(String);

impl Priority {
    /// Makes one, named after the namespace.
    pub fn new(namespace: &Namespace) -> Self {
        let class = Self(namespace.name().to_owned());
        let manifest = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": class.0},
            "value": 1000,
        });
        kubectl_in(&["apply", "-f", "-"], &manifest.to_string()).expect("a class");
        class
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        kubectl(&["delete", "priorityclass", &self.0, "--ignore-not-found"]);
    }
}

/// A small file system over the folder of a volume.
pub struct SmallVolume(String);

impl SmallVolume {
    const SCRIPT: &str = "tests/cluster/small-volume.sh";

    /// It holds so much: `60m`, for example.
    pub fn new(folder: &Path, size: &str) -> Self {
        let small = Self(folder.to_string_lossy().into_owned());
        script(Self::SCRIPT, &["make", &small.0, size]).expect("a small volume");
        small
    }

    /// Lets it hold so much; what is in it stays.
    pub fn resize(&self, size: &str) {
        script(Self::SCRIPT, &["resize", &self.0, size]).expect("another size");
    }

    /// Lets it hold nothing more.
    pub fn fill(&self) {
        script(Self::SCRIPT, &["fill", &self.0]).expect("a full volume");
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        script(Self::SCRIPT, &["remove", &self.0]);
    }
}

/// The control group of a process, which gets no more memory than the process has.
pub struct Starved {
    limit: PathBuf,
    before: String,
}

impl Starved {
    /// Takes its memory away until the kernel has ended the process; `None` where that does not happen.
    pub fn to_death(pid: u32) -> Option<Self> {
        let starved = Self::of(pid)?;
        let gone = || !Path::new(&format!("/proc/{pid}")).exists();
        let group = starved.limit.parent()?.to_owned();
        let mut tries = 80;
        until("a process to be ended", Duration::from_secs(60), || {
            // In the first version a limit below what cannot be reclaimed is refused, so it comes down bit by bit.
            let used = ["memory.usage_in_bytes", "memory.current"];
            let used = used
                .iter()
                .find_map(|file| fs::read_to_string(group.join(file)).ok());
            let used: u64 = used.and_then(|used| used.trim().parse().ok()).unwrap_or(0);
            for share in [50, 70, 80, 90, 95, 98, 100] {
                if fs::write(&starved.limit, (used * share / 100).to_string()).is_ok() {
                    break;
                }
            }
            tries -= 1;
            match gone() {
                false if tries > 0 => Err(format!("{used} bytes are used")),
                gone => Ok(gone),
            }
        })
        .then_some(starved)
    }

    fn of(pid: u32) -> Option<Self> {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let root = Path::new("/sys/fs/cgroup");
        let limit = groups.lines().find_map(|line| {
            let (_, line) = line.split_once(':')?;
            let (controllers, group) = line.split_once(':')?;
            let group = group.trim_start_matches('/');
            let file = match controllers {
                "memory" => root
                    .join("memory")
                    .join(group)
                    .join("memory.limit_in_bytes"),
                "" => root.join(group).join("memory.max"),
                _ => return None,
            };
            file.exists().then_some(file)
        })?;
        let before = fs::read_to_string(&limit).ok()?;
        Some(Self { limit, before })
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // It goes with its container.
        let _ = fs::write(&self.limit, self.before.trim());
    }
}

/// Two replicas of the operator instead of one.
pub struct TwoOperators;

impl TwoOperators {
    /// Waits until both run.
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        let two = Self;
        Self::scale(2);
        two
    }

    fn scale(replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        let deployment = "deployment/yolo-operator";
        for arguments in [
            &["scale", deployment, &replicas][..],
            &["rollout", "status", deployment, "--timeout=90s"],
        ] {
            let arguments = [&["--namespace", OPERATOR_NAMESPACE], arguments].concat();
            let done = kubectl(&arguments);
            assert!(done.success || std::thread::panicking(), "{}", done.stderr);
        }
    }
}

impl Drop for TwoOperators {
    fn drop(&mut self) {
        Self::scale(1);
    }
}

/// Asks the API server to evict a pod.
pub fn evict(namespace: &Namespace, pod: &str) -> Output {
    let eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace.name()},
    });
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}/eviction",
        namespace.name()
    );
    kubectl_in(
        &["create", "--raw", &path, "-f", "-"],
        &eviction.to_string(),
    )
}
