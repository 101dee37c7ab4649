//! The faults that `make test` has no time for. `make test-faults` runs them, one after the other, on the local
//! cluster, and each prints what it cost.

#![expect(
    clippy::print_stdout,
    reason = "what a fault cost is the result of its test"
)]

#[path = "../e2e/seen.rs"]
#[expect(dead_code, reason = "the other tests need the rest")]
mod seen;

mod control_plane;
mod disruption;
mod network;
mod storage;
mod upgrade;
mod workers;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Job, Namespace, data, until};

/// A job that trains for a while, with its last checkpoint at the end: what a fault loses is then seen.
fn long_job(name: &str) -> Job {
    Job::new(name)
        .set("/training/epochs", 90)
        .set("/training/checkpointEvery", 5)
        .set("/training/snapshotSeconds", 2)
}

/// A namespace with a data set, where this job trains.
fn training(test: &str, job: &Job) -> Namespace {
    let namespace = Namespace::new(test);
    data::digits(&namespace, 64, 16, 64);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_training(&namespace, "run");
    seen::wait(&namespace, "run", "the workers' checks", |job| {
        let passed = seen::condition(job, "PreflightPassed");
        passed.is_some_and(|told| told["message"].to_string().contains("MB/s"))
    });
    namespace
}

fn has_ended(namespace: &Namespace) -> bool {
    let job = namespace.get("ytj", "run");
    job.is_some_and(|job| job["status"]["completionTime"].is_string())
}

/// Waits until worker 0 does training steps; returns its attempt, and how long that took.
fn trains_again(namespace: &Namespace) -> (Value, Duration) {
    let start = Instant::now();
    let mut first: Option<(Value, u64)> = None;
    let attempt = until("training steps", Duration::from_secs(180), || {
        let pods = seen::worker_names(namespace, "run");
        let now = pods.first().and_then(|pod| seen::progress(namespace, pod));
        let Some(now) = now else {
            let ended = has_ended(namespace);
            assert!(
                !ended,
                "the job ended before the fault did: give it more epochs"
            );
            return Err("no answer".to_owned());
        };
        let rank = &now["ranks"][0];
        let step = rank["step"].as_u64().ok_or("no step")?;
        if rank["phase"] != "Training" {
            return Err(now.to_string());
        }
        match &first {
            Some((attempt, before)) if *attempt == now["attempt"] && *before < step => {
                Ok(now["attempt"].clone())
            }
            Some((attempt, _)) if *attempt == now["attempt"] => Err(now.to_string()),
            _ => {
                first = Some((now["attempt"].clone(), step));
                Err("a first step".to_owned())
            }
        }
    });
    (attempt, start.elapsed())
}

/// Waits until worker 1 has another pod and the ranks train beside it, for the first time; returns how long that took.
#[track_caller]
fn trains_with_another(namespace: &Namespace, old: &[String]) -> Duration {
    let start = Instant::now();
    let new = seen::without(namespace, "run", old, &old[1]);
    assert_eq!(old[0], new[0], "worker 0 keeps its pod");
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(namespace, &new[0], &next);
    start.elapsed()
}

/// The job as it was left alone ends with the same bytes.
#[track_caller]
fn ends_like_one_left_alone(namespace: &Namespace, job: impl Fn(&str) -> Job) -> Value {
    let disturbed = seen::wait_complete(namespace, "run");
    namespace
        .apply(&job("alone").manifest())
        .expect("applying the job");
    let alone = seen::wait_complete(namespace, "alone");
    data::assert_same_weights(namespace, [&disturbed, &alone]);
    disturbed
}
