//! What tests look for in a job.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Namespace, kubectl, until};

/// A job of this size, with both workers started on two busy cores, ends well within this.
pub const END: Duration = Duration::from_secs(300);

/// The job's condition of this type, whatever it says.
pub fn stated<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    job["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// The job's condition of this type, when it is true.
pub fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    stated(job, kind).filter(|condition| condition["status"] == "True")
}

/// Waits until the job is in a state for which `wanted` says yes, and returns it.
#[track_caller]
pub fn wait(
    namespace: &Namespace,
    job: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    until(what, END, || {
        let found = namespace.get("ytj", job).ok_or("no such job")?;
        if wanted(&found) {
            Ok(found)
        } else {
            Err(found["status"].to_string())
        }
    })
}

/// Waits until the job is complete. A failed one fails the test at once.
#[track_caller]
pub fn wait_complete(namespace: &Namespace, job: &str) -> Value {
    let ended = wait(namespace, job, &format!("job {job} to end"), |job| {
        condition(job, "Complete")
            .or_else(|| condition(job, "Failed"))
            .is_some()
    });
    assert!(
        condition(&ended, "Complete").is_some(),
        "it failed: {}",
        ended["status"]
    );
    ended
}

/// Waits until the job has failed; returns the reason and the message of the condition.
#[track_caller]
pub fn wait_failed(namespace: &Namespace, job: &str) -> (String, String) {
    let ended = wait(namespace, job, &format!("job {job} to fail"), |job| {
        condition(job, "Complete")
            .or_else(|| condition(job, "Failed"))
            .is_some()
    });
    let failed = condition(&ended, "Failed").expect("it should not complete");
    let text = |key: &str| {
        failed[key]
            .as_str()
            .expect("conditions have texts")
            .to_owned()
    };
    (text("reason"), text("message"))
}

/// Waits until training steps are being done.
#[track_caller]
pub fn wait_training(namespace: &Namespace, job: &str) -> Value {
    wait(namespace, job, &format!("job {job} to train"), |job| {
        job["status"]["progress"]["step"].as_u64().unwrap_or(0) > 0
    })
}

/// The job's worker pods that nobody has given up.
pub fn workers(namespace: &Namespace, job: &str) -> Vec<Value> {
    let selector = format!("yolo-operator.dev/job-name={job},yolo-operator.dev/worker-index");
    let mut pods = namespace.list("pods", &selector);
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// Their names, by worker index.
pub fn worker_names(namespace: &Namespace, job: &str) -> Vec<String> {
    let mut names: Vec<String> = workers(namespace, job)
        .iter()
        .filter_map(|pod| Some(pod["metadata"]["name"].as_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// The step that rank 0 went on from, by its log.
pub fn goes_on_from(log: &str) -> Option<u64> {
    let from = log.split("going on from ").nth(1)?;
    from.split("(step ").nth(1)?.split(',').next()?.parse().ok()
}

/// What the agent of a worker says of it.
pub fn progress(namespace: &Namespace, pod: &str) -> Option<Value> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9464/proxy/progress",
        namespace.name()
    );
    let answer = kubectl(&["get", "--raw", &path]);
    serde_json::from_str(&answer.stdout).ok()
}

/// Waits until worker 0, which this pod is, has done a training step in this attempt; returns how long that took.
pub fn trains_in(namespace: &Namespace, pod: &str, attempt: &Value) -> Duration {
    let start = Instant::now();
    let mut first = None;
    until("training in the next attempt", END, || {
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

/// Waits until none of the job's workers is of these pods; returns the new ones.
pub fn replaced(namespace: &Namespace, job: &str, old: &[String]) -> Vec<String> {
    until("the next workers", END, || {
        let new = worker_names(namespace, job);
        if new.len() == old.len() && new.iter().all(|pod| !old.contains(pod)) {
            Ok(new)
        } else {
            Err(new.join(" "))
        }
    })
}

/// Waits until all workers are there and this pod is none of them any more; returns them.
pub fn without(namespace: &Namespace, job: &str, old: &[String], gone: &str) -> Vec<String> {
    until("a worker in the place of another", END, || {
        let new = worker_names(namespace, job);
        if new.len() == old.len() && new.iter().all(|pod| pod != gone) {
            Ok(new)
        } else {
            Err(new.join(" "))
        }
    })
}
