//! Everything that the soak does to a job, one at a time.

use std::time::Duration;

use serde_json::{Value, json};
use tests::broken::{
    Backup, Drained, NodeCut, Priority, SmallVolume, Starved, WithoutApiServer, WorseNetwork, evict,
};
use tests::{Namespace, OPERATOR_NAMESPACE, data, kubectl, last, processes};

use crate::seen;

/// What is broken.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    RankKilled,
    RankStopped,
    OutOfMemory,
    AgentKilled,
    PodDeleted,
    PodDeletedByForce,
    PodEvicted,
    PodPreempted,
    NodeDrained,
    NodeCutOff,
    OperatorKilled,
    ApiServerRestarted,
    ApiServerAway,
    PutBackToBackup,
    NoNames,
    SlowNetwork,
    LossyNetwork,
    DelayedNetwork,
    TruncatedCheckpoint,
    FullVolume,
}

/// Each once, and more often what happens more often.
pub const FAULTS: [Fault; 26] = [
    Fault::RankKilled,
    Fault::RankKilled,
    Fault::RankKilled,
    Fault::RankStopped,
    Fault::OutOfMemory,
    Fault::OutOfMemory,
    Fault::AgentKilled,
    Fault::AgentKilled,
    Fault::PodDeleted,
    Fault::PodDeleted,
    Fault::PodDeletedByForce,
    Fault::PodEvicted,
    Fault::PodPreempted,
    Fault::NodeDrained,
    Fault::NodeCutOff,
    Fault::NodeCutOff,
    Fault::OperatorKilled,
    Fault::ApiServerRestarted,
    Fault::ApiServerAway,
    Fault::PutBackToBackup,
    Fault::NoNames,
    Fault::SlowNetwork,
    Fault::LossyNetwork,
    Fault::DelayedNetwork,
    Fault::TruncatedCheckpoint,
    Fault::FullVolume,
];

/// What the output volume holds, both jobs' checkpoints with room to spare.
pub const VOLUME: &str = "1g";

/// What was broken, in words, and what is only mended once the job trains again.
pub struct Broken {
    pub what: String,
    pub mended_later: Option<Box<dyn std::any::Any>>,
}

impl From<String> for Broken {
    fn from(what: String) -> Self {
        Self {
            what,
            mended_later: None,
        }
    }
}

/// Breaks something around this worker of the job, whose results are on this volume; `None` where that cannot be done at
/// this moment.
pub fn break_something(
    namespace: &Namespace,
    job: &str,
    volume: &SmallVolume,
    fault: Fault,
    worker: u32,
) -> Option<Broken> {
    let pods = seen::worker_names(namespace, job);
    let name = pods.get(worker as usize)?;
    let pod = namespace.get("pod", name)?;
    let node = pod["spec"]["nodeName"].as_str()?;
    let rank = || processes::of_rank(&pod, worker).first().copied();
    let delete = |pods: &[String], more: &[&str]| {
        let pods: Vec<&str> = pods.iter().map(String::as_str).collect();
        namespace.kubectl(&[&["delete", "pod", "--wait=false"], &pods[..], more].concat());
    };
    let by_force = ["--grace-period=0", "--force"];
    let what = match fault {
        Fault::RankKilled => {
            processes::signal(rank()?, "KILL");
            format!("SIGKILL to rank {worker}")
        }
        Fault::RankStopped => {
            processes::signal(rank()?, "STOP");
            format!("SIGSTOP to rank {worker}")
        }
        Fault::OutOfMemory => {
            let _starved = Starved::to_death(rank()?)?;
            format!("the memory of worker {worker} taken away until the kernel ended its rank")
        }
        Fault::AgentKilled => {
            processes::signal(processes::agent(&pod)?, "KILL");
            format!("SIGKILL to the agent of worker {worker}")
        }
        Fault::PodDeleted => {
            delete(std::slice::from_ref(name), &[]);
            format!("the pod of worker {worker} deleted")
        }
        Fault::PodDeletedByForce => {
            delete(std::slice::from_ref(name), &by_force);
            format!("the pod of worker {worker} deleted without grace")
        }
        Fault::PodEvicted => {
            evict(namespace, name).success.then_some(())?;
            format!("the pod of worker {worker} evicted")
        }
        Fault::PodPreempted => {
            preempt(namespace, node);
            gone(namespace, job, name)?;
            format!("{node} taken by a pod of higher priority for a while")
        }
        Fault::NodeDrained => return Some(drained(node, job)),
        Fault::NodeCutOff => return cut_off(namespace, job, name, node),
        Fault::OperatorKilled => {
            let operators = "--selector=app.kubernetes.io/name=yolo-operator";
            let delete = [
                "--namespace",
                OPERATOR_NAMESPACE,
                "delete",
                "pods",
                operators,
            ];
            kubectl(&[&delete[..], &by_force].concat());
            "both replicas of the operator deleted without grace".to_owned()
        }
        Fault::ApiServerRestarted => {
            WithoutApiServer::for_a_moment();
            "the API server restarted".to_owned()
        }
        Fault::ApiServerAway => {
            let _without = WithoutApiServer::new();
            killed_in_the_middle(rank)?;
            format!("20 s without API server, SIGKILL to rank {worker} in the middle")
        }
        Fault::PutBackToBackup => {
            let backup = Backup::new();
            delete(std::slice::from_ref(name), &by_force);
            gone(namespace, job, name)?;
            backup.restore();
            format!(
                "the pod of worker {worker} deleted without grace, then etcd put back to before that"
            )
        }
        Fault::NoNames => {
            let _worse = WorseNetwork::new(&["dns-stop"]);
            killed_in_the_middle(rank)?;
            format!("20 s without DNS, SIGKILL to rank {worker} in the middle")
        }
        Fault::SlowNetwork => worse(&["slow", "20mbit"]),
        Fault::LossyNetwork => worse(&["lossy", "3"]),
        Fault::DelayedNetwork => worse(&["delayed", "25ms"]),
        Fault::TruncatedCheckpoint => {
            let status = namespace.get("ytj", job)?;
            status["status"]["checkpoint"]["path"].as_str()?;
            let newest = data::checkpoint(namespace, &status).join("model.safetensors");
            delete(&pods, &by_force);
            // It may have made room for a later one meanwhile.
            let file = std::fs::File::options().write(true).open(newest).ok();
            let cut = file.is_some_and(|file| file.set_len(1000).is_ok());
            let how = if cut { "torn" } else { "left behind" };
            format!("all pods deleted without grace, and a checkpoint {how}")
        }
        Fault::FullVolume => full(volume),
    };
    Some(what.into())
}

fn full(volume: &SmallVolume) -> String {
    volume.fill();
    last(15);
    volume.resize(VOLUME);
    "no room on the output volume for 15 s".to_owned()
}

fn killed_in_the_middle(rank: impl Fn() -> Option<u32>) -> Option<()> {
    last(10);
    processes::signal(rank()?, "KILL");
    last(10);
    Some(())
}

fn worse(how: &[&str]) -> String {
    let _worse = WorseNetwork::new(how);
    last(15);
    format!("a network that is {} for 15 s", how.join(" "))
}

/// Waits until a pod has another in its place; `None` when the job ended before that.
fn gone(namespace: &Namespace, job: &str, pod: &String) -> Option<()> {
    tests::until("another worker", Duration::from_secs(120), || {
        let pods = seen::worker_names(namespace, job);
        let ended = namespace
            .get("ytj", job)
            .is_some_and(|job| job["status"]["completionTime"].is_string());
        match pods.contains(pod) {
            _ if ended => Ok(None),
            false => Ok(Some(())),
            true => Err(pods.join(" ")),
        }
    })
}

fn drained(node: &str, job: &str) -> Broken {
    Broken {
        what: format!("{node} drained"),
        mended_later: Some(Box::new(Drained::of(node, job))),
    }
}

/// With both replicas of the operator on different nodes this is also one that leads, at times.
fn cut_off(namespace: &Namespace, job: &str, pod: &String, node: &str) -> Option<Broken> {
    let cut = NodeCut::of(node);
    gone(namespace, job, pod)?;
    Some(Broken {
        what: format!("{node} cut off, and back once the job trained elsewhere"),
        mended_later: Some(Box::new(cut)),
    })
}

/// A pod of higher priority wants most of this node, for as long as it takes to push others off.
fn preempt(namespace: &Namespace, node: &str) {
    let class = Priority::new(namespace);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "urgent"},
        "spec": {
            "priorityClassName": class.name(),
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "urgent",
                "image": "localhost/helper:1",
                "command": ["sleep", "600"],
                "resources": {"requests": {"cpu": "1700m"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    });
    namespace.apply(&pod.to_string()).expect("an urgent pod");
    tests::until("the urgent pod to run", Duration::from_secs(120), || {
        let urgent = namespace.get("pod", "urgent").ok_or("no pod")?;
        let phase = urgent["status"]["phase"].as_str().unwrap_or_default();
        (phase == "Running").then_some(()).ok_or(phase.to_owned())
    });
    namespace.kubectl(&["delete", "pod", "urgent", "--wait=true"]);
}

/// The job's attempt and its step, as worker 0 tells them now; `None` while it trains no step.
pub fn at(namespace: &Namespace, job: &str) -> Option<(Value, u64)> {
    let pods = seen::worker_names(namespace, job);
    let now = seen::progress(namespace, pods.first()?)?;
    let rank = &now["ranks"][0];
    let step = rank["step"].as_u64()?;
    (rank["phase"] == "Training").then(|| (now["attempt"].clone(), step))
}
