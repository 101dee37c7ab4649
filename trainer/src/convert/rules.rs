//! What becomes of each option of YOLOv5 7.0.

use std::path::Path;

use contract::spec::ModelSize;
use serde_json::{Value, json};
use trainer_data::bounded;
use trainer_model::architecture::Architecture;

use super::{Draft, MAX_OPTIONS};

/// What becomes of an option.
pub enum Rule {
    /// It is the value of a field of the spec, named by its JSON pointer.
    Field(&'static str),
    /// It becomes something else. An error says why it cannot, after "which".
    Made(fn(&Value, &mut Draft) -> Result<(), String>),
    /// Only these values, in JSON, can be obeyed; why no other, after "which".
    Only(&'static [&'static str], &'static str),
    /// It may have any value, since it changes no result; why, after its name.
    Free(&'static str),
}

use Rule::{Field, Free, Made, Only};

const OFF: &[&str] = &["false", "null"];

/// The flags of train.py, by their names in opt.yaml.
pub const FLAGS: &[(&str, Rule)] = &[
    ("weights", Made(weights)),
    ("cfg", Made(cfg)),
    ("data", Made(data)),
    ("hyp", Free("is a path: give that file with --hyp")),
    ("epochs", Field("/training/epochs")),
    ("batch_size", Made(batch_size)),
    ("imgsz", Made(image_size)),
    ("rect", Field("/training/rect")),
    (
        "resume",
        Only(
            OFF,
            "continues a run of YOLOv5: begin a new job from its last.pt with --weights",
        ),
    ),
    (
        "nosave",
        Only(
            OFF,
            "leaves checkpoints out: they are what a restart goes on from, set it to false",
        ),
    ),
    ("noval", Made(no_validation)),
    ("noautoanchor", Made(no_auto_anchor)),
    ("noplots", Made(no_plots)),
    (
        "evolve",
        Only(
            OFF,
            "searches for hyper-parameters: that is not possible yet, set it to null",
        ),
    ),
    (
        "bucket",
        Only(
            &["\"\"", "null"],
            "names a bucket for the search of hyper-parameters: leave it out",
        ),
    ),
    ("cache", Made(cache)),
    ("image_weights", Field("/training/imageWeights")),
    ("device", Made(device)),
    ("multi_scale", Made(multi_scale)),
    ("single_cls", Field("/training/singleClass")),
    ("optimizer", Field("/hyperparameters/optimizer")),
    ("sync_bn", Field("/training/syncBatchNorm")),
    ("workers", Made(loader_threads)),
    ("project", Free("is replaced by the output volume")),
    ("name", Made(name)),
    (
        "exist_ok",
        Free("has no meaning: a run has a folder of its own"),
    ),
    ("quad", Field("/training/quad")),
    ("cos_lr", Made(cosine)),
    ("label_smoothing", Field("/hyperparameters/labelSmoothing")),
    ("patience", Field("/training/patience")),
    ("freeze", Made(freeze)),
    (
        "save_period",
        Only(
            &["-1"],
            "keeps files of many epochs: use training.keepCheckpoints, and set it to -1",
        ),
    ),
    ("seed", Field("/training/seed")),
    ("local_rank", Free("is set for each process")),
    (
        "entity",
        Free("belongs to Weights & Biases: metrics go to Prometheus"),
    ),
    (
        "upload_dataset",
        Free("belongs to Weights & Biases: the data set stays on its volume"),
    ),
    (
        "bbox_interval",
        Free("belongs to Weights & Biases: metrics go to Prometheus"),
    ),
    (
        "artifact_alias",
        Free("belongs to Weights & Biases: metrics go to Prometheus"),
    ),
    ("save_dir", Free("is replaced by the output volume")),
];

/// The hyper-parameters, by their names in hyp.yaml.
pub const HYPERPARAMETERS: &[(&str, Rule)] = &[
    ("lr0", Field("/hyperparameters/lr0")),
    ("lrf", Field("/hyperparameters/lrf")),
    ("momentum", Field("/hyperparameters/momentum")),
    ("weight_decay", Field("/hyperparameters/weightDecay")),
    ("warmup_epochs", Field("/hyperparameters/warmupEpochs")),
    ("warmup_momentum", Field("/hyperparameters/warmupMomentum")),
    ("warmup_bias_lr", Field("/hyperparameters/warmupBiasLr")),
    ("box", Field("/hyperparameters/boxGain")),
    ("cls", Field("/hyperparameters/clsGain")),
    ("cls_pw", Field("/hyperparameters/clsPositiveWeight")),
    ("obj", Field("/hyperparameters/objGain")),
    ("obj_pw", Field("/hyperparameters/objPositiveWeight")),
    ("iou_t", Free("is not used by YOLOv5 either")),
    ("anchor_t", Field("/hyperparameters/anchorThreshold")),
    (
        "anchors",
        Only(
            // The last is what hyp.VOC.yaml has; YOLOv5 rounds it.
            &["null", "3", "3.412"],
            "asks for another number of anchors: write it into the model file (anchors: 4), or their sizes into model.anchors, and leave it out",
        ),
    ),
    ("fl_gamma", Field("/hyperparameters/focalGamma")),
    ("label_smoothing", Field("/hyperparameters/labelSmoothing")),
    ("hsv_h", Field("/augmentation/hsvH")),
    ("hsv_s", Field("/augmentation/hsvS")),
    ("hsv_v", Field("/augmentation/hsvV")),
    ("degrees", Field("/augmentation/degrees")),
    ("translate", Field("/augmentation/translate")),
    ("scale", Field("/augmentation/scale")),
    ("shear", Field("/augmentation/shear")),
    ("perspective", Field("/augmentation/perspective")),
    ("flipud", Field("/augmentation/flipud")),
    ("fliplr", Field("/augmentation/fliplr")),
    ("mosaic", Field("/augmentation/mosaic")),
    ("mixup", Field("/augmentation/mixup")),
    ("copy_paste", Field("/augmentation/copyPaste")),
];

/// What follows from several options: rectangles show each image alone, whatever hyp.yaml says; and where YOLOv5 is
/// given --cfg, it leaves the weights' anchors out.
pub fn settle(draft: &mut Draft) {
    let has = |field| draft.spec.pointer(field).is_some();
    if has("/model/size") && has("/model/weights") {
        draft.notes.push(
            "YOLOv5 begins with the anchors of --cfg, a job with those of the weights, where they differ: to begin with those of --cfg, write the text of that file into model.architecture and remove model.size"
                .to_owned(),
        );
    }
    if draft.spec.pointer("/training/rect") != Some(&Value::Bool(true)) {
        return;
    }
    for field in ["/augmentation/mosaic", "/augmentation/mixup"] {
        draft.set(field, json!(0.0));
    }
    draft
        .notes
        .push("--rect lays each image alone: mosaic and mixup are 0, as in YOLOv5".to_owned());
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => Err("is not a text: write one".to_owned()),
    }
}

fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name();
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn is_true(value: &Value) -> Result<bool, String> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(value) => Ok(*value),
        _ => Err("is neither true nor false: write one of them".to_owned()),
    }
}

fn whole(value: &Value) -> Result<i64, String> {
    value
        .as_i64()
        .ok_or_else(|| "is not a whole number: write one".to_owned())
}

fn weights(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let name = file_name(text(value)?);
    if !name.is_empty() {
        draft.notes.push(format!(
            "put {name} into the source of the data set: model.weights is looked for there"
        ));
        draft.set("/model/weights", name.into());
    }
    Ok(())
}

/// A member of the family if the file describes one, else the text of the file. Where there is no file, its name may
/// be one of the family.
fn cfg(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let path = text(value)?;
    if path.is_empty() {
        return Ok(());
    }
    let name = file_name(path);
    let stem = name.trim_end_matches(".yaml");
    let named = ModelSize::ALL.into_iter().find(|size| size.name() == stem);
    let path = draft.folder.join(path);
    match (named, bounded::read_text(&path, MAX_OPTIONS)) {
        (Some(size), Ok(text)) if Architecture::family_of(&text) == Some(size) => {
            draft.set("/model/size", size.name().into());
        }
        // A file of the user's own may be called like one of YOLOv5's.
        (_, Ok(text)) => draft.set("/model/architecture", text.into()),
        (Some(size), Err(error)) => {
            draft.notes.push(format!(
                "{} of --cfg cannot be read ({error}): model.size is YOLOv5's own {}; if you changed that file, put it there and convert again",
                path.display(),
                size.name()
            ));
            draft.set("/model/size", size.name().into());
        }
        (None, Err(error)) => {
            return Err(format!(
                "cannot be read ({}: {error}): put the model file there",
                path.display()
            ));
        }
    }
    Ok(())
}

fn data(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let name = file_name(text(value)?);
    if !name.is_empty() {
        draft.notes.push(format!(
            "put {name} into the root of the data set's source, with paths relative to it"
        ));
        draft.set("/dataset/config", name.into());
    }
    Ok(())
}

fn batch_size(value: &Value, draft: &mut Draft) -> Result<(), String> {
    // 0 is the largest that fits, here.
    draft.set(
        "/training/batchSize",
        json!(match whole(value)? {
            -1 => 0,
            size => size,
        }),
    );
    Ok(())
}

/// Rounded up to a multiple of 32, as YOLOv5 does.
fn image_size(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let size = u32::try_from(whole(value)?).map_err(|_| "is no size: write pixels".to_owned())?;
    let rounded = size.checked_next_multiple_of(32).unwrap_or(size).max(64);
    if rounded != size {
        draft.notes.push(format!(
            "--imgsz is {size}: training.imageSize is {rounded}"
        ));
    }
    draft.set("/training/imageSize", rounded.into());
    Ok(())
}

/// Only the last epoch is evaluated; it always is.
fn no_validation(value: &Value, draft: &mut Draft) -> Result<(), String> {
    if is_true(value)? {
        draft.set("/training/evaluateEvery", json!(100_000));
    }
    Ok(())
}

fn no_auto_anchor(value: &Value, draft: &mut Draft) -> Result<(), String> {
    if is_true(value)? {
        draft.set("/training/autoAnchor", json!(false));
    }
    Ok(())
}

fn no_plots(value: &Value, draft: &mut Draft) -> Result<(), String> {
    if is_true(value)? {
        draft.set("/output/plots", json!(false));
    }
    Ok(())
}

fn device(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let list = match value {
        Value::Number(number) => number.to_string(),
        other => text(other)?.to_owned(),
    };
    match list.as_str() {
        "" => {}
        "cpu" => draft.set("/training/device", "cpu".into()),
        "mps" => return Err("is an Apple GPU: choose cpu or NVIDIA GPUs".to_owned()),
        gpus => {
            let count = gpus.split(',').count();
            draft.set("/training/device", "cuda".into());
            draft.set("/workers/replicas", json!(1));
            draft.set("/workers/gpusPerWorker", json!(count));
        }
    }
    Ok(())
}

/// Not given, images are kept in memory, as always.
fn cache(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let place = match value {
        Value::Null => return Ok(()),
        Value::Bool(false) => "none",
        Value::Bool(true) => "ram",
        Value::String(place) => match place.as_str() {
            "" => return Ok(()),
            "ram" | "disk" => place,
            "val" => {
                let note =
                    "--cache is val: images of training are kept too, before those of validation";
                draft.notes.push(note.to_owned());
                "ram"
            }
            _ => return Err("is no place for images: write ram, disk or false".to_owned()),
        },
        _ => return Err("is no place for images: write ram, disk or false".to_owned()),
    };
    draft.set("/training/cache", place.into());
    Ok(())
}

fn multi_scale(value: &Value, draft: &mut Draft) -> Result<(), String> {
    if is_true(value)? {
        draft.set("/training/multiScale", json!(0.5));
    }
    Ok(())
}

/// With none, YOLOv5 loads in the process itself.
fn loader_threads(value: &Value, draft: &mut Draft) -> Result<(), String> {
    draft.set("/training/loaderThreads", whole(value)?.max(1).into());
    Ok(())
}

/// Kubernetes allows lower-case letters, digits and dashes.
fn name(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let letters = text(value)?
        .to_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let name: String = letters.trim_matches('-').chars().take(40).collect();
    if name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.trim_end_matches('-').clone_into(&mut draft.name);
    }
    Ok(())
}

fn cosine(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let schedule = if is_true(value)? { "cosine" } else { "linear" };
    draft.set("/hyperparameters/schedule", schedule.into());
    Ok(())
}

/// One number is how many layers from the first; several are their numbers.
fn freeze(value: &Value, draft: &mut Draft) -> Result<(), String> {
    let numbers = match value {
        Value::Array(list) => list.iter().map(whole).collect::<Result<Vec<_>, _>>()?,
        single => vec![whole(single)?],
    };
    let layers = match numbers.as_slice() {
        [count] => (0..(*count).min(1000)).collect(),
        _ => numbers,
    };
    draft.set("/training/freeze", json!(layers));
    Ok(())
}
