//! Ranks that end or hang are started anew in the pods that they were in.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::broken::{NodeCut, WithoutApiServer};
use tests::{Job, Namespace, data, measured, processes};

use crate::seen;

const EPOCHS: u64 = 80;

/// A job of two workers on two nodes that writes no checkpoint before its end, once it has trained for longer
/// than the time between two copies of its state; returns its pods.
fn training(namespace: &Namespace, name: &str) -> Vec<String> {
    data::digits(namespace, 64, 16, 64);
    let job = Job::new(name)
        .set("/training/epochs", EPOCHS)
        .set("/training/checkpointEvery", EPOCHS)
        .set("/training/evaluateEvery", EPOCHS)
        .set("/training/snapshotSeconds", 2);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(namespace, name, "a while of training", |job| {
        job["status"]["progress"]["trainingSeconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 5.0)
    });
    let pods = seen::worker_names(namespace, name);
    assert_eq!(2, pods.len(), "{pods:?}");
    pods
}

#[test]
fn a_killed_rank_starts_all_ranks_anew_in_their_pods() {
    let namespace = Namespace::new("rank");
    let pods = training(&namespace, "killed");
    let pod = namespace.get("pod", &pods[1]).expect("it runs");
    let [rank] = processes::of_rank(&pod, 1)[..] else {
        panic!("no process of rank 1");
    };
    let before = seen::progress(&namespace, &pods[0]).expect("it answers");
    processes::signal(rank, "KILL");
    let next = json!({"incarnation": 0, "restart": 1});
    let took = seen::trains_in(&namespace, &pods[0], &next);
    measured::seconds("rank killed until training steps are seen", took, Some(3));
    let told = seen::progress(&namespace, &pods[0]).expect("it answers");
    assert_eq!("Killed", told["restartedAfter"]["reason"], "{told}");
    assert_eq!(1, told["restartedAfter"]["worker"]);

    let job = seen::wait_complete(&namespace, "killed");
    let status = &job["status"];
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "killed"),
        "no pod was replaced"
    );
    assert_eq!(
        (1, 1),
        (count(status, "restarts"), count(status, "countedRestarts"))
    );
    assert_eq!(next, status["attempt"]);
    let failure = &status["failures"][0];
    assert_eq!("Killed", failure["reason"], "{failure}");
    assert_eq!(
        json!([1, 1, 137]),
        json!([failure["worker"], failure["rank"], failure["exitCode"]])
    );
    assert_eq!(json!({"incarnation": 0, "restart": 0}), failure["attempt"]);
    assert_eq!(EPOCHS * 8, status["progress"]["step"].as_u64().unwrap_or(0));
    let told = namespace
        .kubectl(&["describe", "ytj", "killed"])
        .expect("kubectl describe");
    assert!(told.contains("RestartedInPlace"), "{told}");
    let log = namespace
        .kubectl(&["logs", &pods[0], "--container=worker"])
        .expect("the log");
    assert!(log.contains("going on from /dev/shm/snapshots"), "{log}");
    let lost = lost(&before, &log);
    let name = "training lost with a killed rank, of a snapshot every 2 s";
    measured::seconds(name, lost, Some(2));
    assert!(lost < Duration::from_secs(3), "{lost:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_rank_that_hangs_is_found_and_all_start_anew() {
    let namespace = Namespace::new("hung");
    let pods = training(&namespace, "hung");
    let pod = namespace.get("pod", &pods[1]).expect("it runs");
    let [rank] = processes::of_rank(&pod, 1)[..] else {
        panic!("no process of rank 1");
    };
    processes::signal(rank, "STOP");
    let next = json!({"incarnation": 0, "restart": 1});
    let took = seen::trains_in(&namespace, &pods[0], &next);
    measured::seconds("rank stopped until training steps are seen", took, None);
    let told = seen::progress(&namespace, &pods[0]).expect("it answers");
    assert_eq!("Hung", told["restartedAfter"]["reason"], "{told}");
    assert_eq!(1, told["restartedAfter"]["worker"]);
    let job = seen::wait_complete(&namespace, "hung");
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "hung"),
        "no pod was replaced"
    );
    assert_eq!(1, count(&job["status"], "restarts"));
    assert!(took < Duration::from_secs(45), "{took:?}");
}

#[test]
fn workers_of_a_node_that_is_cut_off_are_replaced_elsewhere() {
    let namespace = Namespace::new("cut");
    let pods = training(&namespace, "cut");
    let node_of = |pod: &Value| pod["spec"]["nodeName"].as_str().map(str::to_owned);
    let operator = tests::operator_node();
    // One of the two, since they are on two nodes; the one that the operator is on stays.
    let nodes = pods
        .iter()
        .map(|pod| node_of(&namespace.get("pod", pod).expect("a pod")).expect("a node"));
    let (index, lost) = nodes
        .enumerate()
        .find(|(_, node)| *node != operator)
        .expect("a worker beside the operator's node");
    let _cut = NodeCut::of(&lost);
    let start = Instant::now();
    let new = seen::without(&namespace, "cut", &pods, &pods[index]);
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(&namespace, &new[0], &next);
    let took = start.elapsed();
    let name = format!("node of worker {index} cut off until training steps are seen");
    measured::seconds(&name, took, Some(30));
    for pod in &new {
        let pod = namespace.get("pod", pod).expect("it runs");
        assert_ne!(
            Some(&lost),
            node_of(&pod).as_ref(),
            "on the node that is away"
        );
    }
    let job = namespace.get("ytj", "cut").expect("it trains");
    assert_eq!(
        0,
        count(&job["status"], "countedRestarts"),
        "{}",
        job["status"]
    );
    assert_eq!(json!([lost]), job["status"]["lastRestart"]["avoid"]);
    assert_eq!(json!(lost), job["status"]["failures"][0]["node"]);
    let told = namespace
        .kubectl(&["describe", "ytj", "cut"])
        .expect("kubectl describe");
    assert!(told.contains("lost touch with it"), "{told}");
    seen::wait_complete(&namespace, "cut");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_restarted_api_server_is_no_event() {
    let namespace = Namespace::new("api");
    let pods = training(&namespace, "api");
    WithoutApiServer::for_a_moment();
    let job = seen::wait_complete(&namespace, "api");
    assert_eq!(0, count(&job["status"], "restarts"), "{}", job["status"]);
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "api"),
        "no pod was replaced"
    );
}

/// How long the steps took that were done before a fault and are done again: worker 0's progress before it, and its log.
fn lost(before: &Value, log: &str) -> Duration {
    let progress = &before["report"]["progress"];
    let step = progress["step"].as_f64().expect("a step");
    let seconds = progress["trainingSeconds"].as_f64().expect("a time");
    let from = seen::goes_on_from(log).expect("a step to go on from");
    Duration::from_secs_f64(seconds / step * (step - from as f64).max(0.0))
}

fn count(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or(0)
}
