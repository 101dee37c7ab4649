//! Data sets on volumes of the cluster.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::wait::until;

/// The claim of the data set.
pub const DATA_CLAIM: &str = "digits";
/// The claim that receives runs.
pub const RUNS_CLAIM: &str = "runs";

/// Creates both claims, and digit scenes in the first, with a Job that runs the trainer's image.
pub fn digits(namespace: &Namespace, train: u32, val: u32, image_size: u32) {
    for claim in [DATA_CLAIM, RUNS_CLAIM] {
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        });
        namespace
            .apply(&manifest.to_string())
            .expect("creating a claim");
    }
    let arguments = [
        "make-dataset",
        "digits",
        "--output=/data/digits",
        &format!("--train={train}"),
        &format!("--val={val}"),
        &format!("--image-size={image_size}"),
    ];
    trainer_job(namespace, "make-dataset", &arguments);
}

/// Runs the trainer's image once with both claims mounted at /data and /output; returns its log.
pub fn trainer_job(namespace: &Namespace, name: &str, arguments: &[&str]) -> String {
    let image = std::env::var("YOLO_TEST_TRAINER_IMAGE").expect("set by scripts/test-cluster.sh");
    let manifest = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": {
            "restartPolicy": "Never",
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": name,
                "image": image,
                "args": arguments,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [
                    {"name": "data", "mountPath": "/data"},
                    {"name": "runs", "mountPath": "/output"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
            }],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": DATA_CLAIM}},
                {"name": "runs", "persistentVolumeClaim": {"claimName": RUNS_CLAIM}},
                {"name": "tmp", "emptyDir": {}},
            ],
        }}},
    });
    namespace
        .apply(&manifest.to_string())
        .expect("creating a Job");
    until(
        &format!("job {name} to end"),
        Duration::from_mins(2),
        || {
            let job = namespace.get("job", name).ok_or("the job is gone")?;
            let log = || {
                let output = namespace.kubectl(&["logs", &format!("job/{name}")]);
                output.stdout + &output.stderr
            };
            if job["status"]["succeeded"] == 1 {
                return Ok(log());
            }
            assert!(
                job["status"]["failed"].is_null(),
                "job {name} failed:\n{}",
                log()
            );
            Err(job["status"].to_string())
        },
    )
}

/// The folder of this machine that is behind a claim. The local cluster's volumes are such folders.
pub fn folder(namespace: &Namespace, claim: &str) -> PathBuf {
    let claim = namespace.get("pvc", claim).expect("the claim exists");
    let volume = claim["spec"]["volumeName"]
        .as_str()
        .expect("the claim is bound")
        .to_owned();
    let volume = namespace.get("pv", &volume).expect("the volume exists");
    ["/spec/local/path", "/spec/hostPath/path"]
        .into_iter()
        .find_map(|pointer| volume.pointer(pointer)?.as_str().map(PathBuf::from))
        .expect("a volume of the local cluster is a folder of this machine")
}

/// The folder of a job's last checkpoint.
pub fn checkpoint(namespace: &Namespace, job: &Value) -> PathBuf {
    let path = job["status"]["checkpoint"]["path"].as_str();
    folder(namespace, RUNS_CLAIM).join(path.expect("a checkpoint"))
}

/// The last checkpoints of two jobs hold the same model, average and optimiser, byte for byte.
#[track_caller]
pub fn assert_same_weights(namespace: &Namespace, jobs: [&Value; 2]) {
    for file in [
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
    ] {
        let [a, b] = jobs.map(|job| {
            let path = checkpoint(namespace, job).join(file);
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        });
        assert!(a == b, "{file} differs");
    }
}

/// Every file below a folder with its size, time of change and content, to show that nothing changed.
pub fn fingerprint(folder: &std::path::Path) -> Vec<(PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is readable") {
            let entry = entry.expect("the entry is readable");
            let meta = entry.metadata().expect("the entry has metadata");
            let changed = meta.modified().expect("the file system keeps times");
            if meta.is_dir() {
                folders.push(entry.path());
                found.push((entry.path(), changed, Vec::new()));
            } else {
                let content = std::fs::read(entry.path()).expect("the file is readable");
                found.push((entry.path(), changed, content));
            }
        }
    }
    found.sort();
    found
}
