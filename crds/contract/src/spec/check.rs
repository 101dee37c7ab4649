use super::dataset::{data_file_problems, stays_inside};
use super::{Backend, Device, Precision, TrainerSpec, image_size_problem, out_of_range};
use super::{cache, fetch, output};

/// One setting that cannot be obeyed, in a sentence that names field, value and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SpecProblem(pub String);

/// Every rule of the spec that the API server also holds, for manifests that never saw one; `ranks` is
/// the number of processes, over all workers, that share a batch; 0 where that is nobody's business.
///
/// Returns all problems, not the first.
pub fn check(spec: &TrainerSpec, ranks: u32) -> Vec<SpecProblem> {
    let mut problems = out_of_range(spec);
    let training = &spec.training;
    let (multiple, because) = match spec.model.family_size() {
        Some(size) if size.largest_stride() > 32 => (
            size.largest_stride(),
            format!("model.size is {}", size.name()),
        ),
        // Of an architecture the trainer knows more.
        _ => (32, String::new()),
    };
    problems.extend(image_size_problem(training.image_size, multiple, &because));
    problems.extend(spec.model.problems());
    if ranks > 0 && !training.batch_size.is_multiple_of(ranks) {
        problems.push(SpecProblem(format!(
            "training.batchSize is {}, which {ranks} processes cannot share equally: choose a multiple of {ranks}",
            training.batch_size
        )));
    }
    if !training.fitness.has_weight() {
        problems.push(SpecProblem(
            "training.fitness has no weight above 0: give at least one metric a weight".to_owned(),
        ));
    }
    if training.device == Device::Cpu && spec.distributed.backend == Backend::Nccl {
        problems.push(SpecProblem(
            "distributed.backend is nccl, which needs GPUs, but training.device is cpu: choose gloo or auto"
                .to_owned(),
        ));
    }
    // In a cluster gloo is refused wherever workers have GPUs; outside of one nobody knows of any but by the device.
    if training.device == Device::Cuda && spec.distributed.backend == Backend::Gloo && ranks > 1 {
        problems.push(SpecProblem(format!(
            "training.device is cuda, but distributed.backend is gloo, by which {ranks} processes cannot exchange what is on GPUs: choose nccl or auto"
        )));
    }
    if training.device == Device::Cpu && training.precision == Precision::Float16 {
        problems.push(SpecProblem(
            "training.precision is float16, which needs GPUs, but training.device is cpu: choose bfloat16 or float32"
                .to_owned(),
        ));
    }
    problems.extend(cache::problems(training));
    problems.extend(spec.hyperparameters.problems());
    match &spec.dataset.named()[..] {
        [_] => {}
        [] => problems.push(SpecProblem(
            "dataset has no source: add persistentVolumeClaim, image, objectStorage or archive"
                .to_owned(),
        )),
        several => problems.push(SpecProblem(format!(
            "dataset has several sources, {}: keep one",
            several.join(", ")
        ))),
    }
    problems.extend(fetch::problems(&spec.dataset));
    problems.extend(batches(spec, ranks));
    problems.extend(mosaics(spec));
    problems.extend(paths(spec));
    problems.extend(output::problems(&spec.output));
    problems
}

/// Batches that cannot be made.
fn batches(spec: &TrainerSpec, ranks: u32) -> Vec<SpecProblem> {
    let (training, augmentation) = (&spec.training, &spec.augmentation);
    let mut problems = Vec::new();
    let together = 4 * ranks;
    if training.quad && ranks > 0 && !training.batch_size.is_multiple_of(together) {
        problems.push(SpecProblem(format!(
            "training.quad is true, but training.batchSize is {}: choose a multiple of {together}, four for each process",
            training.batch_size
        )));
    }
    for (field, value) in [
        ("mosaic", augmentation.mosaic),
        ("cutmix", augmentation.cutmix),
    ] {
        if training.rect && value > 0.0 {
            problems.push(SpecProblem(format!(
                "training.rect is true, which shows each image alone, but augmentation.{field} is {value}: set augmentation.{field} to 0"
            )));
        }
    }
    if training.rect && training.image_weights {
        problems.push(SpecProblem(
            "training.rect is true, whose order of images is fixed, but training.imageWeights is true: set one of them to false"
                .to_owned(),
        ));
    }
    problems
}

/// Settings of mosaics that would do nothing.
fn mosaics(spec: &TrainerSpec) -> Vec<SpecProblem> {
    let augmentation = &spec.augmentation;
    let mut problems = Vec::new();
    let without = [
        ("mixup", augmentation.mixup, "only mosaics are mixed"),
        (
            "mosaic9",
            augmentation.mosaic9,
            "it is a share of the mosaics",
        ),
    ];
    for (field, value, why) in without {
        if value > 0.0 && augmentation.mosaic == 0.0 {
            problems.push(SpecProblem(format!(
                "augmentation.{field} is {value}, but augmentation.mosaic is 0 and {why}: set augmentation.mosaic above 0 or augmentation.{field} to 0"
            )));
        }
    }
    let (close, epochs) = (augmentation.close_mosaic, spec.training.epochs);
    if close > epochs {
        problems.push(SpecProblem(format!(
            "augmentation.closeMosaic is {close}, but training.epochs is {epochs}: choose at most {epochs}"
        )));
    }
    if let (1.., Some(hours)) = (close, spec.training.hours) {
        problems.push(SpecProblem(format!(
            "augmentation.closeMosaic is {close}, but training.hours is {hours} and nobody knows which epochs will be the last: set augmentation.closeMosaic to 0 or remove training.hours"
        )));
    }
    problems
}

/// Paths that would leave the volume they are resolved in.
fn paths(spec: &TrainerSpec) -> Vec<SpecProblem> {
    let mut problems = Vec::new();
    if !stays_inside(&spec.dataset.config) {
        problems.push(SpecProblem(format!(
            "dataset.config is '{}': write a path inside the source, without a leading / and without ..",
            spec.dataset.config
        )));
    }
    problems.extend(data_file_problems(&spec.dataset));
    let claim = spec.dataset.persistent_volume_claim.iter();
    problems.extend(claim.filter_map(|claim| claim.problem("dataset.persistentVolumeClaim")));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Cache, DataFile, Hyperparameters, ModelSize, Schedule};

    fn valid() -> TrainerSpec {
        serde_json::from_value(serde_json::json!({
            "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
            "output": {"persistentVolumeClaim": {"claimName": "runs"}},
        }))
        .expect("the smallest spec")
    }

    /// A valid spec with one change has exactly the one expected problem.
    #[track_caller]
    fn one_problem(change: impl FnOnce(&mut TrainerSpec), expected: &str) {
        let mut spec = valid();
        change(&mut spec);
        let problems: Vec<_> = check(&spec, 4).iter().map(ToString::to_string).collect();
        assert_eq!(vec![expected.to_owned()], problems);
    }

    #[test]
    fn the_smallest_spec_is_valid() {
        assert_eq!(Vec::<SpecProblem>::new(), check(&valid(), 4));
        let mut limited = valid();
        limited.training.hours = Some(2.5);
        assert_eq!(Vec::<SpecProblem>::new(), check(&limited, 4));
    }

    #[test]
    fn batches_that_cannot_be_made_are_refused() {
        one_problem(
            |s| {
                s.training.quad = true;
                s.training.batch_size = 24;
            },
            "training.quad is true, but training.batchSize is 24: choose a multiple of 16, four for each process",
        );
        one_problem(
            |s| s.training.rect = true,
            "training.rect is true, which shows each image alone, but augmentation.mosaic is 1: set augmentation.mosaic to 0",
        );
        let rectangles = |s: &mut TrainerSpec| {
            s.training.rect = true;
            s.augmentation.mosaic = 0.0;
        };
        one_problem(
            |s| {
                rectangles(s);
                s.augmentation.cutmix = 0.5;
            },
            "training.rect is true, which shows each image alone, but augmentation.cutmix is 0.5: set augmentation.cutmix to 0",
        );
        one_problem(
            |s| {
                rectangles(s);
                s.training.image_weights = true;
            },
            "training.rect is true, whose order of images is fixed, but training.imageWeights is true: set one of them to false",
        );
    }

    #[test]
    fn every_kind_of_problem_names_field_value_and_remedy() {
        one_problem(
            |s| s.training.epochs = 0,
            "training.epochs is 0: choose 1 to 100000",
        );
        one_problem(
            |s| s.training.batch_size = 18,
            "training.batchSize is 18, which 4 processes cannot share equally: choose a multiple of 4",
        );
        one_problem(
            |s| s.training.image_size = 650,
            "training.imageSize is 650: choose a multiple of 32 from 64 to 8192",
        );
        one_problem(
            |s| {
                s.model.size = Some(ModelSize::N6);
                s.training.image_size = 96;
            },
            "training.imageSize is 96: choose a multiple of 64 from 128 to 8192 (model.size is yolov5n6)",
        );
        one_problem(
            |s| {
                s.model.size = Some(ModelSize::M);
                s.model.architecture = Some("head: []".to_owned());
            },
            "model.size is yolov5m, but model.architecture describes a network too: remove one of them",
        );
        one_problem(
            |s| s.model.architecture = Some(String::new()),
            "model.architecture has 0 bytes: write a model file of 1 to 65536 bytes",
        );
        one_problem(
            |s| s.model.anchors = Some(vec![vec![10.0, 13.0]; 4]),
            "model.anchors has 4 levels, but the model has 3: write one list for each",
        );
        one_problem(
            |s| s.model.anchors = Some(vec![vec![10.0], vec![30.0], vec![90.0]]),
            "model.anchors is [[10.0], [30.0], [90.0]]: give each level equally many pairs of width and height, above 0 and at most 8192 pixels",
        );
        one_problem(
            |s| s.training.cache_limit = Some("20G".to_owned()),
            "training.cacheLimit is '20G': write a whole number of Mi, Gi or Ti, for example 20Gi",
        );
        one_problem(
            |s| {
                s.training.cache = Cache::None;
                s.training.cache_limit = Some("20Gi".to_owned());
            },
            "training.cacheLimit is set, but training.cache is none: remove cacheLimit or choose ram or disk",
        );
        one_problem(
            |s| s.hyperparameters.lr0 = 0.0,
            "hyperparameters.lr0 is 0: choose above 0 and at most 1",
        );
        one_problem(
            |s| s.augmentation.mosaic = f64::NAN,
            "augmentation.mosaic is NaN: choose 0 to 1",
        );
        one_problem(
            |s| {
                s.training.fitness.map50 = 0.0;
                s.training.fitness.map50_95 = 0.0;
            },
            "training.fitness has no weight above 0: give at least one metric a weight",
        );
        one_problem(
            |s| {
                s.augmentation.mosaic = 0.0;
                s.augmentation.mixup = 0.5;
            },
            "augmentation.mixup is 0.5, but augmentation.mosaic is 0 and only mosaics are mixed: set augmentation.mosaic above 0 or augmentation.mixup to 0",
        );
        one_problem(
            |s| {
                s.augmentation.mosaic = 0.0;
                s.augmentation.mosaic9 = 1.0;
            },
            "augmentation.mosaic9 is 1, but augmentation.mosaic is 0 and it is a share of the mosaics: set augmentation.mosaic above 0 or augmentation.mosaic9 to 0",
        );
        one_problem(
            |s| s.augmentation.close_mosaic = 101,
            "augmentation.closeMosaic is 101, but training.epochs is 100: choose at most 100",
        );
        one_problem(
            |s| s.dataset.persistent_volume_claim = None,
            "dataset has no source: add persistentVolumeClaim, image, objectStorage or archive",
        );
        one_problem(
            |s| s.dataset.config = "../data.yaml".to_owned(),
            "dataset.config is '../data.yaml': write a path inside the source, without a leading / and without ..",
        );
        one_problem(
            |s| s.model.weights = Some("../yolov5s.pt".to_owned()),
            "model.weights is '../yolov5s.pt': write a path inside the source of the data set, without a leading / and without ..",
        );
    }

    #[test]
    fn processes_on_gpus_do_not_exchange_by_gloo() {
        let on_gpus = |s: &mut TrainerSpec| {
            s.training.device = Device::Cuda;
            s.distributed.backend = Backend::Gloo;
        };
        one_problem(
            on_gpus,
            "training.device is cuda, but distributed.backend is gloo, by which 4 processes cannot exchange what is on GPUs: choose nccl or auto",
        );
        // One process has nothing to exchange.
        let mut alone = valid();
        on_gpus(&mut alone);
        assert_eq!(Vec::<SpecProblem>::new(), check(&alone, 1));
    }

    #[test]
    fn last_epochs_without_mosaics_are_of_a_run_whose_last_epoch_is_known() {
        one_problem(
            |s| {
                s.augmentation.close_mosaic = 10;
                s.training.hours = Some(2.5);
            },
            "augmentation.closeMosaic is 10, but training.hours is 2.5 and nobody knows which epochs will be the last: set augmentation.closeMosaic to 0 or remove training.hours",
        );
    }

    #[test]
    fn there_is_one_data_file_of_a_name() {
        let data_file = |key: &str| {
            Some(DataFile {
                name: "digits".to_owned(),
                key: key.to_owned(),
            })
        };
        one_problem(
            |s| {
                let file = s.dataset.config_map.insert(data_file("a").expect("a file"));
                file.name = "Two_Classes".to_owned();
            },
            "dataset.configMap.name is 'Two_Classes': write the name of a ConfigMap, of small letters, digits, '-' and '.'",
        );
        one_problem(
            |s| s.dataset.config_map = data_file("a/b.yaml"),
            "dataset.configMap.key is 'a/b.yaml': write a key of the ConfigMap, of letters, digits, '-', '_' and '.'",
        );
        one_problem(
            |s| {
                s.dataset.config_map = data_file("data.yaml");
                s.dataset.config = "coco.yaml".to_owned();
            },
            "dataset.config is 'coco.yaml', and dataset.configMap names a data file, too: remove one of them",
        );
    }

    #[test]
    fn output_has_one_place_of_a_size() {
        one_problem(
            |s| {
                let claim = s.output.persistent_volume_claim.as_mut().expect("a claim");
                claim.sub_path = Some("/runs".to_owned());
            },
            "output.persistentVolumeClaim.subPath is '/runs': write a folder inside the volume, without a leading / and without ..",
        );
        one_problem(
            |s| s.output.persistent_volume_claim = None,
            "output has no place: add persistentVolumeClaim, volumeClaimTemplate or objectStorage",
        );
        let template = |size: &str| {
            let value = serde_json::json!({"resources": {"requests": {"storage": size}}});
            serde_json::from_value(value).expect("a template")
        };
        one_problem(
            |s| s.output.volume_claim_template = Some(template("20Gi")),
            "output has several places, persistentVolumeClaim, volumeClaimTemplate: keep one",
        );
        one_problem(
            |s| {
                s.output.persistent_volume_claim = None;
                s.output.volume_claim_template = Some(template("plenty"));
            },
            "output.volumeClaimTemplate.resources.requests.storage is 'plenty': write a size such as 20Gi",
        );
        for (storage, problem) in [
            (
                serde_json::json!({"url": "https://runs"}),
                "output.objectStorage.url is 'https://runs': write s3://bucket or s3://bucket/folder",
            ),
            (
                serde_json::json!({"url": "s3://runs", "endpoint": "http://minio:9000"}),
                "output.objectStorage.endpoint begins with http://, and data would be sent in the clear: write https:// or set allowHttp to true",
            ),
        ] {
            one_problem(
                |s| {
                    s.output.persistent_volume_claim = None;
                    s.output.object_storage =
                        Some(serde_json::from_value(storage.clone()).expect("a store"));
                },
                problem,
            );
        }
    }

    /// The smallest spec whose data set is fetched, with a change, has exactly the one expected problem.
    #[track_caller]
    fn one_problem_of(change: &serde_json::Value, expected: &str) {
        let mut dataset = serde_json::json!({
            "archive": {"url": "https://host/data.zip"},
            "fetchTo": {"persistentVolumeClaim": {"claimName": "cache"}},
        });
        for (key, value) in change.as_object().expect("fields") {
            dataset[key] = value.clone();
        }
        one_problem(
            |s| s.dataset = serde_json::from_value(dataset).expect("a data set"),
            expected,
        );
    }

    #[test]
    fn what_is_fetched_has_an_address_without_secrets_and_a_place() {
        use serde_json::json;
        one_problem_of(
            &json!({"fetchTo": null}),
            "dataset.archive needs a volume for what is fetched: add dataset.fetchTo",
        );
        one_problem_of(
            &json!({"archive": null, "image": {"reference": "data:1"}}),
            "dataset.fetchTo is for objectStorage and archive only: remove it",
        );
        one_problem_of(
            &json!({"image": {"reference": "data:1"}}),
            "dataset has several sources, image, archive: keep one",
        );
        one_problem_of(
            &json!({"fetchTo": {}}),
            "dataset.fetchTo has no place: add persistentVolumeClaim or volumeClaimTemplate",
        );
        one_problem_of(
            &json!({"fetchTo": {"persistentVolumeClaim": {"claimName": "c", "subPath": "../x"}}}),
            "dataset.fetchTo.persistentVolumeClaim.subPath is '../x': write a folder inside the volume, without a leading / and without ..",
        );
        for url in [
            "https://user:secret@host/data.zip",
            "https://host/data.zip?X-Amz-Signature=secret",
            "https://host/data.rar",
        ] {
            one_problem_of(
                &json!({"archive": {"url": url}}),
                "dataset.archive.url is not the address of an archive: write https://host/name ending in .zip, .tar, .tar.gz, .tgz or .tar.zst, without user, password and query",
            );
        }
        one_problem_of(
            &json!({"archive": {"url": "https://host/a.tar", "caBundle": "MIIB"}}),
            "dataset.archive.caBundle has no certificate: write what begins with -----BEGIN CERTIFICATE-----",
        );
        one_problem_of(
            &json!({"archive": {"url": "https://host/a.tar", "sha256": "12"}}),
            "dataset.archive.sha256 is '12': write the 64 hexadecimal digits that sha256sum prints",
        );
        one_problem_of(
            &json!({"archive": {"url": "http://host/a.tar"}}),
            "dataset.archive.url begins with http://, and what arrives could be anything: write https:// or add sha256",
        );
        one_problem_of(
            &json!({"archive": {"url": "http://host/a.tar", "sha256": "a".repeat(64), "credentialsSecret": "s"}}),
            "dataset.archive.credentialsSecret would be sent in the clear to an http:// address: write https:// or remove it",
        );
        let storage = |storage| json!({"archive": null, "objectStorage": storage});
        one_problem_of(
            &storage(json!({"url": "data/digits"})),
            "dataset.objectStorage.url is 'data/digits': write s3://bucket or s3://bucket/folder",
        );
        one_problem_of(
            &storage(json!({"url": "s3://data", "endpoint": "https://u:p@host"})),
            "dataset.objectStorage.endpoint is no address: write https://host or http://host:port, without user, password and query",
        );
        one_problem_of(
            &storage(json!({"url": "s3://data", "caBundle": "/etc/ca.crt"})),
            "dataset.objectStorage.caBundle has no certificate: write what begins with -----BEGIN CERTIFICATE-----",
        );
        one_problem_of(
            &storage(json!({"url": "s3://data", "endpoint": "http://host"})),
            "dataset.objectStorage.endpoint begins with http://, and data would be sent in the clear: write https:// or set allowHttp to true",
        );
    }

    #[test]
    fn settings_of_another_schedule_or_device_are_refused() {
        one_problem(
            |s| s.hyperparameters.step_factor = Some(0.5),
            "hyperparameters.stepFactor is of the schedule step only: remove it or set hyperparameters.schedule to step",
        );
        one_problem(
            |s| {
                s.hyperparameters.schedule = Schedule::Constant;
                s.hyperparameters.lrf = 0.1;
            },
            "hyperparameters.lrf is 0.1, but hyperparameters.schedule is constant and never changes the learning rate: remove lrf or choose another schedule",
        );
        one_problem(
            |s| {
                s.training.device = Device::Cpu;
                s.training.precision = Precision::Float16;
            },
            "training.precision is float16, which needs GPUs, but training.device is cpu: choose bfloat16 or float32",
        );
    }

    #[test]
    fn fitness_is_yolov5s_unless_told() {
        let golden = super::super::Fitness::default().of(0.5, 0.4, 0.3, 0.2);
        assert!((golden - 0.21).abs() < 1e-12, "{golden}");
    }

    #[test]
    fn yolov5_names_are_understood_and_unknown_ones_refused() {
        let hyp: Hyperparameters = serde_json::from_value(
            serde_json::json!({"box": 0.1, "cls_pw": 2.0, "warmup_bias_lr": 0.2, "anchor_t": 3.0}),
        )
        .expect("v5 names");
        assert_eq!(
            (0.1, 2.0, 0.2, 3.0),
            (
                hyp.box_gain,
                hyp.cls_positive_weight,
                hyp.warmup_bias_lr,
                hyp.anchor_threshold
            )
        );
        let augmentation: super::super::Augmentation = serde_json::from_value(
            serde_json::json!({"hsv_h": 0.1, "copy_paste": 0.2, "mixup": 0.3}),
        )
        .expect("v5 names");
        assert_eq!(
            (0.1, 0.2, 0.3),
            (
                augmentation.hsv_h,
                augmentation.copy_paste,
                augmentation.mixup
            )
        );
        let unknown =
            serde_json::from_value::<Hyperparameters>(serde_json::json!({"learningrate": 0.1}));
        assert!(unknown.unwrap_err().to_string().contains("learningrate"));
    }
}
