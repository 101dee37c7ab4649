//! The control plane goes, comes back, or comes back as it was.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{NodeCut, OPERATOR_NAMESPACE, kubectl, kubectl_json, processes, script, until};

use crate::{
    ends_like_one_left_alone, last, long_job, seen, training, trains_again, trains_with_another,
};

const API_SERVER: &str = "tests/cluster/api-server.sh";
const ETCD: &str = "tests/cluster/etcd.sh";

/// Brings the API server back whatever happens.
struct WithoutApiServer;

impl WithoutApiServer {
    fn new() -> Self {
        script(API_SERVER, &["stop"]).expect("stopping the API server");
        Self
    }
}

impl Drop for WithoutApiServer {
    fn drop(&mut self) {
        let started = script(API_SERVER, &["start"]);
        assert!(
            started.success || std::thread::panicking(),
            "{}",
            started.stderr
        );
    }
}

#[test]
fn a_minute_without_an_api_server_is_no_event_even_when_a_process_dies_in_it() {
    let job = |name: &str| long_job(name).set("/training/epochs", 120);
    let namespace = training("no-api", &job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[1]).expect("a pod");
    let rank = *processes::of_rank(&pod, 1).first().expect("a process");
    let without = WithoutApiServer::new();
    last(20);
    processes::signal(rank, "KILL");
    last(40);
    drop(without);
    let (attempt, took) = trains_again(&namespace);
    println!("a minute without API server: training seen {took:.1?} after it came back");
    assert_eq!(
        (0, 1),
        (number(&attempt["incarnation"]), number(&attempt["restart"]))
    );
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "run"),
        "no pod was replaced"
    );
    let ended = ends_like_one_left_alone(&namespace, job);
    assert_eq!(1, ended["status"]["restarts"], "{}", ended["status"]);
}

#[test]
fn a_cluster_that_is_put_back_to_a_backup_does_not_put_the_run_back() {
    let job = |name: &str| long_job(name).set("/training/epochs", 120);
    let namespace = training("etcd", &job("run"));
    let backup = std::env::temp_dir().join(format!("yolo-etcd-{}", std::process::id()));
    let folder = backup.to_string_lossy().into_owned();
    script(ETCD, &["backup", &folder]).expect("taking a backup");
    // What the backup does not know: a restart, and another pod.
    let pods = seen::worker_names(&namespace, "run");
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    trains_with_another(&namespace, &pods);
    let order = |attempt: &Value| (number(&attempt["incarnation"]), number(&attempt["restart"]));
    let before = (0, 1);
    script(ETCD, &["restore", &folder]).expect("restoring the backup");
    std::fs::remove_dir_all(&backup).expect("the copy goes");
    let start = Instant::now();
    let after = until("a later attempt", Duration::from_secs(180), || {
        let (attempt, _) = trains_again(&namespace);
        if order(&attempt) >= before {
            Ok(attempt)
        } else {
            Err(attempt.to_string())
        }
    });
    println!(
        "restored backup: {before:?} before, {after} after {:.1?}",
        start.elapsed()
    );
    ends_like_one_left_alone(&namespace, job);
}

/// Two replicas for as long as this lives.
struct TwoReplicas;

impl TwoReplicas {
    fn new() -> Self {
        scale("2");
        Self
    }
}

impl Drop for TwoReplicas {
    fn drop(&mut self) {
        scale("1");
    }
}

fn scale(replicas: &str) {
    let replicas = format!("--replicas={replicas}");
    let deployment = ["deployment/yolo-operator"];
    let of =
        |arguments: &[&str]| kubectl(&[&["--namespace", OPERATOR_NAMESPACE], arguments].concat());
    of(&["scale", deployment[0], &replicas]).expect("scaling the operator");
    of(&["rollout", "status", deployment[0], "--timeout=90s"]).expect("the operator's pods");
}

/// Who holds the lease, and on which node that pod is.
fn leader() -> Option<(String, String)> {
    let lease = kubectl_json(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "get",
        "lease",
        "yolo-operator",
    ])?;
    let holder = lease["spec"]["holderIdentity"].as_str()?.to_owned();
    // Nobody, when the last one gave it back.
    if holder.is_empty() {
        return None;
    }
    let pod = kubectl_json(&["--namespace", OPERATOR_NAMESPACE, "get", "pod", &holder])?;
    Some((holder, pod["spec"]["nodeName"].as_str()?.to_owned()))
}

#[test]
fn the_other_replica_takes_over_from_a_leader_that_is_cut_off() {
    let _two = TwoReplicas::new();
    let (old, node) = until("a leader", Duration::from_secs(60), || {
        leader().ok_or("no leader".to_owned())
    });
    let others = operators_elsewhere(&node);
    assert!(!others.is_empty(), "both replicas are on {node}");
    let cut = NodeCut::of(&node);
    let start = Instant::now();
    until("another leader", Duration::from_secs(60), || {
        match leader() {
            Some((new, _)) if new != old => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let took = start.elapsed();
    println!("leader cut off: the other replica leads after {took:.1?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(cut);
}

#[test]
fn the_other_replica_takes_over_at_once_from_a_leader_that_leaves() {
    let _two = TwoReplicas::new();
    let (old, _) = until("a leader", Duration::from_secs(60), || {
        leader().ok_or("no leader".to_owned())
    });
    let start = Instant::now();
    kubectl(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "delete",
        "pod",
        &old,
        "--wait=false",
    ])
    .expect("deleting the leader");
    until("another leader", Duration::from_secs(30), || {
        let lease = kubectl_json(&[
            "--namespace",
            OPERATOR_NAMESPACE,
            "get",
            "lease",
            "yolo-operator",
        ]);
        let holder =
            lease.and_then(|lease| lease["spec"]["holderIdentity"].as_str().map(str::to_owned));
        match holder {
            Some(new) if new != old && !new.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let took = start.elapsed();
    println!("leader deleted: the other replica leads after {took:.1?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

fn operators_elsewhere(node: &str) -> Vec<String> {
    let pods = kubectl_json(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "get",
        "pods",
        "--selector=app.kubernetes.io/name=yolo-operator",
    ]);
    let pods = pods.expect("the operator's pods");
    let pods = pods["items"].as_array().expect("a list");
    let elsewhere = pods.iter().filter(|pod| pod["spec"]["nodeName"] != node);
    elsewhere
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
        .collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
