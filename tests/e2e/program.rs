//! Programs other than the trainer, under the same agents.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, data, until};

use crate::seen;

/// A job of two workers that run this command in the trainer's image.
fn job(name: &str, command: &[&str]) -> Job {
    let image = std::env::var("YOLO_TEST_TRAINER_IMAGE").expect("set by scripts/test-cluster.sh");
    in_image(name, &image, command)
}

fn in_image(name: &str, image: &str, command: &[&str]) -> Job {
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

/// Rank 0 calls rank 1 until nobody answers, and then ends as any program does whose peer is gone. Between two calls rank 1
/// listens anew, and on a busy machine that takes a while: three calls in a row without an answer are needed.
const CALLS: &str = r#"
echo "rank $RANK in attempt $YOLO_ATTEMPT"
[ "$YOLO_ATTEMPT" = 0.0 ] || exit 0
peer=$(echo "$MASTER_ADDR" | sed s/-worker-0/-worker-1/)
[ "$RANK" = 0 ] || while :; do echo here | nc -l -p 7000; done
calls() { nc -w 2 "$peer" 7000 </dev/null >/dev/null; }
until calls; do sleep 0.2; done
touch /tmp/met
unanswered=0
while [ $unanswered -lt 3 ]; do
  sleep 0.3
  if calls; then unanswered=0; else unanswered=$((unanswered + 1)); fi
done
echo "rank 1 is gone" >&2
exit 1
"#;

#[test]
fn a_program_whose_peer_is_deleted_has_not_failed_itself() {
    a_peer_is_deleted(1);
}

/// Here the other one would call for ever.
#[test]
fn a_program_whose_first_worker_is_deleted_begins_anew_with_the_next() {
    a_peer_is_deleted(0);
}

fn a_peer_is_deleted(index: usize) {
    let namespace = Namespace::new("calls");
    data::digits(&namespace, 8, 4, 64);
    let job = in_image("calls", "localhost/helper:1", &["sh", "-c", CALLS])
        .set("/failurePolicy", json!({"maxRestarts": 0}));
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "calls", "workers to run", |job| {
        seen::condition(job, "Running").is_some()
    });
    let pods = seen::worker_names(&namespace, "calls");
    let met = ["exec", "calls-worker-0-0", "--", "test", "-e", "/tmp/met"];
    until("the programs to meet", Duration::from_secs(30), || {
        let seen = namespace.kubectl(&met);
        seen.success.then_some(()).ok_or(seen.stderr)
    });
    let deleted = ["delete", "pod", &pods[index], "--wait=false"];
    namespace.kubectl(&deleted).expect("deleting a pod");
    let done = seen::wait_complete(&namespace, "calls");
    let status = &done["status"];
    assert_eq!(
        (json!(1), json!(0)),
        (
            status["restarts"].clone(),
            status["countedRestarts"].clone()
        ),
        "{status}"
    );
    assert_eq!(
        json!({"incarnation": 0, "restart": 1}),
        status["attempt"],
        "{status}"
    );
    let failure = &status["failures"][0];
    assert_eq!(
        (json!(index), json!("PodDeleted")),
        (failure["worker"].clone(), failure["reason"].clone())
    );
    let mut expected = pods.clone();
    expected[index] = format!("calls-worker-{index}-1");
    assert_eq!(expected, seen::worker_names(&namespace, "calls"));
}
