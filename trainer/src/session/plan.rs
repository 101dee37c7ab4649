//! How long a session trains, and how the learning rate falls.

use contract::spec::{Schedule as ScheduleSetting, TrainerSpec};
use trainer_core::schedule::{Schedule, ScheduleKind};

use super::data::Data;
use crate::checkpoint::RunState;
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

/// The plan from a state on.
pub fn plan(
    spec: &TrainerSpec,
    data: &Data,
    schedule: &Schedule,
    steps_per_epoch: u64,
    state: &RunState,
) -> Plan {
    let done = iteration(spec, steps_per_epoch, state);
    Plan {
        other_steps: state.step.cast_signed() - done.cast_signed(),
        epochs: schedule.epochs_to_do(steps_per_epoch),
        steps_per_epoch,
        iterations: spec.training.iterations,
        images: data.train.len() as u64,
        evaluate_every: spec.training.evaluate_every,
    }
}

/// Makes sure that a run that ends by its steps comes to an epoch with mosaics, unless it is to have none anyway: the
/// settings alone do not tell how many steps an epoch has. A batch size that is yet to be found tells nothing.
pub fn check_mosaics(spec: &TrainerSpec, images: usize) -> Result<(), Error> {
    let close = spec.augmentation.close_mosaic;
    let (Some(iterations), 1..) = (spec.training.iterations, spec.training.batch_size) else {
        return Ok(());
    };
    let steps = (images as u64).div_ceil(spec.training.batch_size.into());
    let last = schedule(spec).epochs_to_do(steps);
    if close >= last && last < spec.training.epochs {
        return Err(Error::NoMosaics {
            close,
            iterations,
            steps,
            last,
        });
    }
    Ok(())
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
