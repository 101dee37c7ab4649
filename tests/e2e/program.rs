//! Programs other than the trainer, under the same agents.

use serde_json::{Value, json};
use tests::{Job, Namespace, data};

use crate::seen;

/// A job of two workers that run this command.
fn job(name: &str, command: &[&str]) -> Job {
    let image = std::env::var("YOLO_TEST_TRAINER_IMAGE").expect("set by scripts/test-cluster.sh");
    let container = json!({
        "image": image,
        "command": command,
        "env": [{"name": "GREETING", "value": "hello"}],
    });
    Job::new(name).set("/workers/container", container)
}

fn running(namespace: &Namespace, name: &str) -> Value {
    seen::wait(namespace, name, "workers to run", |job| {
        seen::condition(job, "Running").is_some() || seen::condition(job, "Complete").is_some()
    })
}

/// What reports nothing is running, and then complete.
#[test]
fn a_program_that_reports_nothing_completes_by_its_exit_code() {
    let namespace = Namespace::new("program");
    data::digits(&namespace, 8, 4, 64);
    let silent = job(
        "silent",
        &[
            "yolo-trainer",
            "make-dataset",
            "digits",
            "--output=/tmp/scenes",
            "--train=400",
            "--val=8",
        ],
    );
    namespace
        .apply(&silent.manifest())
        .expect("applying the job");
    running(&namespace, "silent");
    let done = seen::wait_complete(&namespace, "silent");
    assert_eq!(Value::Null, done["status"]["progress"]);
    let message = &seen::condition(&done, "Complete").expect("complete")["message"];
    assert_eq!("every worker ended with success", message);

    let policy = json!({"rules": [{"action": "FailJob", "exitCodes": [2]}]});
    let wrong = job("wrong", &["yolo-trainer", "no-such-command"]).set("/failurePolicy", policy);
    namespace
        .apply(&wrong.manifest())
        .expect("applying the job");
    let (reason, message) = seen::wait_failed(&namespace, "wrong");
    assert_eq!("Internal", reason, "{message}");
    assert!(
        message.contains("no-such-command"),
        "its log explains it: {message}"
    );
}

/// The trainer itself, as somebody else's program: it finds its place and its configuration as any other.
#[test]
fn a_program_that_meets_its_peers_trains_with_them() {
    let namespace = Namespace::new("peers");
    data::digits(&namespace, 32, 8, 64);
    let job = job("peers", &["yolo-trainer", "train"]);
    namespace.apply(&job.manifest()).expect("applying the job");
    let done = seen::wait_complete(&namespace, "peers");
    assert_eq!(3, done["status"]["progress"]["epoch"], "{}", done["status"]);
    assert_eq!(0, done["status"]["restarts"]);
}
