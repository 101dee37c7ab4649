//! The life of a job that goes well.

use std::time::Duration;

use tests::{Job, Namespace, data, until};

use crate::seen;

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, told in the order in which a user sees it"
)]
fn two_workers_on_two_nodes_train_and_everything_can_be_seen() {
    let namespace = Namespace::new("life");
    data::digits(&namespace, 64, 16, 64);
    let dataset = data::folder(&namespace, data::DATA_CLAIM);
    let before = data::fingerprint(&dataset);

    namespace
        .apply(&Job::new("life").manifest())
        .expect("applying the job");
    seen::wait_training(&namespace, "life");
    let nodes: std::collections::BTreeSet<String> = namespace
        .list("pods", "yolo-operator.dev/job-name=life")
        .iter()
        .filter_map(|pod| Some(pod["spec"]["nodeName"].as_str()?.to_owned()))
        .collect();
    assert_eq!(2, nodes.len(), "both workers are on one node");
    namespace
        .kubectl(&[
            "wait",
            "--for=condition=Complete",
            "ytj/life",
            "--timeout=5m",
        ])
        .expect("kubectl wait");
    let job = seen::wait_complete(&namespace, "life");

    // The status says how it went.
    let status = &job["status"];
    assert_eq!("Complete", status["state"]);
    assert_eq!(3, status["progress"]["epoch"]);
    assert_eq!(
        24, status["progress"]["step"],
        "64 images in batches of 8, three times"
    );
    assert_eq!(
        100.0,
        status["progress"]["percent"].as_f64().expect("a number")
    );
    assert!(
        status["latest"]["trainLoss"]["total"]
            .as_f64()
            .expect("a loss")
            > 0.0
    );
    assert!(status["best"]["mAP50"].as_f64().is_some());
    assert_eq!(24, status["checkpoint"]["step"]);
    assert!(status["startTime"].is_string() && status["completionTime"].is_string());
    for condition in status["conditions"].as_array().expect("conditions") {
        assert_eq!(
            job["metadata"]["generation"], condition["observedGeneration"],
            "{condition}"
        );
    }

    // Nobody kept the others waiting.
    let events = namespace
        .kubectl(&["get", "events", "--output=jsonpath={.items[*].reason}"])
        .expect("events");
    assert!(!events.contains("Straggler"), "{events}");
    // So does kubectl.
    let table = namespace
        .kubectl(&["get", "ytj", "life"])
        .expect("kubectl get");
    for text in [
        "STATE", "WORKERS", "EPOCH", "LOSS", "MAP50-95", "PROGRESS", "ETA", "AGE",
    ] {
        assert!(table.contains(text), "no column {text} in:\n{table}");
    }
    for text in ["Complete", "2/2", "3/3", "100%"] {
        assert!(table.contains(text), "no {text} in:\n{table}");
    }
    let described = namespace
        .kubectl(&["describe", "ytj", "life"])
        .expect("kubectl describe");
    assert!(
        described.contains("Events:") && described.contains("mAP50"),
        "{described}"
    );

    // The results lie where the status says, and nowhere else.
    let runs = data::folder(&namespace, data::RUNS_CLAIM);
    let uid = job["metadata"]["uid"].as_str().expect("a uid");
    let run = contract::paths::run_folder("life", uid);
    let entries: Vec<_> = std::fs::read_dir(&runs)
        .expect("the volume is readable")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    assert_eq!(vec![run.clone()], entries);
    for path in [
        status["checkpoint"]["path"].as_str().expect("a checkpoint"),
        status["bestWeights"].as_str().expect("weights"),
        &format!("{run}/results.csv"),
    ] {
        assert!(runs.join(path).exists(), "{path} is not on the volume");
    }
    assert_eq!(
        before,
        data::fingerprint(&dataset),
        "something in the data set was written"
    );

    // Deleting the job removes all that was made for it, and leaves the results.
    namespace
        .kubectl(&["delete", "ytj", "life"])
        .expect("deleting the job");
    until(
        "everything of the job to go",
        Duration::from_secs(60),
        || {
            let kinds = "pods,services,configmaps,secrets";
            let left = namespace.list(kinds, "yolo-operator.dev/job-name=life");
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{} objects", left.len()))
            }
        },
    );
    assert!(runs.join(run).exists(), "the results went with the job");
}

#[test]
fn worker_pods_meet_the_restricted_standard_and_carry_no_token() {
    // The namespace enforces the standard, so pods that exist have met it.
    let namespace = Namespace::new("restricted");
    namespace
        .apply(&Job::new("safe").manifest())
        .expect("applying the job");
    let pods = until("two pods", Duration::from_secs(20), || {
        let pods = namespace.list("pods", "yolo-operator.dev/job-name=safe");
        if pods.len() == 2 {
            Ok(pods)
        } else {
            Err(format!("{} pods", pods.len()))
        }
    });
    for pod in pods {
        assert_eq!(false, pod["spec"]["automountServiceAccountToken"]);
        let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
        let shm = volumes
            .iter()
            .find(|volume| volume["emptyDir"]["medium"] == "Memory")
            .expect("a memory volume for /dev/shm");
        assert_eq!("1Gi", shm["emptyDir"]["sizeLimit"]);
    }
    // Its claims do not exist: the job waits, and says for what.
    let waiting = seen::wait(&namespace, "safe", "the wait to be explained", |job| {
        let conditions = job["status"]["conditions"].to_string();
        conditions.contains("VolumeNotReady")
            && [data::DATA_CLAIM, data::RUNS_CLAIM]
                .iter()
                .any(|claim| conditions.contains(&format!("\\\"{claim}\\\" not found")))
    });
    assert!(seen::condition(&waiting, "Failed").is_none());
}
