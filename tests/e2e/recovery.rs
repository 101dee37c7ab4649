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

/// A job of two workers on two nodes that has written a checkpoint and trains on; with its pods.
fn training(namespace: &Namespace, name: &str) -> (Value, Vec<String>) {
    data::digits(namespace, 64, 16, 64);
    let job = Job::new(name).set("/training/epochs", EPOCHS);
    namespace.apply(&job.manifest()).expect("applying the job");
    let job = seen::wait(namespace, name, "a checkpoint", |job| {
        job["status"]["checkpoint"]["step"].as_u64().unwrap_or(0) > 0
    });
    let pods = seen::active_pods(namespace, name);
    assert_eq!(2, pods.len(), "{pods:?}");
    (job, pods)
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
    let (_, pods) = training(&namespace, "killed");
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
    assert!(log.contains("going on from"), "{log}");
    assert!(took < Duration::from_secs(15), "{took:?}");
}

fn count(status: &Value, field: &str) -> u64 {
    status[field].as_u64().unwrap_or(0)
}
