//! When a job runs, for how long, and what is left of it.

use std::time::Duration;

use serde_json::Value;
use tests::{Job, Namespace, data, until};

use crate::seen;

const EPOCHS: u64 = 60;

fn patch(namespace: &Namespace, job: &str, spec: &str) {
    let patch = format!("{{\"spec\": {spec}}}");
    namespace
        .kubectl(&["patch", "ytj", job, "--type=merge", "--patch", &patch])
        .expect("patching the job");
}

fn pods(namespace: &Namespace, job: &str) -> Vec<Value> {
    namespace.list("pods", &format!("yolo-operator.dev/job-name={job}"))
}

/// The folder of the job's last checkpoint.
#[test]
fn a_suspended_run_goes_on_at_the_step_it_left_and_ends_with_the_same_bytes() {
    let namespace = Namespace::new("suspend");
    data::digits(&namespace, 64, 16, 64);
    // One checkpoint at the end: what the run goes on from was taken when it was suspended.
    let job = |name| {
        Job::new(name)
            .set("/training/epochs", EPOCHS)
            .set("/training/checkpointEvery", 100)
    };
    namespace
        .apply(&job("disturbed").manifest())
        .expect("applying the job");
    seen::wait_training(&namespace, "disturbed");
    patch(&namespace, "disturbed", r#"{"suspend": true}"#);
    let suspended = seen::wait(&namespace, "disturbed", "the pods to go", |job| {
        seen::condition(job, "Suspended").is_some() && pods(&namespace, "disturbed").is_empty()
    });
    let status = &suspended["status"];
    assert_eq!("Suspended", status["state"]);
    assert!(status["startTime"].is_null(), "its time does not run");
    let left = status["checkpoint"]["step"].as_u64().expect("a checkpoint");
    let total = EPOCHS * 8;
    assert!((1..total).contains(&left), "suspended at step {left}");
    assert!(data::checkpoint(&namespace, &suspended).exists());
    let condition = seen::condition(&suspended, "Suspended").expect("seen above");
    let message = condition["message"].as_str().expect("a message");
    assert!(
        message.ends_with(&format!("the run stands at step {left}")),
        "{message}"
    );
    // Nothing of it comes back when the operator looks again.
    patch(
        &namespace,
        "disturbed",
        r#"{"activeDeadlineSeconds": 10000}"#,
    );
    seen::wait(
        &namespace,
        "disturbed",
        "the operator to look again",
        |job| job["status"]["observedGeneration"] == job["metadata"]["generation"],
    );
    assert!(pods(&namespace, "disturbed").is_empty());

    patch(&namespace, "disturbed", r#"{"suspend": false}"#);
    seen::wait_training(&namespace, "disturbed");
    let resumed = seen::worker_names(&namespace, "disturbed");
    let disturbed = seen::wait_complete(&namespace, "disturbed");
    assert_eq!(
        0, disturbed["status"]["restarts"],
        "no failure: {}",
        disturbed["status"]
    );
    let log = namespace
        .kubectl(&["logs", &resumed[0], "--container=worker"])
        .expect("the log");
    assert!(
        log.contains(&format!("step {left}")),
        "it did not go on from step {left}:\n{log}"
    );

    namespace
        .apply(&job("undisturbed").manifest())
        .expect("applying the job");
    let undisturbed = seen::wait_complete(&namespace, "undisturbed");
    data::assert_same_weights(&namespace, [&disturbed, &undisturbed]);
    let events = namespace
        .kubectl(&["describe", "ytj", "disturbed"])
        .expect("kubectl describe");
    assert!(
        events.contains("Suspended") && events.contains("Resumed"),
        "{events}"
    );
}

#[test]
fn a_job_may_be_created_suspended_and_end_at_its_deadline_and_go_after_its_time() {
    let namespace = Namespace::new("policy");
    // Its claims do not exist, so its pods wait for ever.
    let job = Job::new("patient").set("/suspend", true);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "patient", "it to be suspended", |job| {
        job["status"]["state"] == "Suspended"
    });
    assert!(pods(&namespace, "patient").is_empty());
    let ending = r#"{"suspend": false, "activeDeadlineSeconds": 3}"#;
    patch(&namespace, "patient", ending);
    seen::wait(&namespace, "patient", "its pods", |_| {
        pods(&namespace, "patient").len() == 2
    });
    let (reason, message) = seen::wait_failed(&namespace, "patient");
    assert_eq!("DeadlineExceeded", reason);
    assert!(message.contains("activeDeadlineSeconds, 3 s"), "{message}");
    // The operator remembers little of what has ended, and must not write that little over the rest.
    let before = namespace.get("ytj", "patient").expect("it is there");
    assert_eq!(
        2,
        before["status"]["workers"].as_array().map_or(0, Vec::len)
    );
    patch(
        &namespace,
        "patient",
        r#"{"ttlSecondsAfterFinished": 1000}"#,
    );
    let after = seen::wait(&namespace, "patient", "a look at its time", |job| {
        job["status"]["observedGeneration"] == job["metadata"]["generation"]
    });
    let told = |job: &Value| -> Value {
        let mut status = job["status"].clone();
        for changes in ["observedGeneration", "lastUpdateTime"] {
            status[changes].take();
        }
        for condition in status["conditions"].as_array_mut().into_iter().flatten() {
            condition["observedGeneration"].take();
        }
        status
    };
    assert_eq!(told(&before), told(&after));
    patch(&namespace, "patient", r#"{"ttlSecondsAfterFinished": 4}"#);
    until(
        "the job to go",
        Duration::from_secs(30),
        || match namespace.get("ytj", "patient") {
            None => Ok(()),
            Some(job) => Err(job["status"].to_string()),
        },
    );
    until("its pods to go", Duration::from_secs(60), || {
        match pods(&namespace, "patient").len() {
            0 => Ok(()),
            n => Err(format!("{n} pods")),
        }
    });
}

#[test]
fn the_job_of_another_controller_is_left_alone() {
    let namespace = Namespace::new("managed");
    let foreign = Job::new("foreign").set("/managedBy", "kueue.x-k8s.io/multikueue");
    namespace.apply(&foreign.manifest()).expect("applying it");
    let own = Job::new("own").set("/managedBy", "yolo-operator.dev/controller");
    namespace.apply(&own.manifest()).expect("applying it");
    seen::wait(&namespace, "own", "it to be taken up", |job| {
        job["status"]["state"].is_string()
    });
    let foreign = namespace.get("ytj", "foreign").expect("it is there");
    assert!(foreign["status"].is_null(), "{foreign}");
    assert!(pods(&namespace, "foreign").is_empty());
}

#[test]
fn pods_of_a_job_that_is_complete_stay_or_go_as_it_says() {
    let namespace = Namespace::new("clean");
    data::digits(&namespace, 64, 16, 64);
    let jobs = [
        ("all", "All", 0),
        ("none", "None", 2),
        ("running", "Running", 2),
    ];
    for (name, policy, _) in jobs {
        let job = Job::new(name)
            .set("/training/epochs", 1)
            .set("/cleanPodPolicy", policy);
        namespace.apply(&job.manifest()).expect("applying the job");
    }
    for (name, _, _) in jobs {
        seen::wait_complete(&namespace, name);
    }
    for (name, policy, left) in jobs {
        let what = format!("{left} pods of {policy}");
        until(&what, Duration::from_secs(60), || {
            match pods(&namespace, name).len() {
                found if found == left => Ok(()),
                found => Err(format!("{found}")),
            }
        });
    }
}
