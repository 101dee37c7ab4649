//! Runs that are kept in an object store.

use std::fs;

use contract::paths::AGENT_PORT;
use serde_json::json;
use tests::{Job, Moto, Namespace, data, kubectl, moto};

use crate::dataset::{SECRET, secret};
use crate::seen;

fn job(name: &str) -> Job {
    Job::new(name)
        .set("/training/epochs", 45)
        // One in two seconds or so, of which three are kept: long enough to be looked at.
        .set("/training/checkpointEvery", 6)
}

/// What the agent in a pod tells whoever asks: progress and metrics.
fn pages(namespace: &Namespace, pod: &str) -> [String; 2] {
    ["progress", "metrics"].map(|page| {
        let pods = format!("/api/v1/namespaces/{}/pods", namespace.name());
        let path = format!("{pods}/{pod}:{AGENT_PORT}/proxy/{page}");
        kubectl(&["get", "--raw", &path]).expect(page)
    })
}

#[test]
fn a_run_in_an_object_store_goes_on_in_another_pod_and_ends_with_the_same_bytes() {
    let namespace = Namespace::new("kept");
    data::digits(&namespace, 64, 16, 64);
    secret(&namespace);
    let moto = Moto::start(moto::HOST_OF_PODS);
    moto.bucket("runs");
    let storage = json!({"url": "s3://runs/team", "endpoint": moto.url(), "allowHttp": true, "credentialsSecret": "keys"});
    let kept = job("kept")
        .without("/output/persistentVolumeClaim")
        .set("/output/objectStorage", storage);
    namespace.apply(&kept.manifest()).expect("applying the job");
    let begun = seen::wait(&namespace, "kept", "a checkpoint in the store", |job| {
        job["status"]["checkpoint"]["path"].is_string()
    });
    // What the status names is there, whole.
    let path = begun["status"]["checkpoint"]["path"]
        .as_str()
        .expect("seen");
    let manifest = format!("team/{path}/manifest.json");
    let keys = moto.keys("runs");
    assert!(keys.contains(&manifest), "no {manifest} among {keys:?}");
    let old = seen::worker_names(&namespace, "kept");
    let [progress, metrics] = pages(&namespace, &old[0]);
    namespace
        .kubectl(&[
            "delete",
            "pod",
            "kept-worker-0-0",
            "--grace-period=0",
            "--force",
        ])
        .expect("deleting a pod");
    let new = seen::without(&namespace, "kept", &old, &old[0]);
    assert_eq!(old[1..], new[1..], "the others keep their pods");
    let done = seen::wait_complete(&namespace, "kept");
    let status = &done["status"];
    assert_eq!(
        (json!(1), json!(0)),
        (
            status["restarts"].clone(),
            status["countedRestarts"].clone()
        ),
        "{status}"
    );

    // The results are there when the job is complete.
    let plain = job("plain");
    namespace
        .apply(&plain.manifest())
        .expect("applying the job");
    let undisturbed = seen::wait_complete(&namespace, "plain");
    let last = status["checkpoint"]["path"].as_str().expect("a checkpoint");
    assert_eq!(
        undisturbed["status"]["checkpoint"]["step"],
        status["checkpoint"]["step"]
    );
    let folder = data::checkpoint(&namespace, &undisturbed);
    for file in [
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
    ] {
        let here = fs::read(folder.join(file)).expect("there");
        let there = moto.get("runs", &format!("team/{last}/{file}"));
        assert!(here == there, "{file} differs");
    }
    let run = last.split('/').next().expect("the run's folder");
    let keys = moto.keys("runs");
    for file in [
        "weights/last.safetensors",
        "weights/best.safetensors",
        "results.csv",
        "report.html",
    ] {
        let key = format!("team/{run}/{file}");
        assert!(keys.contains(&key), "no {key} among {keys:?}");
    }

    let frozen = namespace.get("configmap", "kept-config").expect("frozen");
    let pods = namespace.list("pods", "yolo-operator.dev/job-name=kept");
    let [first, second] = [0, 1].map(|index| &pods[index]);
    let log = namespace
        .kubectl(&["logs", "kept-worker-0-1", "--container=keeper"])
        .expect("the log of the keeper");
    assert!(log.contains("everything is in s3://runs/team/"), "{log}");
    let of_worker = namespace
        .kubectl(&["logs", "kept-worker-0-1", "--container=worker"])
        .expect("the log of the worker");
    assert!(progress.contains("step") && metrics.contains("yolo_"));
    for text in [
        progress,
        metrics,
        of_worker,
        done.to_string(),
        frozen.to_string(),
        first.to_string(),
        second.to_string(),
        log,
    ] {
        assert!(!text.contains(SECRET), "a credential was told: {text}");
    }
}
