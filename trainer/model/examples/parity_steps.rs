//! Trains some steps on given tensors and writes down the losses: one half of `make parity`, whose other half
//! is the Python program.
//!
//! ```text
//! parity_steps FOLDER double|float
//! ```
//!
//! `FOLDER/init.safetensors` holds the state of a network, `FOLDER/batches.safetensors` the tensors
//! `images.K` (`[images, 3, side, side]`, bytes) and `targets.K` (`[objects, 6]`: image, class, x, y, w, h as
//! fractions) for each step K, `FOLDER/settings.json` the numbers. Writes `FOLDER/ours-KIND.jsonl`, a line for
//! each step, and `FOLDER/ours-KIND.safetensors`, the state after the last one.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use contract::spec::{Hyperparameters, ModelSize};
use tch::{Kind, Tensor};
use torch_bridge::optim::clip_grad_norm;
use trainer_core::boxes::Xywh;
use trainer_core::schedule::{Schedule, ScheduleKind};
use trainer_model::loss::{Loss, LossSettings, Target};
use trainer_model::network::{Layout, Network, NetworkOptions};
use trainer_model::optim::{Optimizer, OptimizerStep, Rule};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind] = &arguments[..] else {
        return Err("usage: parity_steps FOLDER double|float".into());
    };
    let folder = PathBuf::from(folder);
    let (kind, suffix) = match kind.as_str() {
        "double" => (Kind::Double, "double"),
        "float" => (Kind::Float, "float"),
        other => return Err(format!("{other} is neither double nor float").into()),
    };
    let settings: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("settings.json"))?)?;
    let number = |name: &str| settings[name].as_f64().ok_or(format!("no number {name}"));
    let (classes, side) = (number("classes")? as usize, number("imageSize")? as u32);

    let mut options = NetworkOptions::new(ModelSize::N, classes);
    options.kind = kind;
    // As the trainer does it; operations in one are of float32, channels last.
    options.layout = match kind {
        Kind::Float => Layout::ChannelsLast,
        _ => Layout::ChannelsFirst,
    };
    let mut network = Network::blank(&options)?;
    network
        .state_mut()
        .import(&read(&folder.join("init.safetensors"), kind)?)?;
    let hyperparameters: Hyperparameters =
        serde_json::from_value(settings["hyperparameters"].clone())?;
    let loss = Loss::new(
        &options,
        LossSettings::scaled(&hyperparameters, &options.architecture, side),
    );
    let mut optimizer = Optimizer::new(&network, Rule::Sgd)?;
    let batch = number("batchSize")? as u32;
    let schedule = Schedule {
        kind: ScheduleKind::Linear,
        epochs: number("epochs")? as u32,
        max_iterations: None,
        lr0: hyperparameters.lr0,
        lrf: hyperparameters.lrf,
        momentum: hyperparameters.momentum,
        warmup_epochs: hyperparameters.warmup_epochs,
        warmup_momentum: hyperparameters.warmup_momentum,
        warmup_bias_lr: hyperparameters.warmup_bias_lr,
        batch,
        nominal_batch: batch,
    };
    let steps_per_epoch = number("stepsPerEpoch")? as u64;

    let batches = read(&folder.join("batches.safetensors"), kind)?;
    let mut lines = String::new();
    for k in 0.. {
        let Some(images) = batches.get(&format!("images.{k}")) else {
            break;
        };
        let targets = targets(&batches[&format!("targets.{k}")])?;
        let size = images.size();
        let (height, width) = (size[2] as usize, size[3] as usize);
        let assignment = loss.assign(&targets, size[0] as usize, height, width)?;
        let raw = network.train(&images.f_to_kind(kind)?.f_div_scalar(255.0)?)?;
        let terms = loss.terms(&raw, &assignment)?;
        let total = terms.total(&terms.own, size[0] as f64)?;
        total.loss.f_backward()?;
        let _norm = clip_grad_norm(&mut optimizer.gradients()?, hyperparameters.gradient_clip)?;
        let plan = schedule.at(k, steps_per_epoch, 0, 0.0);
        let step = OptimizerStep::new(&plan, hyperparameters.weight_decay);
        optimizer.step(&step, None)?;
        optimizer.zero_grad()?;
        let parts: Vec<f64> = Vec::try_from(total.parts.f_to_kind(Kind::Double)?)?;
        let value = f64::try_from(&total.loss)?;
        writeln!(
            lines,
            "{}",
            serde_json::json!({"step": k, "loss": value, "box": parts[0], "obj": parts[1], "cls": parts[2]})
        )?;
    }
    std::fs::write(folder.join(format!("ours-{suffix}.jsonl")), lines)?;
    let state = network.state().export()?;
    Tensor::write_safetensors(&state, folder.join(format!("ours-{suffix}.safetensors")))?;
    Ok(())
}

/// All tensors of a file; numbers with a point become `kind`.
fn read(path: &std::path::Path, kind: Kind) -> Result<BTreeMap<String, Tensor>> {
    let tensors = Tensor::read_safetensors(path)?;
    let convert = |(name, tensor): (String, Tensor)| {
        let float = matches!(tensor.kind(), Kind::Float | Kind::Double);
        let tensor = if float { tensor.to_kind(kind) } else { tensor };
        (name, tensor)
    };
    Ok(tensors.into_iter().map(convert).collect())
}

fn targets(rows: &Tensor) -> Result<Vec<Target>> {
    let values: Vec<f64> = Vec::try_from(rows.f_to_kind(Kind::Double)?.f_reshape([-1])?)?;
    Ok(values
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[image, class, x, y, w, h]| Target {
            image: image as u32,
            class: class as u16,
            xywh: Xywh {
                x: x as f32,
                y: y as f32,
                w: w as f32,
                h: h as f32,
            },
        })
        .collect())
}
