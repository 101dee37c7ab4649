//! Data sets that are fetched before the workers begin.

use std::fs;
use std::path::Path;

use contract::exit::FailureReason;
use serde_json::{Value, json};
use tests::{Job, Moto, Namespace, cluster, data, moto};

use crate::seen;

pub const SECRET: &str = "neither-in-status-nor-in-logs";

/// Puts every file below a folder into a bucket, under the folder's own name.
pub fn upload(moto: &Moto, bucket: &str, folder: &Path) {
    moto.bucket(bucket);
    let root = folder.parent().expect("a folder has a parent");
    for (path, _, content) in data::fingerprint(folder) {
        if path.is_file() {
            let key = path.strip_prefix(root).expect("it is below");
            moto.put(bucket, &key.display().to_string(), &content);
        }
    }
}

/// What a store is opened with.
pub fn secret(namespace: &Namespace) {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET},
    });
    namespace
        .apply(&secret.to_string())
        .expect("creating a Secret");
}

fn fetched(name: &str, moto: &Moto, url: &str, to: Value) -> Job {
    Job::new(name)
        .set("/training/epochs", 1)
        .without("/dataset/persistentVolumeClaim")
        .set(
            "/dataset/objectStorage",
            json!({"url": url, "endpoint": moto.url(), "allowHttp": true, "credentialsSecret": "keys"}),
        )
        .set("/dataset/fetchTo", to)
}

#[test]
fn a_job_trains_from_s3_and_the_next_one_finds_the_files() {
    let namespace = Namespace::new("s3");
    data::digits(&namespace, 64, 16, 64);
    secret(&namespace);
    let moto = Moto::start(moto::HOST_OF_PODS);
    let digits = data::folder(&namespace, data::DATA_CLAIM).join("digits");
    upload(&moto, "datasets", &digits);

    // To a claim that is made for the job, with credentials that appear nowhere.
    let template = json!({"volumeClaimTemplate": {
        "resources": {"requests": {"storage": "1Gi"}}, "retentionPolicy": "Delete"}});
    let job = fetched("first", &moto, "s3://datasets/digits", template);
    namespace.apply(&job.manifest()).expect("applying the job");
    let done = seen::wait_complete(&namespace, "first");
    assert_eq!("Succeeded", done["status"]["fetch"]["state"]);
    assert_eq!("first-fetch-0", done["status"]["fetch"]["pod"]);
    let log = namespace
        .kubectl(&["logs", "first-fetch-0"])
        .expect("the log of the fetch");
    let frozen = namespace.get("configmap", "first-config").expect("frozen");
    for text in [done.to_string(), log, frozen.to_string()] {
        assert!(!text.contains(SECRET), "a credential was told: {text}");
    }
    let pod = namespace
        .get("pod", "first-fetch-0")
        .expect("it stays for its log");
    assert!(!pod["spec"].to_string().contains("nvidia.com/gpu"));
    let volume = data::folder(&namespace, "first-dataset");
    for (path, _, content) in data::fingerprint(&digits) {
        let name = path.strip_prefix(&digits).expect("below");
        if path.is_file() {
            assert!(
                fs::read(volume.join(name)).expect("fetched") == content,
                "{}",
                name.display()
            );
        }
    }
    // Workers cannot write there.
    let workers = seen::workers(&namespace, "first");
    for worker in &workers {
        let mounts = worker["spec"]["containers"][0]["volumeMounts"].as_array();
        let data = mounts
            .expect("mounts")
            .iter()
            .find(|mount| mount["mountPath"] == "/data");
        assert_eq!(true, data.expect("a data set")["readOnly"]);
    }

    // Two jobs share what one of them fetched, and the second needs no server.
    let to = json!({"persistentVolumeClaim": {"claimName": data::RUNS_CLAIM, "subPath": "cache/digits"}});
    let job = fetched("second", &moto, "s3://datasets/digits", to.clone());
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_complete(&namespace, "second");
    let job = fetched("third", &moto, "s3://datasets/digits", to);
    drop(moto);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_complete(&namespace, "third");
    let log = namespace
        .kubectl(&["logs", "third-fetch-0"])
        .expect("the log of the fetch");
    assert!(log.contains("is here already"), "{log}");
}

#[test]
fn a_data_set_that_is_not_there_fails_the_job_before_any_worker() {
    let namespace = Namespace::new("missing");
    data::digits(&namespace, 8, 4, 64);
    secret(&namespace);
    let moto = Moto::start(moto::HOST_OF_PODS);
    moto.bucket("datasets");
    let to = json!({"persistentVolumeClaim": {"claimName": data::RUNS_CLAIM, "subPath": "cache"}});
    let job = fetched("gone", &moto, "s3://datasets/none", to);
    namespace.apply(&job.manifest()).expect("applying the job");
    let (reason, message) = seen::wait_failed(&namespace, "gone");
    assert_eq!(FailureReason::InvalidDataset.as_str(), reason);
    assert!(
        message.contains("s3://datasets/none/ does not exist"),
        "{message}"
    );
    let workers = seen::workers(&namespace, "gone");
    assert!(workers.is_empty(), "workers were begun");
}

/// The claim's own data file is another one, and stays as it is.
#[test]
fn a_data_file_from_a_config_map_chooses_among_what_is_in_the_source() {
    let namespace = Namespace::new("file");
    data::digits(&namespace, 64, 16, 64);
    let folder = data::folder(&namespace, data::DATA_CLAIM).join("digits");
    let text = fs::read_to_string(folder.join("data.yaml")).expect("a data file");
    // Validation on what it trains on: 64 images, not 16.
    let swapped: Vec<String> = text
        .lines()
        .map(|line| match line.split_once(':') {
            Some(("val", _)) => text
                .lines()
                .find_map(|line| Some(format!("val:{}", line.strip_prefix("train:")?)))
                .expect("training images"),
            _ => line.to_owned(),
        })
        .collect();
    let job = Job::new("file").set("/training/epochs", 1).set(
        "/dataset/configMap",
        json!({"name": "mine", "key": "mine.yaml"}),
    );
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "file", "words of what is missing", |job| {
        job["status"]["waitingOn"].to_string().contains("mine")
    });
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine"},
        "data": {"mine.yaml": swapped.join("\n")}});
    namespace.apply(&map.to_string()).expect("creating the map");
    seen::wait_complete(&namespace, "file");
    let log = namespace
        .kubectl(&["logs", "file-worker-0-0", "--container=worker"])
        .expect("the log");
    assert!(log.contains("val: 64 images"), "{log}");
}

/// The image has files only: no program, and no process of it ever runs.
#[test]
fn a_job_trains_from_an_image_that_is_mounted() {
    let namespace = Namespace::new("image");
    data::digits(&namespace, 64, 16, 64);
    let folder = data::folder(&namespace, data::DATA_CLAIM).join("digits");
    let reference = format!("localhost/{}:1", namespace.name());
    let made = cluster::script(
        "tests/cluster/volume-image.sh",
        &[&folder.display().to_string(), &reference],
    );
    made.expect("making an image");
    let from_claim = Job::new("claim").set("/training/epochs", 1);
    let from_image = Job::new("image")
        .set("/training/epochs", 1)
        .without("/dataset/persistentVolumeClaim")
        .set(
            "/dataset/image",
            json!({"reference": reference, "pullPolicy": "Never"}),
        );
    let mut done = Vec::new();
    for (name, job) in [("claim", from_claim), ("image", from_image)] {
        namespace.apply(&job.manifest()).expect("applying the job");
        done.push(seen::wait_complete(&namespace, name));
    }
    data::assert_same_weights(&namespace, [&done[0], &done[1]]);
    // An image that no node has is told in the kubelet's words.
    let none = Job::new("none")
        .without("/dataset/persistentVolumeClaim")
        .set(
            "/dataset/image",
            json!({"reference": "localhost/no-such-set:1", "pullPolicy": "Never"}),
        );
    namespace.apply(&none.manifest()).expect("applying the job");
    seen::wait(&namespace, "none", "words about the image", |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        told.contains("no-such-set")
    });
}
