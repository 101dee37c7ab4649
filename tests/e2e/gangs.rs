//! Jobs that get their nodes together or not at all.

use serde_json::{Value, json};
use tests::{Job, Namespace, data};

use crate::seen;

/// A short job; one of its workers fits on each of the two nodes.
pub fn wide(name: &str, workers: u32, scheduling: &Value) -> Job {
    Job::new(name)
        .set("/training/epochs", 2)
        .set("/training/batchSize", 6)
        .set("/workers/replicas", workers)
        .set("/workers/resources", json!({"requests": {"cpu": "1200m"}}))
        .set("/scheduling", scheduling.clone())
}

/// The pods of a job.
pub fn pods(namespace: &Namespace, job: &str) -> Vec<Value> {
    namespace.list("pods", &format!("yolo-operator.dev/job-name={job}"))
}

/// How many of them have a node.
pub fn placed(namespace: &Namespace, job: &str) -> usize {
    let pods = pods(namespace, job);
    let placed = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"].is_string());
    placed.count()
}

/// A job of three workers gets no node and says so, and one of two trains on both nodes beside it. Returns the large
/// job as it waited; both are still there.
#[track_caller]
pub fn one_that_does_not_fit_leaves_the_nodes_to_others(
    namespace: &Namespace,
    job: impl Fn(&str, u32) -> Job,
) -> Value {
    data::digits(namespace, 64, 16, 64);
    namespace
        .apply(&job("large", 3).manifest())
        .expect("applying the large job");
    let waiting = seen::wait(namespace, "large", "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "Unschedulable")
    });
    assert_eq!(0, placed(namespace, "large"), "it holds a part of it");

    namespace
        .apply(&job("small", 2).manifest())
        .expect("applying the small job");
    let done = seen::wait_complete(namespace, "small");
    let workers = done["status"]["workers"].as_array().expect("workers");
    assert_ne!(workers[0]["node"], workers[1]["node"]);
    assert_eq!(0, placed(namespace, "large"));
    waiting
}

/// The name of the group of a job's first incarnation.
pub fn first_group(job: &Value) -> String {
    let text = |field: &str| job["metadata"][field].as_str().expect("a text");
    format!("{}-{}-0", text("name"), &text("uid")[..8])
}
