//! What workers find wrong around them is told before any rank runs, with the place and what to do.

use std::time::Instant;

use serde_json::json;
use tests::broken::{SmallVolume, WorseNetwork};
use tests::{Job, Namespace, data};

use crate::seen;

#[test]
fn a_volume_without_room_is_named_and_the_run_begins_when_there_is_some() {
    let namespace = Namespace::new("room");
    data::digits(&namespace, 16, 8, 64);
    let folder = data::folder(&namespace, data::RUNS_CLAIM);
    let small = SmallVolume::new(&folder, "8m");
    let job = Job::new("narrow").set(
        "/failurePolicy",
        json!({"maxRestarts": 100, "backoff": {"initialSeconds": 1, "maxSeconds": 2}}),
    );
    namespace.apply(&job.manifest()).expect("applying the job");
    let failed = seen::wait(&namespace, "narrow", "a failure", |job| {
        job["status"]["failures"][0]["reason"].is_string()
    });
    let failure = &failed["status"]["failures"][0];
    assert_eq!("PreflightFailed", failure["reason"], "{failure}");
    let node = failure["node"].as_str().expect("a node");
    let message = failure["message"].as_str().unwrap_or_default();
    let expected = format!("on the node {node}: the output volume has 8 MiB left: remove old runs");
    assert!(message.starts_with(&expected), "{message}");
    small.resize("1g");
    seen::wait_complete(&namespace, "narrow");
}

/// No worker but the first finds it: names are not answered.
#[test]
fn workers_that_do_not_find_the_first_are_named_with_their_nodes() {
    let namespace = Namespace::new("apart");
    data::digits(&namespace, 16, 8, 64);
    let worse = WorseNetwork::new(&["dns-stop"]);
    let start = Instant::now();
    namespace
        .apply(&Job::new("apart").manifest())
        .expect("applying the job");
    let apart = seen::wait(&namespace, "apart", "the absent to be named", |job| {
        seen::stated(job, "PreflightPassed").is_some_and(|told| told["reason"] == "NotJoined")
    });
    println!(
        "a worker that finds no other is named after {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let pod = &seen::workers(&namespace, "apart")[1];
    let node = pod["spec"]["nodeName"].as_str().expect("a node");
    let told = apart["status"]["waitingOn"].as_str().unwrap_or_default();
    let expected = format!("worker 1 on the node {node} runs, but did not find worker 0 yet");
    assert!(told.starts_with(&expected), "{told}");
    drop(worse);
    let done = seen::wait_complete(&namespace, "apart");
    assert_eq!(0, done["status"]["restarts"]);
    assert!(done["status"]["waitingOn"].is_null());
    let events = namespace
        .kubectl(&["describe", "ytj", "apart"])
        .expect("kubectl describe");
    assert!(events.contains("NotJoined"), "{events}");
}
