//! Ranks that end or hang are started anew in the pods that they were in.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Job, Namespace, data, kubectl, processes, until};

use crate::seen;

const EPOCHS: u64 = 40;

/// What the agent of a worker says.
fn progress(namespace: &Namespace, pod: &str) -> Option<Value> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9464/proxy/progress",
        namespace.name()
    );
    let answer = kubectl(&["get", "--raw", &path]);
    serde_json::from_str(&answer.stdout).ok()
}

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
    let pods = seen::active_pods(namespace, name);
    assert_eq!(2, pods.len(), "{pods:?}");
    pods
}

/// Waits until worker 0 has done a training step in this attempt; returns how long that took.
fn trains_in(namespace: &Namespace, pod: &str, attempt: &Value) -> Duration {
    let start = Instant::now();
    let mut first = None;
    until("training in the next attempt", seen::END, || {
        let now = progress(namespace, pod).ok_or("no answer")?;
        let step = now["ranks"][0]["step"].as_u64();
        let trains = now["ranks"][0]["phase"] == "Training" && now["attempt"] == *attempt;
        if trains && first.is_some() && step > first {
            return Ok(());
        }
        if trains && first.is_none() {
            first = step;
        }
        Err(now.to_string())
    });
    start.elapsed()
}

#[test]
fn a_killed_rank_starts_all_ranks_anew_in_their_pods() {
    let namespace = Namespace::new("rank");
    let pods = training(&namespace, "killed");
    let pod = namespace.get("pod", &pods[1]).expect("it runs");
    let [rank] = processes::of_rank(&pod, 1)[..] else {
        panic!("no process of rank 1");
    };
    processes::signal(rank, "KILL");
    let next = json!({"incarnation": 0, "restart": 1});
    let took = trains_in(&namespace, &pods[0], &next);
    println!(
        "rank killed until training steps are seen: {:.1} s",
        took.as_secs_f64()
    );
    let told = progress(&namespace, &pods[0]).expect("it answers");
    assert_eq!("Killed", told["restartedAfter"]["reason"], "{told}");
    assert_eq!(1, told["restartedAfter"]["worker"]);

    let job = seen::wait_complete(&namespace, "killed");
    let status = &job["status"];
    assert_eq!(
        pods,
        seen::active_pods(&namespace, "killed"),
        "no pod was replaced"
    );
    assert_eq!(
        (1, 1),
        (count(status, "restarts"), count(status, "countedRestarts"))
    );
    assert_eq!(next, status["attempt"]);
    assert_eq!(EPOCHS * 8, status["progress"]["step"].as_u64().unwrap_or(0));
    let told = namespace
        .kubectl(&["describe", "ytj", "killed"])
        .expect("kubectl describe");
    assert!(told.contains("RestartedInPlace"), "{told}");
    let log = namespace
        .kubectl(&["logs", &pods[0], "--container=worker"])
        .expect("the log");
    assert!(log.contains("going on from /dev/shm/snapshots"), "{log}");
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
    let took = trains_in(&namespace, &pods[0], &next);
    println!(
        "rank stopped until training steps are seen: {:.1} s",
        took.as_secs_f64()
    );
    let told = progress(&namespace, &pods[0]).expect("it answers");
    assert_eq!("Hung", told["restartedAfter"]["reason"], "{told}");
    assert_eq!(1, told["restartedAfter"]["worker"]);
    let job = seen::wait_complete(&namespace, "hung");
    assert_eq!(
        pods,
        seen::active_pods(&namespace, "hung"),
        "no pod was replaced"
    );
    assert_eq!(1, count(&job["status"], "restarts"));
    assert!(took < Duration::from_secs(45), "{took:?}");
}

fn count(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or(0)
}
