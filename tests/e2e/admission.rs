//! What the API server accepts, and with which words it refuses.

mod ranges;
mod workers;

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, kubectl, kubectl_in, until};

/// `kubectl apply` of the job is refused, and what it prints holds every given text.
#[track_caller]
fn refused(namespace: &Namespace, job: &Job, texts: &[&str]) {
    let output = namespace.apply(&job.manifest());
    assert!(!output.success, "accepted: {}", job.manifest());
    for text in texts {
        assert!(
            output.stderr.contains(text),
            "no '{text}' in:\n{}",
            output.stderr
        );
    }
}

#[test]
fn the_smallest_job_is_accepted_and_its_defaults_are_visible() {
    let namespace = Namespace::new("smallest");
    let job = Job::new("small")
        .without("/training")
        .without("/augmentation")
        .without("/model");
    namespace.apply(&job.manifest()).expect("the smallest job");
    let stored = namespace.get("ytj", "small").expect("stored");
    assert_eq!(stored["spec"]["training"]["epochs"], 100);
    assert_eq!(stored["spec"]["hyperparameters"]["lr0"], 0.01);
    assert_eq!(stored["spec"]["failurePolicy"]["maxRestarts"], 3);
}

#[test]
fn numbers_out_of_range_are_refused_with_field_value_and_remedy() {
    let namespace = Namespace::new("ranges");
    let job = || Job::new("j");
    refused(
        &namespace,
        &job().set("/training/epochs", 0),
        &["training.epochs is 0: choose 1 to 100000"],
    );
    refused(
        &namespace,
        &job().set("/training/imageSize", 650),
        &[
            "training.imageSize is 650: choose a multiple of 32",
            "for example 672",
        ],
    );
    refused(
        &namespace,
        &job().set("/augmentation/mosaic", 1.5),
        &["augmentation.mosaic is 1.5: choose 0 to 1"],
    );
    refused(
        &namespace,
        &job().set("/training/cacheLimit", "20G"),
        &["training.cacheLimit is '20G': write a whole number of Mi, Gi or Ti"],
    );
    refused(
        &namespace,
        &job()
            .set("/training/cache", "none")
            .set("/training/cacheLimit", "20Gi"),
        &["training.cacheLimit is set, but training.cache is none"],
    );
    refused(
        &namespace,
        &job().set("/hyperparameters", serde_json::json!({"stepEpochs": 10})),
        &["hyperparameters.stepEpochs is of the schedule step only"],
    );
    refused(
        &namespace,
        &job().set(
            "/hyperparameters",
            serde_json::json!({"schedule": "constant", "lrf": 0.5}),
        ),
        &["hyperparameters.lrf is 0.5, but hyperparameters.schedule is constant"],
    );
    refused(
        &namespace,
        &job().set(
            "/hyperparameters",
            serde_json::json!({"optimizer": "adamw", "momentum": 1}),
        ),
        &["hyperparameters.momentum is 1, but hyperparameters.optimizer is adamw"],
    );
    refused(
        &namespace,
        &job().set("/training/precision", "float16"),
        &["training.precision is float16, which needs GPUs"],
    );
    refused(
        &namespace,
        &job().set("/hyperparameters", serde_json::json!({"lr0": 0.0})),
        &["hyperparameters.lr0 is 0: choose above 0 and at most 1"],
    );
    refused(
        &namespace,
        &job().set("/workers/replicas", 0),
        &["workers.replicas is 0: choose 1"],
    );
}

#[test]
fn impossible_combinations_are_refused_with_field_value_and_remedy() {
    let namespace = Namespace::new("combinations");
    let job = || Job::new("j");
    refused(
        &namespace,
        &job().set("/model", serde_json::json!({"weights": "../yolov5s.pt"})),
        &["model.weights is '../yolov5s.pt': write a path inside the source of the data set"],
    );
    refused(
        &namespace,
        &job().set("/training/batchSize", 9),
        &["training.batchSize is 9", "2 processes", "multiple of 2"],
    );
    refused(
        &namespace,
        &job()
            .set("/workers/gpusPerWorker", 2)
            .set("/workers/processesPerWorker", 4),
        &["workers.processesPerWorker is 4", "gpusPerWorker is 2"],
    );
    refused(
        &namespace,
        &job().set("/dataset/image", serde_json::json!({"reference": "data:1"})),
        &["dataset has several sources, persistentVolumeClaim, image: keep one"],
    );
    refused(
        &namespace,
        &job().without("/dataset/persistentVolumeClaim"),
        &["dataset has no source: add persistentVolumeClaim, image, objectStorage or archive"],
    );
    refused(
        &namespace,
        &job().set("/model/size", "yolov5n6"),
        &[
            "training.imageSize is 64: choose a multiple of 64 from 128 to 8192 (model.size is yolov5n6)",
        ],
    );
    refused(
        &namespace,
        &job().set("/model/architecture", "backbone: []"),
        &[
            "model.size is yolov5n, but model.architecture describes a network too: remove one of them",
        ],
    );
    refused(
        &namespace,
        &job().set("/model/anchors", serde_json::json!([[10, 13], [30, 61]])),
        &["model.anchors has 2 levels, but the model has 3: write one list for each"],
    );
    refused(
        &namespace,
        &job().set(
            "/model/anchors",
            serde_json::json!([[10, 13], [30, 61], [90]]),
        ),
        &[
            "model.anchors is ",
            "give each level equally many pairs of width and height",
        ],
    );
    refused(
        &namespace,
        &job().set("/training/device", "cuda"),
        &["training.device is cuda", "workers.gpusPerWorker"],
    );
    refused(
        &namespace,
        &job().set("/distributed", serde_json::json!({"backend": "nccl"})),
        &["distributed.backend is nccl", "workers.gpusPerWorker"],
    );
    refused(
        &namespace,
        &job().set(
            "/augmentation",
            serde_json::json!({"mosaic": 0.0, "mixup": 0.1, "mosaic9": 0.5}),
        ),
        &[
            "augmentation.mixup is 0.1, but augmentation.mosaic is 0",
            "augmentation.mosaic9 is 0.5, but augmentation.mosaic is 0",
        ],
    );
    refused(
        &namespace,
        &job()
            .set("/training/epochs", 3)
            .set("/augmentation/closeMosaic", 4),
        &["augmentation.closeMosaic is 4, but training.epochs is 3: choose at most 3"],
    );
    refused(
        &namespace,
        &job()
            .set("/training/hours", 2.5)
            .set("/augmentation/closeMosaic", 1),
        &["augmentation.closeMosaic is 1, but training.hours is 2.5 and nobody knows"],
    );
    refused(
        &namespace,
        &job().set("/dataset/persistentVolumeClaim/subPath", "../other"),
        &["subPath is '../other'", "without .."],
    );
}

#[test]
fn a_job_has_one_data_file() {
    let namespace = Namespace::new("data-file");
    let job = || Job::new("j");
    let two = |key: &str| json!({"name": "two-classes", "key": key});
    refused(
        &namespace,
        &job().set("/dataset/configMap", json!({"name": "Two_Classes"})),
        &[
            "dataset.configMap.name is 'Two_Classes': write the name of a ConfigMap, of small letters, digits, '-' and '.'",
        ],
    );
    refused(
        &namespace,
        &job().set("/dataset/configMap", two("a/b.yaml")),
        &[
            "dataset.configMap.key is 'a/b.yaml': write a key of the ConfigMap, of letters, digits, '-', '_' and '.'",
        ],
    );
    refused(
        &namespace,
        &job()
            .set("/dataset/configMap", two("data.yaml"))
            .set("/dataset/config", "coco.yaml"),
        &[
            "dataset.config is 'coco.yaml', and dataset.configMap names a data file, too: remove one of them",
        ],
    );
    namespace
        .apply(&job().set("/dataset/configMap", two("data.yaml")).manifest())
        .expect("a data file from a ConfigMap");
}

#[test]
fn results_have_one_place_of_a_size() {
    let namespace = Namespace::new("places");
    let template = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    let made = |size: &str| {
        Job::new("j")
            .without("/output/persistentVolumeClaim")
            .set("/output/volumeClaimTemplate", template(size))
    };
    refused(
        &namespace,
        &Job::new("j").without("/output/persistentVolumeClaim"),
        &["output has no place: add persistentVolumeClaim, volumeClaimTemplate or objectStorage"],
    );
    refused(
        &namespace,
        &Job::new("j").set("/output/volumeClaimTemplate", template("1Gi")),
        &["output has several places, persistentVolumeClaim, volumeClaimTemplate: keep one"],
    );
    let stored = |url: &str| {
        Job::new("j")
            .without("/output/persistentVolumeClaim")
            .set("/output/objectStorage", json!({"url": url}))
    };
    refused(
        &namespace,
        &stored("https://runs"),
        &["output.objectStorage.url is 'https://runs': write s3://bucket or s3://bucket/folder"],
    );
    refused(
        &namespace,
        &stored("s3://runs").set("/output/volumeClaimTemplate", template("1Gi")),
        &["output has several places, volumeClaimTemplate, objectStorage: keep one"],
    );
    refused(
        &namespace,
        &made("plenty"),
        &[
            "output.volumeClaimTemplate.resources.requests.storage is 'plenty': write a size such as 20Gi",
        ],
    );
    refused(
        &namespace,
        &made("1Gi").set(
            "/output/volumeClaimTemplate/accessModes",
            json!(["ReadOnlyMany"]),
        ),
        &["accessModes[0]", "\"ReadWriteMany\""],
    );
    namespace
        .apply(&made("1Gi").set("/suspend", true).manifest())
        .expect("a template");
    let stored = namespace.get("ytj", "j").expect("stored");
    let template = &stored["spec"]["output"]["volumeClaimTemplate"];
    assert_eq!("Retain", template["retentionPolicy"]);
    assert_eq!(json!(["ReadWriteMany"]), template["accessModes"]);
}

#[test]
fn what_is_fetched_has_an_address_without_secrets_and_a_place() {
    let namespace = Namespace::new("fetched");
    let to = || json!({"persistentVolumeClaim": {"claimName": "cache"}});
    let of = |dataset: Value| Job::new("j").set("/dataset", dataset);
    let archive = |archive: Value| of(json!({"archive": archive, "fetchTo": to()}));
    let storage = |storage: Value| of(json!({"objectStorage": storage, "fetchTo": to()}));
    let good = json!({"url": "https://host/data.zip"});
    let address = "dataset.archive.url is not the address of an archive: write https://host/name ending in .zip, .tar, .tar.gz, .tgz or .tar.zst, without user, password and query";
    for (job, words) in [
        (
            of(json!({"archive": good})),
            "dataset.archive needs a volume for what is fetched: add dataset.fetchTo",
        ),
        (
            of(json!({"image": {"reference": "data:1"}, "fetchTo": to()})),
            "dataset.fetchTo is for objectStorage and archive only: remove it",
        ),
        (
            of(json!({"archive": good, "fetchTo": {}})),
            "dataset.fetchTo has no place: add persistentVolumeClaim or volumeClaimTemplate",
        ),
        (
            archive(json!({"url": "https://u:p@host/data.zip"})),
            address,
        ),
        (
            archive(json!({"url": "https://host/data.zip?sig=1"})),
            address,
        ),
        (archive(json!({"url": "https://host/data.rar"})), address),
        (
            archive(json!({"url": "https://host/data.zip", "sha256": "12"})),
            "dataset.archive.sha256 is '12': write the 64 hexadecimal digits that sha256sum prints",
        ),
        (
            archive(json!({"url": "http://host/data.zip"})),
            "dataset.archive.url begins with http://, and what arrives could be anything: write https:// or add sha256",
        ),
        (
            archive(
                json!({"url": "http://host/data.zip", "sha256": "a".repeat(64), "credentialsSecret": "s"}),
            ),
            "dataset.archive.credentialsSecret would be sent in the clear to an http:// address: write https:// or remove it",
        ),
        (
            storage(json!({"url": "data/digits"})),
            "dataset.objectStorage.url is 'data/digits': write s3://bucket or s3://bucket/folder",
        ),
        (
            storage(json!({"url": "s3://data", "endpoint": "https://u:p@host"})),
            "dataset.objectStorage.endpoint is no address: write https://host or http://host:port, without user, password and query",
        ),
        (
            storage(json!({"url": "s3://data", "caBundle": "MIIB"})),
            "dataset.objectStorage.caBundle has no certificate: write what begins with -----BEGIN CERTIFICATE-----",
        ),
        (
            storage(json!({"url": "s3://data", "endpoint": "http://host"})),
            "dataset.objectStorage.endpoint begins with http://, and data would be sent in the clear: write https:// or set allowHttp to true",
        ),
    ] {
        refused(&namespace, &job, &[words]);
    }
    let tar = json!({"url": "http://host:81/a/b.tar.zst", "sha256": "aB".repeat(32)});
    let minio = json!({"url": "s3://data/digits/v 1/", "endpoint": "http://minio:9000", "allowHttp": true,
        "caBundle": "-----BEGIN CERTIFICATE-----"});
    for (name, job) in [
        ("tar", archive(tar)),
        ("minio", storage(minio)),
        ("zip", archive(good.clone())),
    ] {
        let mut manifest: Value =
            serde_json::from_str(&job.set("/suspend", true).manifest()).expect("JSON");
        manifest["metadata"]["name"] = name.into();
        namespace.apply(&manifest.to_string()).expect(name);
    }
}

#[test]
fn batches_that_cannot_be_made_are_refused() {
    let namespace = Namespace::new("batches");
    let job = || Job::new("batches");
    refused(
        &namespace,
        &job()
            .set("/training/rect", true)
            .set("/training/imageWeights", true)
            .set("/training/quad", true)
            .set("/training/batchSize", 18)
            .set("/augmentation/cutmix", 0.5),
        &[
            "training.rect is true, which shows each image alone, but augmentation.mosaic is 1",
            "training.rect is true, which shows each image alone, but augmentation.cutmix is 0.5",
            "training.rect is true, whose order of images is fixed, but training.imageWeights is true",
            "training.quad is true, but training.batchSize is 18: choose a multiple of",
        ],
    );
}

#[test]
fn models_of_every_kind_are_accepted() {
    let namespace = Namespace::new("models");
    let accepted = |name: &str, image_size: u32, model: Value| {
        let job = Job::new(name)
            .set("/training/imageSize", image_size)
            .set("/model", model);
        namespace.apply(&job.manifest()).expect(name);
    };
    let anchors = serde_json::json!([[10, 13.5], [30, 61], [116, 90], [436, 615]]);
    accepted(
        "large",
        128,
        serde_json::json!({"size": "yolov5n6", "anchors": anchors, "activation": "Hardswish"}),
    );
    let text = "anchors: [[10, 13]]\nbackbone: [[-1, 1, Conv, [8, 3, 8]]]\n\
                head: [[-1, 1, Detect, [nc, anchors]]]\n";
    accepted(
        "own",
        64,
        serde_json::json!({"architecture": text, "anchors": [[12, 12, 24, 24]]}),
    );
}

#[test]
fn names_that_cannot_become_host_names_are_refused() {
    let namespace = Namespace::new("names");
    let long = "a".repeat(41);
    refused(
        &namespace,
        &Job::new(&long),
        &["41 characters", "at most 40"],
    );
    refused(&namespace, &Job::new("1st"), &["1st", "letter"]);
    refused(&namespace, &Job::new("a.b"), &["a.b"]);
}

#[test]
fn unknown_fields_and_wrong_types_keep_the_api_servers_own_words() {
    let namespace = Namespace::new("strict");
    let job = Job::new("j");
    refused(
        &namespace,
        &job.clone().set("/training/epoch", 3),
        &["unknown field \"spec.training.epoch\""],
    );
    refused(
        &namespace,
        &job.clone().set("/model/size", "xxl"),
        &["spec.model.size", "\"yolov5n\""],
    );
    refused(
        &namespace,
        &job.set("/training/epochs", "many"),
        &["spec.training.epochs"],
    );
}

#[test]
fn a_spec_cannot_be_changed_once_it_exists() {
    let namespace = Namespace::new("immutable");
    let job = Job::new("fixed").set("/dataset/persistentVolumeClaim/claimName", "none-such");
    namespace.apply(&job.manifest()).expect("a first apply");
    namespace.apply(&job.manifest()).expect("the same again");
    let changes = [
        ("/training/epochs", Value::from(9)),
        ("/workers/replicas", Value::from(1)),
        ("/managedBy", Value::from("kueue.x-k8s.io/multikueue")),
    ];
    for (field, value) in changes {
        let words = ["only suspend, activeDeadlineSeconds", "can be changed"];
        refused(&namespace, &job.clone().set(field, value), &words);
    }
    // The rule is not evaluated where the time in the status is new, which is the operator's to say.
    let mut both = until("a dated status", Duration::from_secs(30), || {
        let stored = namespace
            .get("ytj", "fixed")
            .ok_or_else(|| "no job".to_owned())?;
        match stored["status"]["lastUpdateTime"].as_str() {
            Some(_) => Ok(stored),
            None => Err(stored["status"].to_string()),
        }
    });
    both["spec"]["training"]["epochs"] = Value::from(9);
    both["status"]["lastUpdateTime"] = Value::from("2001-01-01T00:00:00.000000Z");
    if let Some(meta) = both["metadata"].as_object_mut() {
        meta.remove("resourceVersion");
    }
    let both = both.to_string();
    let replaced = kubectl_in(&["replace", "--filename=-"], &both);
    assert!(
        !replaced.success && replaced.stderr.contains("can be changed"),
        "{}",
        replaced.stderr
    );
    let status = ["replace", "--subresource=status", "--filename=-"];
    kubectl_in(&status, &both).expect("a status");
    let stored = namespace.get("ytj", "fixed").expect("the job");
    assert_ne!(9, stored["spec"]["training"]["epochs"]);
    let run_policy = job
        .set("/suspend", true)
        .set("/activeDeadlineSeconds", 100)
        .set("/ttlSecondsAfterFinished", 0)
        .set("/cleanPodPolicy", "All");
    namespace.apply(&run_policy.manifest()).expect("a change");
    refused(
        &namespace,
        &run_policy.clone().set("/activeDeadlineSeconds", 0),
        &["activeDeadlineSeconds is 0: choose 1 or more"],
    );
    refused(
        &namespace,
        &run_policy.set("/cleanPodPolicy", "Some"),
        &["spec.cleanPodPolicy", "\"Running\""],
    );
}

#[test]
fn kubectl_explain_reads_like_documentation() {
    let fields = [
        "spec",
        "spec.training.imageSize",
        "spec.workers.gpusPerWorker",
        "status.progress",
    ];
    for field in fields {
        let text = kubectl(&["explain", &format!("yolotrainingjobs.{field}")]).expect(field);
        assert!(
            text.contains("DESCRIPTION") && !text.contains("<empty>"),
            "{field}:\n{text}"
        );
    }
    let all = kubectl(&["explain", "ytj", "--recursive"]).expect("explain --recursive");
    assert!(
        all.contains("warmupBiasLr") && all.contains("mAP50_95"),
        "{all}"
    );
}

#[test]
fn every_example_is_accepted() {
    let folder = tests::cluster::root().join("examples");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("there are examples")
        .map(|entry| entry.expect("readable").path().display().to_string())
        // Its Experiment is of a kind that is not here; `make test-neighbours` runs it.
        .filter(|file| !file.ends_with("katib.yaml"))
        .collect();
    assert!(!files.is_empty());
    for file in files {
        let arguments = [
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            &file,
        ];
        let output = kubectl(&arguments);
        assert!(output.stderr.is_empty(), "{file}: {}", output.stderr);
        output.expect(&file);
    }
}

/// The job that stands in the ConfigMap of a search of Katib, with values as Katib puts them in.
#[test]
fn the_example_of_a_trial_is_accepted() {
    let path = tests::cluster::root().join("examples/katib.yaml");
    let text = std::fs::read_to_string(path).expect("the example");
    let (_, rest) = text.split_once("  job.yaml: |\n").expect("a job");
    let (job, _) = rest.split_once("---\n").expect("its end");
    let lines = job
        .lines()
        .map(|line| line.strip_prefix("    ").expect("indented"));
    let job = lines.collect::<Vec<_>>().join("\n");
    let job = job.replace("${trialParameters.lr0}", "0.09457441878011752");
    let job = job.replace("${trialParameters.momentum}", "0.9");
    assert!(!job.contains("${"), "{job}");
    let job = job + "\nmetadata: {name: trial}\n";
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    kubectl_in(&arguments, &job).expect("the trial's job");
}
