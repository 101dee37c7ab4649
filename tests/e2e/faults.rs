//! What must not end a run: a killed worker, a killed operator.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Job, Namespace, OPERATOR_NAMESPACE, data, kubectl, measured, processes, until};

use crate::seen;

const EPOCHS: u64 = 60;

fn step(job: &Value) -> u64 {
    job["status"]["progress"]["step"].as_u64().unwrap_or(0)
}

/// Long enough on a fast machine for its first checkpoint to be seen while it still trains: a status is
/// written every ten seconds.
fn long_job(name: &str) -> Job {
    Job::new(name).set("/training/epochs", EPOCHS)
}

#[test]
fn a_killed_worker_is_replaced_alone_and_the_run_goes_on_from_memory() {
    killed(1, "going on from /dev/shm/snapshots");
}

#[test]
fn a_killed_worker_0_is_replaced_alone_and_the_run_goes_on_from_the_memory_of_another() {
    killed(0, " of rank 1 of attempt 0.0 ");
}

/// Kills a worker; its rank 0 says this when it goes on.
fn killed(index: usize, says: &str) {
    let namespace = Namespace::new("alone");
    data::digits(&namespace, 64, 16, 64);
    let job = long_job("lost")
        .set("/training/checkpointEvery", EPOCHS)
        .set("/training/snapshotSeconds", 2);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "lost", "a while of training", |job| {
        let seconds = job["status"]["progress"]["trainingSeconds"].as_f64();
        seconds.is_some_and(|seconds| seconds > 5.0)
    });
    let old = seen::worker_names(&namespace, "lost");
    let pod = namespace.get("pod", &old[index]).expect("it runs");
    // Its processes go with it, without a word: there is no time for a checkpoint.
    processes::signal(processes::agent(&pod).expect("an agent"), "KILL");
    let start = Instant::now();
    let new = seen::without(&namespace, "lost", &old, &old[index]);
    assert_eq!(old[1 - index], new[1 - index], "it keeps its pod");
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(&namespace, &new[0], &next);
    let took = start.elapsed();
    let name = format!("worker {index} killed until training steps are seen");
    measured::seconds(&name, took, Some(10));
    let job = seen::wait_complete(&namespace, "lost");
    let status = &job["status"];
    assert_eq!(
        json!([1, 1]),
        json!([status["restarts"], status["countedRestarts"]])
    );
    assert_eq!(next, status["attempt"]);
    assert_eq!("Killed", status["failures"][0]["reason"], "{status}");
    assert_eq!(new, seen::worker_names(&namespace, "lost"));
    let log = namespace
        .kubectl(&["logs", &new[0], "--container=worker"])
        .expect("the log");
    assert!(log.contains(says), "{log}");
    let events = namespace
        .kubectl(&["describe", "ytj", "lost"])
        .expect("kubectl describe");
    assert!(events.contains("WorkerReplaced"), "{events}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_pod_that_is_deleted_is_replaced_alone_and_costs_no_restart() {
    let namespace = Namespace::new("worker");
    data::digits(&namespace, 64, 16, 64);
    // A pod that is taken away costs none of these.
    let job = long_job("killed")
        .set("/failurePolicy", json!({"maxRestarts": 0}))
        .set("/training/checkpointEvery", EPOCHS)
        .set("/training/snapshotSeconds", 2);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "killed", "a while of training", |job| {
        let seconds = job["status"]["progress"]["trainingSeconds"].as_f64();
        seconds.is_some_and(|seconds| seconds > 5.0)
    });
    let old = seen::worker_names(&namespace, "killed");
    assert_eq!(2, old.len(), "{old:?}");
    // The kill is hard: no time for a last checkpoint.
    namespace
        .kubectl(&["delete", "pod", &old[0], "--grace-period=0", "--force"])
        .expect("killing a worker");
    let start = Instant::now();
    let new = seen::without(&namespace, "killed", &old, &old[0]);
    assert_eq!(old[1], new[1], "the other keeps its pod");
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(&namespace, &new[0], &next);
    let name = "pod of worker 0 deleted without grace until training steps are seen";
    measured::seconds(name, start.elapsed(), Some(10));

    let job = seen::wait_complete(&namespace, "killed");
    assert_eq!(1, job["status"]["restarts"], "{}", job["status"]);
    assert_eq!(0, job["status"]["countedRestarts"]);
    assert_eq!(next, job["status"]["attempt"]);
    assert_eq!(EPOCHS * 8, step(&job), "8 steps in an epoch");
    assert_eq!(new, seen::worker_names(&namespace, "killed"));
    let log = namespace
        .kubectl(&["logs", &new[0], "--container=worker"])
        .expect("the log");
    // From a checkpoint, if there was the time to take one.
    assert!(log.contains("going on from"), "{log}");
    let failure = &job["status"]["failures"][0];
    assert_eq!(
        (json!(0), json!("PodDeleted")),
        (failure["worker"].clone(), failure["reason"].clone())
    );
    let events = namespace
        .kubectl(&["describe", "ytj", "killed"])
        .expect("kubectl describe");
    assert!(events.contains("WorkerReplaced"), "{events}");
}

#[test]
fn when_all_workers_are_gone_the_gang_begins_anew_from_its_checkpoint() {
    let namespace = Namespace::new("gang");
    data::digits(&namespace, 64, 16, 64);
    let job = long_job("gone").set("/failurePolicy", json!({"maxRestarts": 0}));
    namespace.apply(&job.manifest()).expect("applying the job");
    let before = seen::wait(&namespace, "gone", "a checkpoint", |job| {
        job["status"]["checkpoint"]["step"].as_u64().unwrap_or(0) > 0
    });
    let old = seen::worker_names(&namespace, "gone");
    namespace
        .kubectl(&[
            "delete",
            "pod",
            &old[0],
            &old[1],
            "--grace-period=0",
            "--force",
        ])
        .expect("killing the workers");
    let start = Instant::now();
    let new = seen::replaced(&namespace, "gone", &old);
    let next = json!({"incarnation": 1, "restart": 0});
    seen::trains_in(&namespace, &new[0], &next);
    let name = "both pods deleted without grace until training steps are seen";
    measured::seconds(name, start.elapsed(), None);
    let log = namespace
        .kubectl(&["logs", &new[0], "--container=worker"])
        .expect("the log");
    assert!(
        seen::goes_on_from(&log) >= before["status"]["checkpoint"]["step"].as_u64()
            && !log.contains("/dev/shm"),
        "it began before its checkpoint: {log}"
    );
    let job = seen::wait_complete(&namespace, "gone");
    let status = &job["status"];
    assert_eq!(
        (json!(0), &next),
        (status["countedRestarts"].clone(), &status["attempt"])
    );
    assert_eq!(EPOCHS * 8, step(&job), "8 steps in an epoch");
    assert_eq!(new, seen::worker_names(&namespace, "gone"));
    let events = namespace
        .kubectl(&["describe", "ytj", "gone"])
        .expect("kubectl describe");
    assert!(events.contains("Restarting"), "{events}");
}

#[test]
fn a_worker_asked_to_leave_takes_a_checkpoint_first() {
    asked_to_leave(0);
    asked_to_leave(1);
}

fn asked_to_leave(index: usize) {
    let namespace = Namespace::new("leave");
    data::digits(&namespace, 64, 16, 64);
    // One checkpoint in 100 epochs: what the next attempt resumes from was taken at the signal.
    let job = long_job("polite").set("/training/checkpointEvery", 100);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "polite", "some steps", |job| step(job) >= 8);
    let old = seen::worker_names(&namespace, "polite");
    namespace
        .kubectl(&["delete", "pod", &old[index], "--wait=false"])
        .expect("deleting a worker");
    let start = Instant::now();
    let new = seen::without(&namespace, "polite", &old, &old[index]);
    let next = json!({"incarnation": 0, "restart": 1});
    seen::trains_in(&namespace, &new[0], &next);
    let name = format!("pod of worker {index} deleted until training steps are seen");
    measured::seconds(&name, start.elapsed(), Some(10));
    let job = seen::wait_complete(&namespace, "polite");
    assert_eq!(1, job["status"]["restarts"], "{}", job["status"]);
    assert_eq!(0, job["status"]["countedRestarts"].as_u64().unwrap_or(0));
    assert_eq!(new, seen::worker_names(&namespace, "polite"));
    assert_eq!(
        old[1 - index],
        new[1 - index],
        "only the one that had to leave is replaced"
    );
    let log = namespace
        .kubectl(&["logs", &new[0], "--container=worker"])
        .expect("the log");
    assert!(log.contains("going on from"), "{log}");
}

#[test]
fn training_goes_on_without_the_operator_and_the_status_catches_up() {
    let namespace = Namespace::new("operator");
    data::digits(&namespace, 64, 16, 64);
    namespace
        .apply(&long_job("alone").manifest())
        .expect("applying the job");
    let before = seen::wait_training(&namespace, "alone");
    let pods = seen::worker_names(&namespace, "alone");

    let scale = |replicas: &str| {
        kubectl(&[
            "--namespace",
            OPERATOR_NAMESPACE,
            "scale",
            "deployment/yolo-operator",
            replicas,
        ])
        .expect("scaling the operator");
    };
    let operators = || {
        kubectl(&[
            "--namespace",
            OPERATOR_NAMESPACE,
            "get",
            "pods",
            "--selector=app.kubernetes.io/name=yolo-operator",
            "--output=name",
        ])
        .expect("listing operators")
    };
    // Killed, not asked: it has no chance to hand anything over.
    let name = operators().trim().to_owned();
    scale("--replicas=0");
    kubectl(&[
        "--namespace",
        OPERATOR_NAMESPACE,
        "delete",
        &name,
        "--grace-period=0",
        "--force",
    ]);
    until("the operator to be gone", Duration::from_secs(30), || {
        let left = operators();
        if left.trim().is_empty() {
            Ok(())
        } else {
            Err(left)
        }
    });
    // The workers go on to the end by themselves.
    until("the workers to finish", seen::END, || {
        let phases: Vec<_> = namespace
            .list("pods", "yolo-operator.dev/job-name=alone")
            .iter()
            .map(|pod| {
                pod["status"]["phase"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        if phases.iter().all(|phase| phase == "Succeeded") {
            Ok(())
        } else {
            Err(phases.join(" "))
        }
    });
    let stale = namespace.get("ytj", "alone").expect("still there");
    assert!(
        seen::condition(&stale, "Complete").is_none(),
        "nobody was there to write it"
    );
    assert!(step(&stale) >= step(&before));

    scale("--replicas=1");
    let job = seen::wait_complete(&namespace, "alone");
    assert_eq!(
        EPOCHS * 8,
        step(&job),
        "the last report came from the termination message"
    );
    assert_eq!(0, job["status"]["restarts"]);
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "alone"),
        "no pod was replaced"
    );
}
