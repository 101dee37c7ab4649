//! A job as YOLOv5's files of options, which [`super::convert`] reads back.
//!
//! The same table serves both ways, and what is written is read back at once: settings that do not survive that
//! are named in comments.

use std::path::PathBuf;

use contract::spec::{Cache, Device, OptimizerKind, Schedule, TrainerSpec};
use serde_json::{Map, Value, json};

use super::rules::{FLAGS, HYPERPARAMETERS, Rule};
use super::{ConvertError, Draft, apply};
use crate::run_folder;

/// The name of the model file that opt.yaml names for an architecture of one's own.
pub const MODEL_FILE: &str = "model.yaml";
/// YOLOv5's default for `--workers`.
const WORKERS: u32 = 8;

/// Files of options, as texts.
#[derive(Debug)]
pub struct Options {
    /// opt.yaml.
    pub opt: String,
    /// hyp.yaml.
    pub hyp: String,
}

/// The options with which YOLOv5 would do what the job `name` does. The model file that they may name lies beside
/// them, in `folder`.
pub fn options_of(
    name: &str,
    spec: &TrainerSpec,
    folder: PathBuf,
) -> Result<Options, ConvertError> {
    let written = serde_json::to_value(spec).map_err(ConvertError::Types)?;
    let field = |pointer: &str| written.pointer(pointer).cloned().unwrap_or(Value::Null);
    let mut hyp = Map::new();
    for (option, rule) in HYPERPARAMETERS {
        if let Rule::Field(pointer) = rule {
            hyp.insert((*option).to_owned(), field(pointer));
        }
    }
    // A flag of train.py, too.
    hyp.remove("label_smoothing");
    let mut opt = Map::new();
    for (option, rule) in FLAGS {
        let value = match rule {
            Rule::Field("/hyperparameters/optimizer") => optimizer(spec).into(),
            Rule::Field(pointer) => field(pointer),
            Rule::Made(_) => made(option, name, spec),
            Rule::Only(allowed, _) => serde_json::from_str(allowed[0]).unwrap_or_default(),
            Rule::Free(_) if *option == "hyp" => "hyp.yaml".into(),
            Rule::Free(_) => continue,
        };
        opt.insert((*option).to_owned(), value);
    }
    let lost = lost(&written, spec, &opt, &hyp, folder)?;
    let yaml = |options: &Map<String, Value>| {
        serde_saphyr::to_string(options).map_err(|error| ConvertError::Yaml(Box::new(error)))
    };
    let lost = lost.iter().map(|field| {
        let value = field_value(&written, field);
        format!("# YOLOv5 has no option for {field}: {value}\n")
    });
    Ok(Options {
        opt: lost.chain([yaml(&opt)?]).collect(),
        hyp: yaml(&hyp)?,
    })
}

fn field_value(written: &Value, field: &str) -> String {
    let pointer = format!("/{}", field.replace('.', "/"));
    let text = written
        .pointer(&pointer)
        .unwrap_or(&Value::Null)
        .to_string();
    text.chars().take(200).collect()
}

/// The options for which convert has functions.
fn made(option: &str, name: &str, spec: &TrainerSpec) -> Value {
    let (model, training) = (&spec.model, &spec.training);
    match option {
        "weights" => json!(model.weights.as_deref().unwrap_or_default()),
        "cfg" => match (&model.architecture, model.family_size()) {
            (Some(_), _) => json!(MODEL_FILE),
            (None, Some(size)) => json!(format!("{}.yaml", size.name())),
            (None, None) => json!(""),
        },
        "data" => json!(spec.dataset.config),
        "batch_size" if training.batch_size == 0 => json!(-1),
        "batch_size" => json!(training.batch_size),
        "imgsz" => json!(training.image_size),
        "noval" => json!(training.evaluate_every >= training.epochs.max(2)),
        "noautoanchor" => json!(!training.auto_anchor),
        "noplots" => json!(!spec.output.plots),
        "device" if training.device == Device::Cpu => json!("cpu"),
        // YOLOv5 takes false for off; null would be our default.
        "cache" if training.cache == Cache::None => json!(false),
        "cache" => json!(training.cache.as_str()),
        "multi_scale" => json!(training.multi_scale > 0.0),
        "workers" => json!(training.loader_threads.unwrap_or(WORKERS)),
        "name" => json!(name),
        "cos_lr" => json!(spec.hyperparameters.schedule == Schedule::Cosine),
        "freeze" => freeze(&training.freeze),
        _ => json!(""),
    }
}

fn optimizer(spec: &TrainerSpec) -> &'static str {
    match spec.hyperparameters.optimizer {
        OptimizerKind::Sgd => "SGD",
        OptimizerKind::Adam => "Adam",
        OptimizerKind::AdamW => "AdamW",
    }
}

/// One number is how many layers from the first; several are their numbers.
fn freeze(layers: &[u32]) -> Value {
    let from_first = (0..).zip(layers).all(|(number, layer)| number == *layer);
    match layers {
        _ if from_first => json!([layers.len()]),
        [single] => json!([single, single]),
        several => json!(several),
    }
}

/// The settings that are others once the options are read back.
fn lost(
    written: &Value,
    spec: &TrainerSpec,
    opt: &Map<String, Value>,
    hyp: &Map<String, Value>,
    folder: PathBuf,
) -> Result<Vec<String>, ConvertError> {
    let draft = Draft {
        name: String::new(),
        spec: json!({"dataset": written["dataset"], "output": written["output"]}),
        notes: Vec::new(),
        folder,
    };
    let draft = apply(draft, opt, hyp)?;
    let back: TrainerSpec = serde_json::from_value(draft.spec).map_err(ConvertError::Types)?;
    Ok(run_folder::spec_differences(&back, spec)
        .into_iter()
        .map(|(field, _)| field)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(changes: &Value) -> TrainerSpec {
        let mut spec = json!({
            "dataset": {"persistentVolumeClaim": {"claimName": "d"}, "config": "coco.yaml"},
            "output": {"persistentVolumeClaim": {"claimName": "o"}},
        });
        for (part, values) in changes.as_object().expect("parts") {
            spec[part] = values.clone();
        }
        serde_json::from_value(spec).expect("a spec")
    }

    /// Through files, as `yolo-trainer convert` reads them.
    fn there_and_back(spec: &TrainerSpec) -> (TrainerSpec, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        if let Some(text) = &spec.model.architecture {
            std::fs::write(path(MODEL_FILE), text).expect("written");
        }
        let options = options_of("digits", spec, folder.path().to_owned()).expect("options");
        std::fs::write(path("opt.yaml"), &options.opt).expect("written");
        std::fs::write(path("hyp.yaml"), &options.hyp).expect("written");
        let text = super::super::convert(&crate::cli::ConvertArgs {
            opt: Some(path("opt.yaml")),
            hyp: Some(path("hyp.yaml")),
            data: None,
            dataset_claim: "d".to_owned(),
            output_claim: "o".to_owned(),
            name: None,
            output: None,
            force: false,
        });
        let manifest = crate::manifest::parse(&text.expect("a job")).expect("a manifest");
        assert_eq!("digits", manifest.name);
        (manifest.spec, options.opt)
    }

    #[track_caller]
    fn same(changes: &Value) {
        let mut spec = spec(changes);
        let (mut back, opt) = there_and_back(&spec);
        assert!(!opt.contains("has no option"), "{opt}");
        // How many threads load is no part of what is computed, and the size is the default one.
        for spec in [&mut spec, &mut back] {
            spec.training.loader_threads = None;
            spec.model.size = spec.model.family_size();
        }
        assert_eq!(spec, back);
    }

    #[test]
    fn what_yolov5_knows_survives_its_files() {
        same(&json!({}));
        same(&json!({
            "model": {"size": "yolov5m6", "weights": "yolov5m6.pt"},
            "training": {
                "epochs": 7, "batchSize": 24, "imageSize": 320, "multiScale": 0.5, "seed": 3,
                "singleClass": true, "freeze": [0, 1, 2], "autoAnchor": false, "patience": 5,
                "syncBatchNorm": true, "device": "cpu", "cache": "disk",
            },
            "hyperparameters": {
                "optimizer": "adamw", "schedule": "cosine", "lr0": 0.000_012, "labelSmoothing": 0.1,
                "boxGain": 0.02, "anchorThreshold": 3.3, "focalGamma": 1.5,
            },
            "augmentation": {"mixup": 0.1, "copyPaste": 0.1, "hsvH": 0.01, "degrees": 10.0},
        }));
        same(&json!({"training": {"cache": "none"}}));
        let architecture = "anchors: [[10, 13]]\nbackbone:\n  - [-1, 1, Conv, [8, 3, 8]]\nhead:\n  - [[0], 1, Detect, [nc, anchors]]\n";
        same(
            &json!({"model": {"architecture": architecture}, "training": {"freeze": [3, 5], "batchSize": 0}}),
        );
    }

    #[test]
    fn what_it_does_not_know_is_named() {
        let (back, opt) = there_and_back(&spec(&json!({
            "hyperparameters": {"schedule": "constant", "lrf": 1.0},
            "training": {"multiScale": 0.25},
            "augmentation": {"cutmix": 0.5},
        })));
        for line in [
            "# YOLOv5 has no option for hyperparameters.schedule: \"constant\"",
            "# YOLOv5 has no option for training.multiScale: 0.25",
            "# YOLOv5 has no option for augmentation.cutmix: 0.5",
        ] {
            assert!(opt.lines().any(|found| found == line), "{line} in {opt}");
        }
        assert_eq!(0.5, back.training.multi_scale);
    }
}
