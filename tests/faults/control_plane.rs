//! The control plane goes, comes back, or comes back as it was.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::broken::{Backup, NodeCut, TwoOperators, WithoutApiServer};
use tests::{OPERATOR_NAMESPACE, kubectl, kubectl_json, last, operator_pods, processes, until};

use crate::{
    ends_like_one_left_alone, long_job, seen, training, trains_again, trains_with_another,
};

#[test]
fn a_minute_without_an_api_server_is_no_event_even_when_a_process_dies_in_it() {
    let job = |name: &str| long_job(name).set("/training/epochs", 400);
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
    let job = |name: &str| long_job(name).set("/training/epochs", 400);
    let namespace = training("etcd", &job("run"));
    let backup = Backup::new();
    // What the backup does not know: a restart, and another pod.
    let pods = seen::worker_names(&namespace, "run");
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    trains_with_another(&namespace, &pods);
    let order = |attempt: &Value| (number(&attempt["incarnation"]), number(&attempt["restart"]));
    let before = (0, 1);
    backup.restore();
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
    let _two = TwoOperators::new();
    let (old, node) = until("a leader", Duration::from_secs(60), || {
        leader().ok_or("no leader".to_owned())
    });
    let pods = operator_pods();
    let mut nodes = pods.iter().map(|pod| &pod["spec"]["nodeName"]);
    assert!(
        nodes.any(|other| *other != node),
        "both replicas are on {node}"
    );
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
    let _two = TwoOperators::new();
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

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
