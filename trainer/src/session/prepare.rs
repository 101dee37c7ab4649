//! What a session begins with besides data and ranks.

use contract::spec::TrainerSpec;
use trainer_core::anchors::fit;
use trainer_model::architecture::Architecture;
use trainer_model::loss::{Loss, LossSettings};
use trainer_model::network::{Network, NetworkOptions};
use trainer_model::optim::Rule;

use super::data::Data;
use crate::checkpoint::{Machine, RunState};
use crate::device;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::job::Job;
use crate::report::Reporter;
use crate::step::{Learner, LearnerOptions};

/// YOLOv5 looks for other anchors when fewer of the boxes than this can be matched.
const ENOUGH_RECALL: f32 = 0.98;

/// A network with its initial values, and what it learns by: a step in one portion.
pub fn learner(
    job: &Job,
    data: &Data,
    device: tch::Device,
    ranks: &mut Ranks,
) -> Result<(Learner, Loss), Error> {
    let spec = &job.config.spec;
    device::settle_algorithms(&spec.training, device, |name| std::env::var(name).ok())?;
    let architecture = Architecture::of(&spec.model, Some(data.train.classes()))?;
    let mut options = NetworkOptions::of(architecture);
    options.device = device;
    let mut network = Network::initialised(&options, spec.training.seed.into())?;
    freeze(&mut network, &spec.training.freeze)?;
    let settings = LossSettings::scaled(
        &spec.hyperparameters,
        &options.architecture,
        spec.training.image_size,
    );
    let loss = Loss::new(&options, settings);
    let options = LearnerOptions {
        normalisation: spec.hyperparameters.loss_normalisation,
        rule: Rule::of(&spec.hyperparameters),
        gradient_clip: spec.hyperparameters.gradient_clip,
        sync_norm: spec.training.sync_batch_norm,
        portions: 1,
        quads: spec.training.quad.then_some(spec.training.seed.into()),
        precision: device::precision(spec.training.precision, device)?,
    };
    let learner = Learner::new(network, loss.clone(), options, ranks)
        .map_err(|source| Error::Step { step: 0, source })?;
    Ok((learner, loss))
}

/// Freezes `layers`, of which some must be left to train.
fn freeze(network: &mut Network, layers: &[u32]) -> Result<(), Error> {
    let count = network.options().architecture.layers().len();
    if let Some(layer) = layers.iter().find(|layer| **layer as usize >= count) {
        return Err(Error::FreezeUnknown {
            layer: *layer,
            last: count - 1,
        });
    }
    network.state_mut().freeze(layers)?;
    match network.state().trained().next() {
        Some(_) => Ok(()),
        None => Err(Error::FreezeAll),
    }
}

/// Says what the session works with.
pub fn introduce(
    spec: &TrainerSpec,
    data: &Data,
    learner: &Learner,
    state: &RunState,
    changes: &[String],
    reporter: &mut Reporter,
) {
    if !changes.is_empty() {
        let (changes, step) = (changes.join(", "), state.step);
        reporter.say(&format!("settings changed after step {step}: {changes}"));
    }
    let Machine {
        world_size,
        compute_threads,
        device,
        libtorch,
        ..
    } = &state.machine;
    reporter.say(&format!(
        "{} with {} classes, {} parameters; {world_size} processes x {compute_threads} threads on {device}{}, libtorch {libtorch}",
        spec.model.name(),
        data.train.classes(),
        learner.network.state().parameter_count(),
        learner.precision_note(),
    ));
    if let Some(note) = Architecture::note(&spec.model, data.train.classes()) {
        reporter.say(&note);
    }
    let boxes = data.train.box_sizes(spec.training.image_size);
    let threshold = spec.hyperparameters.anchor_threshold as f32;
    let architecture = &learner.network.options().architecture;
    let fit = fit(&boxes, &architecture.anchors(), threshold);
    if fit.best_possible_recall < ENOUGH_RECALL {
        let percent = 100.0 * (1.0 - fit.best_possible_recall);
        let text = format!(
            "{percent:.1} % of the labels match no anchor and are not learnt: set model.anchors, or raise training.imageSize or hyperparameters.anchorThreshold"
        );
        if reporter.is_first() {
            reporter.warn(&text);
        }
    }
}
