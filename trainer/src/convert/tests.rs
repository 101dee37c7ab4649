use std::collections::BTreeSet;

use contract::spec::ModelSize;
use trainer_model::architecture::builtin;

use super::*;

fn draft() -> Draft {
    Draft {
        name: "yolov5".to_owned(),
        spec: json!({
            "dataset": {"persistentVolumeClaim": {"claimName": "d"}},
            "output": {"persistentVolumeClaim": {"claimName": "o"}},
        }),
        notes: Vec::new(),
        folder: PathBuf::new(),
    }
}

fn one(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

/// What one option does.
enum Does {
    /// It sets a field.
    Sets(&'static str, Value),
    /// It is refused with this in the text.
    Refuses(&'static str),
    /// It is told why it has no effect.
    Says(&'static str),
}
use Does::{Refuses, Says, Sets};

#[track_caller]
fn check_one(flag: bool, name: &str, value: Value, does: &Does) {
    let (options, hyperparameters) = if flag {
        (one(name, value), Map::new())
    } else {
        (Map::new(), one(name, value))
    };
    let done = apply(draft(), &options, &hyperparameters);
    match (does, done) {
        (Sets("/name", expected), Ok(draft)) => assert_eq!(*expected, draft.name, "{name}"),
        (Sets(field, expected), Ok(draft)) => {
            assert_eq!(Some(expected), draft.spec.pointer(field), "{name}");
            let text = manifest(&draft)
                .unwrap_or_else(|error| panic!("{name}: {}", crate::console::chain(&error)));
            crate::manifest::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        }
        (Refuses(text), Err(error)) => {
            assert!(error.to_string().contains(text), "{name}: {error}");
        }
        (Says(text), Ok(draft)) => assert!(
            draft.notes.join(" ").contains(text),
            "{name}: {:?}",
            draft.notes
        ),
        (_, Ok(draft)) => panic!("{name} was accepted: {}", draft.spec),
        (_, Err(error)) => panic!("{name}: {error}"),
    }
}

#[test]
fn every_place_for_decoded_images_is_understood() {
    let places = [
        (json!("ram"), Sets("/training/cache", json!("ram"))),
        (json!(true), Sets("/training/cache", json!("ram"))),
        (json!(false), Sets("/training/cache", json!("none"))),
        (json!("disk"), Sets("/training/cache", json!("disk"))),
        (json!("tape"), Refuses("ram, disk or false")),
        (json!(3), Refuses("ram, disk or false")),
    ];
    for (value, does) in places {
        check_one(true, "cache", value, &does);
    }
}

/// Every flag of train.py with a value that is not its default.
#[test]
#[expect(clippy::too_many_lines, reason = "a table of all flags")]
fn every_flag_is_obeyed_mapped_or_refused_with_a_reason() {
    let mut cases = vec![
        (
            "weights",
            json!("runs/yolov5s.pt"),
            Sets("/model/weights", json!("yolov5s.pt")),
        ),
        (
            "cfg",
            json!("models/yolov5m6.yaml"),
            Sets("/model/size", json!("yolov5m6")),
        ),
        (
            "data",
            json!("data/coco128.yaml"),
            Sets("/dataset/config", json!("coco128.yaml")),
        ),
        ("hyp", json!("hyp.yaml"), Says("give that file with --hyp")),
        ("epochs", json!(300), Sets("/training/epochs", json!(300))),
        (
            "batch_size",
            json!(64),
            Sets("/training/batchSize", json!(64)),
        ),
        ("imgsz", json!(650), Sets("/training/imageSize", json!(672))),
        (
            "rect",
            json!(true),
            Sets("/augmentation/mosaic", json!(0.0)),
        ),
        ("resume", json!(true), Refuses("last.pt")),
        ("nosave", json!(true), Refuses("restart")),
        (
            "noval",
            json!(true),
            Sets("/training/evaluateEvery", json!(100_000)),
        ),
        ("evolve", json!(300), Refuses("not possible yet")),
        ("bucket", json!("gs://b"), Refuses("bucket")),
        ("cache", json!("val"), Says("those of validation")),
        (
            "device",
            json!("0,1"),
            Sets("/workers/gpusPerWorker", json!(2)),
        ),
        (
            "multi_scale",
            json!(true),
            Sets("/training/multiScale", json!(0.5)),
        ),
        (
            "optimizer",
            json!("AdamW"),
            Sets("/hyperparameters/optimizer", json!("AdamW")),
        ),
        (
            "workers",
            json!(4),
            Sets("/training/loaderThreads", json!(4)),
        ),
        ("project", json!("runs/train"), Says("output volume")),
        ("name", json!("Exp_2"), Sets("/name", json!("exp-2"))),
        ("exist_ok", json!(true), Says("folder of its own")),
        (
            "cos_lr",
            json!(true),
            Sets("/hyperparameters/schedule", json!("cosine")),
        ),
        (
            "label_smoothing",
            json!(0.1),
            Sets("/hyperparameters/labelSmoothing", json!(0.1)),
        ),
        ("patience", json!(50), Sets("/training/patience", json!(50))),
        (
            "freeze",
            json!([3]),
            Sets("/training/freeze", json!([0, 1, 2])),
        ),
        ("save_period", json!(5), Refuses("keepCheckpoints")),
        ("seed", json!(7), Sets("/training/seed", json!(7))),
        ("local_rank", json!(1), Says("each process")),
        ("entity", json!("e"), Says("Prometheus")),
        ("upload_dataset", json!(true), Says("volume")),
        ("bbox_interval", json!(1), Says("Prometheus")),
        ("artifact_alias", json!("latest"), Says("Prometheus")),
        ("save_dir", json!("runs/train/exp"), Says("output volume")),
    ];
    let switches = [
        ("noautoanchor", "/training/autoAnchor", false),
        ("noplots", "/output/plots", false),
        ("single_cls", "/training/singleClass", true),
        ("sync_bn", "/training/syncBatchNorm", true),
        ("quad", "/training/quad", true),
        ("image_weights", "/training/imageWeights", true),
    ];
    cases.extend(
        switches.map(|(name, field, value)| (name, json!(true), Sets(field, json!(value)))),
    );
    let known: BTreeSet<&str> = FLAGS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, cases.iter().map(|(name, ..)| *name).collect());
    for (name, value, does) in cases {
        check_one(true, name, value, &does);
    }
}

#[test]
fn a_model_file_that_is_called_like_one_of_yolov5_is_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let converted = || {
        let draft = Draft {
            folder: folder.path().to_owned(),
            ..draft()
        };
        apply(draft, &one("cfg", json!("yolov5n.yaml")), &Map::new()).expect("converted")
    };
    let path = folder.path().join("yolov5n.yaml");
    let missing = converted();
    assert_eq!(json!("yolov5n"), missing.spec["model"]["size"]);
    let notes = missing.notes.join(" ");
    assert!(notes.contains(&path.display().to_string()), "{notes}");

    let family = builtin::document(ModelSize::N);
    std::fs::write(&path, &family).expect("written");
    let own = converted();
    assert_eq!(json!({"size": "yolov5n"}), own.spec["model"]);
    assert_eq!(Vec::<String>::new(), own.notes);
    let wider = family.replacen("[1024, 3, 2]", "[1000, 3, 2]", 1);
    std::fs::write(&path, &wider).expect("written");
    assert_eq!(json!({"architecture": wider}), converted().spec["model"]);
}

/// Every line of hyp.scratch-high.yaml, and what may be added to it.
#[test]
fn every_hyperparameter_is_obeyed_or_refused_with_a_reason() {
    let fields = [
        ("lr0", 0.02, "/hyperparameters/lr0"),
        ("lrf", 0.1, "/hyperparameters/lrf"),
        ("momentum", 0.9, "/hyperparameters/momentum"),
        ("weight_decay", 0.001, "/hyperparameters/weightDecay"),
        ("warmup_epochs", 2.0, "/hyperparameters/warmupEpochs"),
        ("warmup_momentum", 0.7, "/hyperparameters/warmupMomentum"),
        ("warmup_bias_lr", 0.05, "/hyperparameters/warmupBiasLr"),
        ("box", 0.06, "/hyperparameters/boxGain"),
        ("cls", 0.3, "/hyperparameters/clsGain"),
        ("cls_pw", 0.5, "/hyperparameters/clsPositiveWeight"),
        ("obj", 0.7, "/hyperparameters/objGain"),
        ("obj_pw", 0.6, "/hyperparameters/objPositiveWeight"),
        ("anchor_t", 3.4, "/hyperparameters/anchorThreshold"),
        ("fl_gamma", 1.5, "/hyperparameters/focalGamma"),
        ("label_smoothing", 0.1, "/hyperparameters/labelSmoothing"),
        ("hsv_h", 0.01, "/augmentation/hsvH"),
        ("hsv_s", 0.5, "/augmentation/hsvS"),
        ("hsv_v", 0.2, "/augmentation/hsvV"),
        ("degrees", 5.0, "/augmentation/degrees"),
        ("translate", 0.2, "/augmentation/translate"),
        ("scale", 0.9, "/augmentation/scale"),
        ("shear", 2.0, "/augmentation/shear"),
        ("perspective", 0.0005, "/augmentation/perspective"),
        ("flipud", 0.5, "/augmentation/flipud"),
        ("fliplr", 0.25, "/augmentation/fliplr"),
        ("mosaic", 0.9, "/augmentation/mosaic"),
        ("mixup", 0.1, "/augmentation/mixup"),
        ("copy_paste", 0.1, "/augmentation/copyPaste"),
    ];
    let mut known: BTreeSet<&str> = HYPERPARAMETERS.iter().map(|(name, _)| *name).collect();
    for (name, value, field) in fields {
        assert!(known.remove(name), "{name}");
        check_one(false, name, json!(value), &Sets(field, json!(value)));
    }
    assert_eq!(BTreeSet::from(["anchors", "iou_t"]), known);
    check_one(false, "anchors", json!(4), &Refuses("model.anchors"));
    apply(draft(), &Map::new(), &one("anchors", json!(3.412))).expect("hyp.VOC.yaml has it");
    check_one(false, "iou_t", json!(0.2), &Says("not used"));
}

#[test]
fn anchors_that_yolov5_would_leave_out_are_told_of() {
    let notes = |cfg: &str| {
        let mut options = one("weights", json!("yolov5s.pt"));
        options.insert("cfg".to_owned(), json!(cfg));
        let draft = apply(draft(), &options, &Map::new()).expect("converted");
        draft.notes.join(" ")
    };
    assert!(notes("yolov5s.yaml").contains("the anchors of --cfg"));
    assert!(!notes("").contains("anchors"));
}

#[test]
fn unknown_options_and_bad_values_are_all_named_at_once() {
    let mut options = one("epoch", json!(3));
    options.insert("nosave".to_owned(), json!(true));
    options.insert("device".to_owned(), json!("mps"));
    let text = apply(draft(), &options, &one("lr", json!(1)))
        .expect_err("refused")
        .to_string();
    for part in [
        "--epoch is 3",
        "--nosave is true",
        "--device is \"mps\"",
        "lr is 1, which is not an option",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
    let absurd = apply(draft(), &one("epochs", json!(0)), &Map::new()).expect("known");
    let text = manifest(&absurd).expect_err("refused").to_string();
    assert!(text.contains("training.epochs is 0"), "{text}");
    let wrong = apply(draft(), &one("epochs", json!("many")), &Map::new()).expect("known");
    let error = manifest(&wrong).expect_err("refused");
    assert!(matches!(error, ConvertError::Types(_)), "{error}");
    assert_eq!(FailureReason::InvalidConfig, error.reason());
}
