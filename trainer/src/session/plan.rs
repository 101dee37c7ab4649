//! How long a session trains, and how the learning rate falls.

use contract::spec::{Augmentation, Schedule as ScheduleSetting, TrainerSpec};
use trainer_core::schedule::{Schedule, ScheduleKind};

use super::data::Data;
use crate::checkpoint::{CheckpointStore, RunState};
use crate::distributed::Ranks;
use crate::error::Error;
use crate::report::Plan;

/// Epochs between two falls of the schedule `step`, and what is left after each, unless told.
const STEP_EPOCHS: u32 = 30;
const STEP_FACTOR: f64 = 0.1;

/// Where the schedule stands: the steps that this batch size would have taken to come here. They are those done
/// unless the batch size was changed.
pub fn iteration(spec: &TrainerSpec, steps_per_epoch: u64, state: &RunState) -> u64 {
    let of_epoch = state.position.div_ceil(u64::from(spec.training.batch_size));
    u64::from(state.epoch) * steps_per_epoch + of_epoch
}

/// By how many more steps the run has come to `state` than it would have with this batch size and whole epochs.
fn other_steps(spec: &TrainerSpec, steps_per_epoch: u64, state: &RunState) -> i64 {
    state.step.cast_signed() - iteration(spec, steps_per_epoch, state).cast_signed()
}

/// The schedule from a state on: its iterations are those of this batch size, so that the steps that are left are
/// those that the settings leave.
pub fn schedule_from(spec: &TrainerSpec, steps_per_epoch: u64, state: &RunState) -> Schedule {
    let mut schedule = schedule(spec);
    let other = other_steps(spec, steps_per_epoch, state);
    schedule.max_iterations = schedule
        .max_iterations
        .map(|most| most.saturating_add_signed(-other));
    schedule
}

/// The plan from a state on.
pub fn plan(
    spec: &TrainerSpec,
    data: &Data,
    schedule: &Schedule,
    steps_per_epoch: u64,
    state: &RunState,
) -> Plan {
    let images = data.train.len() as u64;
    Plan {
        other_steps: other_steps(spec, steps_per_epoch, state),
        epochs: schedule.epochs_to_do(steps_per_epoch),
        steps_per_epoch,
        iterations: spec.training.iterations,
        images,
        run_images: run_images(schedule, steps_per_epoch, images),
        evaluate_every: spec.training.evaluate_every,
    }
}

/// Images of all epochs, of the last one those of the steps that it has.
fn run_images(schedule: &Schedule, steps_per_epoch: u64, images: u64) -> u64 {
    let all = u64::from(schedule.epochs) * images;
    schedule.max_iterations.map_or(all, |most| {
        let nb = steps_per_epoch.max(1);
        let of_last = (most % nb * u64::from(schedule.batch)).min(images);
        all.min((most / nb).saturating_mul(images).saturating_add(of_last))
    })
}

/// Makes sure that a run that ends by its steps comes to an epoch with mosaics. One that has a checkpoint goes on: it may
/// have had them, when it was to take more steps.
pub fn check_mosaics(
    spec: &TrainerSpec,
    images: usize,
    store: &CheckpointStore,
    ranks: &mut Ranks,
) -> Result<(), Error> {
    let Some(problem) = without_mosaics(spec, images) else {
        return Ok(());
    };
    let has_begun = store.steps().is_ok_and(|steps| !steps.is_empty());
    let has_begun = ranks.value_of_first(&has_begun);
    let has_begun = has_begun.map_err(|source| Error::Ranks {
        when: "the start",
        source,
    })?;
    if has_begun { Ok(()) } else { Err(problem) }
}

/// Why a run comes to no epoch with mosaics, unless it is to have none anyway: the settings alone do not tell how many
/// steps an epoch has. A batch size that is yet to be found tells nothing.
fn without_mosaics(spec: &TrainerSpec, images: usize) -> Option<Error> {
    let Augmentation {
        mosaic,
        mixup,
        cutmix,
        copy_paste,
        close_mosaic: close,
        ..
    } = spec.augmentation;
    if [mosaic, mixup, cutmix, copy_paste] == [0.0; 4] || spec.training.batch_size == 0 {
        return None;
    }
    let iterations = spec.training.iterations?;
    let steps = (images as u64).div_ceil(spec.training.batch_size.into());
    let last = schedule(spec).epochs_to_do(steps);
    (close >= last && last < spec.training.epochs).then_some(Error::NoMosaics {
        close,
        iterations,
        steps,
        last,
    })
}

/// The schedule that the settings ask for.
pub fn schedule(spec: &TrainerSpec) -> Schedule {
    let hyperparameters = &spec.hyperparameters;
    Schedule {
        kind: match hyperparameters.schedule {
            ScheduleSetting::Linear => ScheduleKind::Linear,
            ScheduleSetting::Cosine => ScheduleKind::Cosine,
            ScheduleSetting::Constant => ScheduleKind::Constant,
            ScheduleSetting::Step => ScheduleKind::Step {
                every: hyperparameters.step_epochs.unwrap_or(STEP_EPOCHS),
                factor: hyperparameters.step_factor.unwrap_or(STEP_FACTOR),
            },
            ScheduleSetting::OneCycle => ScheduleKind::OneCycle,
        },
        epochs: spec.training.epochs,
        max_iterations: spec.training.iterations,
        lr0: hyperparameters.lr0,
        lrf: hyperparameters.lrf,
        momentum: hyperparameters.momentum,
        warmup_epochs: hyperparameters.warmup_epochs,
        warmup_momentum: hyperparameters.warmup_momentum,
        warmup_bias_lr: hyperparameters.warmup_bias_lr,
        batch: spec.training.batch_size,
        nominal_batch: hyperparameters.nominal_batch_size,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 26 images in steps of 12 are three steps.
    #[test]
    fn iterations_end_a_run_within_an_epoch() {
        let images = |iterations: Option<u64>| {
            let spec = json!({
                "dataset": {}, "output": {},
                "training": {"epochs": 3, "batchSize": 12, "iterations": iterations},
            });
            let spec: TrainerSpec = serde_json::from_value(spec).expect("a spec");
            run_images(&schedule(&spec), 3, 26)
        };
        assert_eq!(78, images(None));
        assert_eq!([12, 24, 26, 38], [1, 2, 3, 4].map(|n| images(Some(n))));
        assert_eq!(78, images(Some(100)));
    }

    #[test]
    fn a_run_lacks_mosaics_only_if_it_was_to_have_some() {
        let lacks = |augmentation: &serde_json::Value| {
            let spec = json!({
                "dataset": {}, "output": {}, "augmentation": augmentation,
                "training": {"epochs": 3, "batchSize": 12, "iterations": 4},
            });
            let spec = serde_json::from_value(spec).expect("a spec");
            without_mosaics(&spec, 26).is_some()
        };
        assert!(lacks(&json!({"closeMosaic": 2})));
        assert!(!lacks(&json!({"closeMosaic": 1})));
        let mut none = json!({
            "closeMosaic": 2, "mosaic": 0.0, "mixup": 0.0, "cutmix": 0.0, "copyPaste": 0.0,
        });
        assert!(!lacks(&none));
        none["mixup"] = json!(0.1);
        assert!(lacks(&none));
    }
}
