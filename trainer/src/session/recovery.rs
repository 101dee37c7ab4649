//! Going back to the last good state after a loss that was not finite.
//!
//! All ranks learn of such a loss at the same step, so they go back together: to the newest checkpoint, or
//! to the beginning if there is none yet. The seed changes, and the images of the offending batches are left
//! out for the rest of their epoch, or the same would happen again. The second time, what was computed in 16
//! bits is from then on computed in 32. There is no third time.

use trainer_data::Loader;

use super::requests::{Requests, sampler};
use super::restore::{Begin, restore};
use super::{Session, loader_config, order};
use crate::checkpoint::{NamedTensors, RunState, Writer};
use crate::error::Error;
use crate::step::Learner;

/// How often a run may go back.
pub(super) const MAX_RECOVERIES: u32 = 2;
/// From which time on everything is computed in `f32`.
pub(super) const IN_FULL_FROM: u32 = 2;

/// What a run began with, until its first checkpoint is whole. Only rank 0 keeps it.
pub(crate) struct Beginning {
    model: NamedTensors,
    ema: NamedTensors,
    optimizer: NamedTensors,
}

impl Beginning {
    pub(super) fn of(learner: &Learner) -> Result<Self, Error> {
        Ok(Self {
            model: learner.network.state().export()?.into_iter().collect(),
            ema: learner.ema.state().export()?.into_iter().collect(),
            optimizer: learner.optimizer.export()?.into_iter().collect(),
        })
    }

    pub(super) fn take_up(&self, learner: &mut Learner) -> Result<(), Error> {
        learner.network.state_mut().import(&self.model)?;
        learner.ema.restore(0, &self.ema)?;
        learner.optimizer.import(&self.optimizer)?;
        Ok(())
    }
}

impl Session<'_> {
    /// Goes back after `error`, if it is one that this helps against and it did not happen too often.
    pub(crate) fn recover(&mut self, error: Error) -> Result<(), Error> {
        let Error::NonFinite { images, epoch, .. } = &error else {
            return Err(error);
        };
        let recovery = self.state.recovery + 1;
        if recovery > MAX_RECOVERIES {
            return Err(error);
        }
        if self.ranks.is_first() {
            self.reporter.warn(&format!(
                "{}: going back and leaving out these {} images in epoch {epoch} (recovery {recovery} of {MAX_RECOVERIES})",
                error.message(),
                images.len()
            ));
        }
        self.wait_saved()?;
        let forgotten = self.learner.forget_step();
        forgotten.map_err(|source| Error::Step {
            step: self.state.step,
            source,
        })?;
        let fresh = RunState::new(
            self.spec().clone(),
            self.state.names.clone(),
            self.state.dataset.clone(),
            self.state.machine.clone(),
        );
        let source = self.good_state()?;
        let state = restore(
            &mut self.ranks,
            source,
            &mut self.learner,
            fresh,
            Begin::Again(self.beginning.as_ref()),
            self.reporter,
        )?;
        self.state = RunState {
            recovery,
            excluded: images.clone(),
            excluded_epoch: epoch - 1,
            training_seconds: self.state.training_seconds,
            ..state
        };
        self.compute_in_full_if_due();
        self.plan = self.plan_of_state();
        self.restart_loader()?;
        if self.ranks.is_first() {
            let keep = self.spec().training.keep_checkpoints as usize;
            self.writer = Some(Writer::of_run(
                self.folder.clone(),
                self.store.clone(),
                keep,
            ));
        }
        self.reporter.begin(self.plan, &self.state);
        Ok(())
    }

    /// Gives up 16 bits once a run had to go back twice.
    pub(super) fn compute_in_full_if_due(&mut self) {
        if self.state.recovery >= IN_FULL_FROM {
            self.learner.compute_in_full();
        }
    }

    fn restart_loader(&mut self) -> Result<(), Error> {
        let spec = &self.job.config.spec;
        let sampler = sampler(spec, self.data.train.len(), &self.state)?;
        let rectangles = self.rectangles.as_ref();
        let order = order(spec, &self.data, rectangles, &self.state);
        let requests = Requests::new(sampler, order, &self.ranks, self.plan.epochs, &self.state);
        let (state, epochs) = (&self.state, self.plan.epochs);
        let source = self
            .data
            .train_source(spec, state, rectangles, epochs, &self.cache);
        self.loader = Loader::start(loader_config(self.threads), source, requests)?;
        Ok(())
    }
}
