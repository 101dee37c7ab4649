//! The training loop.

use std::path::PathBuf;
use std::time::Instant;

use contract::progress::{CheckpointRef, EpochMetrics, Phase};
use trainer_core::confusion::ConfusionMatrix;
use trainer_core::detection::Detection;
use trainer_core::early_stopping::EarlyStopping;
use trainer_data::Batch;

use crate::checkpoint::{self, EpochSums, Saved};
use crate::distributed::Gradients;
use crate::error::Error;
use crate::evaluate::{Audience, EvaluateError, Measured, Outcome};
use crate::finder::Finder;
use crate::pictures::{Sheets, Shown};
use crate::report::{EpochTimes, Timing};
use crate::results;
use crate::session::Session;
use crate::shutdown::StopRequest;
use crate::step::{Made, StepInput, StepOutput};
use crate::weights::WeightsInfo;

/// Whether the run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    On,
    Stop,
}

/// Ends an evaluation when the run is to stop.
struct Listener {
    stop: StopRequest,
    step: u64,
    confusion: Option<ConfusionMatrix>,
    /// Only on rank 0.
    sheets: Option<Sheets>,
}

impl Audience for Listener {
    fn wants_stop(&self) -> bool {
        self.stop.is_due(self.step)
    }

    fn batch_done(&mut self, _done: u64) {
        if let Some(sheets) = &mut self.sheets {
            sheets.batch_done();
        }
    }

    fn image(&mut self, batch: &Batch, k: usize, detections: &[Detection]) {
        if let Some(confusion) = &mut self.confusion {
            confusion.add(detections, &batch.evaluated[k].labels);
        }
        if let Some(sheets) = &mut self.sheets {
            sheets.add(batch, k, detections);
        }
    }
}

/// Trains from the session's state to the end, or until a rank is asked to stop; says how it ended.
pub fn train(mut session: Session<'_>) -> Result<String, Error> {
    session.begin();
    while !session.is_done() {
        match session.epoch() {
            Ok(Flow::On) => {}
            Ok(Flow::Stop) => return Err(session.stop()),
            Err(error) => session.recover(error)?,
        }
    }
    session.finish()
}

impl Session<'_> {
    /// The rest of the present epoch.
    fn epoch(&mut self) -> Result<Flow, Error> {
        match self.train_epoch()? {
            Flow::On => self.finish_epoch(),
            Flow::Stop => Ok(Flow::Stop),
        }
    }

    /// The rest of the present epoch's steps.
    fn train_epoch(&mut self) -> Result<Flow, Error> {
        let (mut stop, mut save) = (false, false);
        while self.state.position < self.images() && !self.is_spent() {
            let (output, gradients) = self.step()?;
            stop |= output.stop;
            // Only here do all ranks hold the same state and no half-accumulated gradient.
            if stop && gradients == Gradients::Averaged {
                self.flush()?;
                return Ok(Flow::Stop);
            }
            save |= output.save;
            if save && gradients == Gradients::Averaged && self.state.position < self.images() {
                self.flush()?;
                // Rank 0 knows which of the two it wanted; the others write no checkpoints, and wait.
                let checkpoint = self.wants_checkpoint();
                if checkpoint {
                    self.save(true, false)?;
                }
                if !(checkpoint && self.ranks.is_first()) {
                    self.take_snapshot()?;
                }
                save = false;
            }
        }
        self.flush()?;
        self.learner
            .end_epoch(&mut self.ranks)
            .map_err(|source| self.step_failed(source))?;
        // Before an evaluation, which may take long.
        if save && !stop {
            self.take_snapshot()?;
        }
        Ok(if stop { Flow::Stop } else { Flow::On })
    }

    fn step(&mut self) -> Result<(StepOutput, Gradients), Error> {
        let start = Instant::now();
        // What was waited for between steps, in evaluations for example, is no part of this one.
        let _ = self.ranks.take_waited();
        let batch = self.loader.next().ok_or(Error::LoaderEnded)??;
        let data = start.elapsed();
        self.skipped.note(&batch.skipped);

        if let Some(gallery) = &mut self.gallery {
            gallery.batch(self.state.step, &batch);
        }
        let plan = self.plan_step();
        let since = self.state.step + 1 - self.state.last_optimizer_step;
        let gradients = if since >= u64::from(plan.accumulate) {
            Gradients::Averaged
        } else {
            Gradients::Kept
        };
        let input = StepInput {
            batch: &batch,
            gradients,
            plan,
            weight_decay: self.weight_decay,
            size: self.size(&batch),
            stop: self.stop.is_due(self.state.step),
            save: self.wants_checkpoint() || self.wants_snapshot(),
            spent: self.spent_here(),
            made: self.made(),
        };
        let result = self.learner.step(&mut self.ranks, &input);
        let output = result.map_err(|source| self.step_failed(source))?;
        self.count_step(&output, gradients);
        self.verify_ranks(gradients)?;
        let checkpoint = self.collect_saved()?;
        let timing = Timing {
            step: start.elapsed(),
            data,
            collective: self.ranks.take_waited(),
            checkpoint,
        };
        self.state.training_seconds += timing.step.as_secs_f64();
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.stepped(timing.step);
        }
        self.reporter.step(&self.state, &plan, timing);
        Ok((output, gradients))
    }

    fn count_step(&mut self, output: &StepOutput, gradients: Gradients) {
        let state = &mut self.state;
        state.epoch_sums.add(output.before);
        state.step += 1;
        // Images that are left out or cannot be read count too.
        state.position +=
            u64::from(state.spec.training.batch_size).min(self.plan.images - state.position);
        state.images_seen += output.images;
        state.fitness = None;
        state.spent = output.spent;
        if gradients == Gradients::Averaged {
            state.optimizer_steps += 1;
            state.last_optimizer_step = state.step;
        }
        if state.first_step_time.is_none() {
            state.first_step_time = Some(jiff::Timestamp::now().to_string());
        }
    }

    /// How the next step is to fail on this rank, if it is: for tests, on the last one.
    fn made(&self) -> Option<Made> {
        if self.ranks.rank() + 1 != self.ranks.world() {
            return None;
        }
        let now = |steps: &[u64], times: u32| steps.get(times as usize) == Some(&self.state.step);
        if now(&self.out_of_memory, self.state.machine.portions.ilog2()) {
            return Some(Made::OutOfMemory);
        }
        now(&self.faults, self.state.recovery).then_some(Made::NonFinite)
    }

    /// Adds the losses of the last step, which had no later step to travel with.
    fn flush(&mut self) -> Result<(), Error> {
        let sums = self.learner.flush(&mut self.ranks);
        let sums = sums.map_err(|source| self.step_failed(source))?;
        self.state.epoch_sums.add(sums);
        Ok(())
    }

    /// Evaluates, if it is time, and keeps what the epoch gave.
    fn finish_epoch(&mut self) -> Result<Flow, Error> {
        let epoch = self.state.epoch + 1;
        let training = self.reporter.epoch_seconds();
        self.share_skipped()?;
        let start = Instant::now();
        let measured = if self.plan.evaluates_after(epoch) || self.is_spent() {
            match self.evaluate(epoch)? {
                (Outcome::Stopped, _) => return Ok(Flow::Stop),
                (Outcome::Whole(measured), shown) => Some((measured, shown)),
            }
        } else {
            None
        };
        if let (Some(_), Some(snapshots)) = (&measured, &mut self.snapshots) {
            snapshots.evaluated(start.elapsed());
        }
        let evaluation = start.elapsed().as_secs_f64();
        self.state.training_seconds += evaluation;
        self.share_spent()?;

        let is_best = self.keep_metrics(epoch, measured.as_ref().map(|(measured, _)| measured));
        let metrics = self.state.latest.clone().unwrap_or_default();
        let took = EpochTimes {
            training,
            evaluation: measured.as_ref().map(|_| evaluation),
        };
        if let (Some(gallery), Some((measured, Some(shown)))) = (&mut self.gallery, measured) {
            gallery.evaluated(epoch, &measured, shown, is_best);
        }
        self.write_results(&metrics)?;
        self.reporter
            .epoch(&metrics, self.state.best.as_ref(), took);

        self.state.epoch = epoch;
        self.state.position = 0;
        self.state.epoch_sums = EpochSums::default();
        self.weigh_images();
        let is_last = self.is_done();
        let due = is_last || epoch.is_multiple_of(self.spec().training.checkpoint_every);
        if due || is_best {
            self.save(due, is_best)?;
        }
        Ok(Flow::On)
    }

    /// An evaluation may use up the time that the run was given: without this the next epoch would begin all the same.
    fn share_spent(&mut self) -> Result<(), Error> {
        if self.spec().training.hours.is_none() {
            return Ok(());
        }
        let own = self.spent_here();
        let spent = self.ranks.value_of_first(&own);
        self.state.spent = spent.map_err(|source| Error::Ranks {
            when: "the exchange of the time that was used",
            source,
        })?;
        Ok(())
    }

    /// Rank 0 adds the epoch's row to the table.
    fn write_results(&mut self, metrics: &EpochMetrics) -> Result<(), Error> {
        if !self.ranks.is_first() {
            return Ok(());
        }
        self.folder.check_owner()?;
        let plan = self.last_plan();
        let path = self.folder.results();
        let rates = [plan.lr_bias, plan.lr_other, plan.lr_other];
        results::append(&path, metrics, rates).map_err(|source| Error::Results { path, source })?;
        let gallery = self.gallery.as_mut();
        if let Some(problem) = gallery.and_then(|gallery| gallery.epoch(metrics, rates)) {
            self.reporter.warn(&problem);
        }
        Ok(())
    }

    /// Also returns what pictures need, if there are to be any.
    fn evaluate(&mut self, epoch: u32) -> Result<(Outcome, Option<Shown>), Error> {
        self.reporter.phase(Phase::Evaluating);
        let network = self.learner.ema.network().fuse();
        let network = network.map_err(|source| self.evaluation_failed(epoch, source.into()))?;
        let finder = Finder::of(network);
        // The same on all ranks, which put their confusion together.
        let plots = self.spec().output.plots;
        let mut audience = Listener {
            stop: self.stop.clone(),
            step: self.state.step,
            confusion: plots.then(|| ConfusionMatrix::new(self.data.train.classes() as u16)),
            sheets: (plots && self.ranks.is_first()).then(Sheets::default),
        };
        let result = match self.made() {
            Some(Made::OutOfMemory) => Err(EvaluateError::OutOfMemory),
            _ => self.evaluator.run(&finder, &mut self.ranks, &mut audience),
        };
        let outcome = result.map_err(|source| self.evaluation_failed(epoch, source))?;
        if let Outcome::Whole(measured) = &outcome {
            self.skipped.note(&measured.skipped);
        } else {
            return Ok((outcome, None));
        }
        let Some(own) = audience.confusion else {
            return Ok((outcome, None));
        };
        let mut confusion = ConfusionMatrix::new(own.classes());
        for bytes in self.gather("the exchange of mix-ups", &own.to_bytes())? {
            confusion.add_bytes(&bytes);
        }
        let shown = audience.sheets.map(|sheets| Shown { confusion, sheets });
        Ok((outcome, shown))
    }

    /// Puts the epoch's metrics together; returns whether they are the best so far.
    fn keep_metrics(&mut self, epoch: u32, measured: Option<&Measured>) -> bool {
        let state = &mut self.state;
        let before = state.latest.take().unwrap_or_default();
        let train_loss = state.epoch_sums.means();
        if let Some(measured) = measured
            && !measured.losses.is_finite()
            && self.reporter.is_first()
            // Once, not after each of many evaluations.
            && (before.map50.is_none() || before.val_loss.is_some())
        {
            self.reporter.warn(&format!(
                "the validation loss of epoch {epoch} is not a finite number and is left out: what the run learns and how good it is do not depend on it"
            ));
        }
        let Some(Measured {
            evaluation, losses, ..
        }) = measured
        else {
            state.latest = Some(EpochMetrics {
                epoch,
                train_loss,
                ..before
            });
            return false;
        };
        let metrics = EpochMetrics {
            epoch,
            train_loss,
            val_loss: losses.means(),
            precision: Some(evaluation.precision),
            recall: Some(evaluation.recall),
            map50: Some(evaluation.map50),
            map50_95: Some(evaluation.map50_95),
        };
        let fitness = state.spec.training.fitness.of(
            evaluation.precision,
            evaluation.recall,
            evaluation.map50,
            evaluation.map50_95,
        );
        state.fitness = Some(fitness);
        state.class_aps = evaluation.class_aps(state.names.len());
        let verdict = state.early_stopping.update(epoch - 1, fitness);
        if verdict.improved {
            state.best = Some(metrics.clone());
        }
        state.latest = Some(metrics);
        verdict.improved
    }

    /// Rank 0 writes a checkpoint and the last weights (`whole`), and the best weights (`is_best`).
    fn save(&mut self, whole: bool, is_best: bool) -> Result<(), Error> {
        // All ranks say so: those that have nothing to write wait for the one that has.
        if whole {
            self.reporter.phase(Phase::Checkpointing);
        }
        if self.writer.is_none() {
            return Ok(());
        }
        let start = Instant::now();
        if whole {
            self.last_checkpoint = start;
        }
        let mut weights = Vec::new();
        if is_best {
            let path = self.folder.best_weights();
            self.reporter.best_weights(self.folder.relative(&path));
            weights.push(path);
        }
        if whole {
            weights.push(self.folder.last_weights());
        }
        let job = self.copy(whole, weights)?;
        let before = match &mut self.writer {
            Some(writer) => writer.write(job)?,
            None => None,
        };
        if let (true, Some(snapshots)) = (whole, &mut self.snapshots) {
            snapshots.not_now();
        }
        self.saving += start.elapsed();
        self.tell_saved(before);
        self.reporter.phase(Phase::Training);
        Ok(())
    }

    /// A copy of the state (`whole`), or of what weights are made of.
    pub(crate) fn copy(
        &mut self,
        whole: bool,
        weights: Vec<PathBuf>,
    ) -> Result<checkpoint::Job, Error> {
        self.state.ema_updates = self.learner.ema.updates();
        if let Some(scaler) = &self.learner.scaler {
            let (scale, proved) = scaler
                .state()
                .map_err(|source| self.tensor_failed(source))?;
            (self.state.scaler, self.state.scaler_proved) = (Some(scale), proved);
        }
        self.state.attempt = self.job.place.attempt;
        let mut job = checkpoint::Job {
            info: WeightsInfo::of(&self.state),
            state: self.state.clone(),
            model: Vec::new(),
            ema: self.learner.ema.state().export()?,
            optimizer: Vec::new(),
            checkpoint: whole,
            weights,
        };
        if whole {
            job.model = self.learner.network.state().export()?;
            job.optimizer = self.learner.optimizer.export()?;
        }
        Ok(job)
    }

    fn tell_saved(&mut self, saved: Option<Saved>) {
        if let Some(Saved { step, written }) = saved {
            self.beginning = None;
            let path = self.folder.relative(&written.path);
            self.reporter
                .saved(CheckpointRef { step, path }, written.checksum);
        }
    }

    /// Tells of a checkpoint that has become whole meanwhile; returns how long that took.
    fn collect_saved(&mut self) -> Result<std::time::Duration, Error> {
        let start = Instant::now();
        if let Some(writer) = &mut self.writer {
            let saved = writer.poll()?;
            self.tell_saved(saved);
        }
        Ok(start.elapsed() + std::mem::take(&mut self.saving))
    }

    /// Waits until what is being written is whole; the writer is gone then.
    pub(crate) fn wait_saved(&mut self) -> Result<(), Error> {
        if let Some(writer) = self.writer.take() {
            let saved = writer.finish()?;
            self.tell_saved(saved);
        }
        Ok(())
    }

    /// Ends in the middle, at a step that all ranks have agreed on.
    fn stop(mut self) -> Error {
        if let Err(error) = self.save(true, false).and_then(|()| self.wait_saved()) {
            return error;
        }
        let step = self.state.step;
        Error::Stopped {
            step,
            checkpoint: self.folder.relative(&self.store.path_of(step)),
        }
    }

    fn finish(mut self) -> Result<String, Error> {
        self.reporter.phase(Phase::Checkpointing);
        self.wait_saved()?;
        let ended = self.how_it_ended();
        if let Some(mut gallery) = self.gallery.take() {
            let (trend, problems) = gallery.finish(&self.state, &ended);
            if let Some(trend) = trend {
                self.reporter.say(&trend);
            }
            for problem in problems {
                self.reporter.warn(&problem);
            }
        }
        // Nobody leaves before rank 0 has written everything: its end would look like a failure.
        self.ranks.gather(&[]).map_err(|source| Error::Ranks {
            when: "the end",
            source,
        })?;
        Ok(ended)
    }

    fn how_it_ended(&self) -> String {
        let state = &self.state;
        let EarlyStopping {
            patience,
            best_epoch,
            stopped,
            ..
        } = state.early_stopping;
        if stopped {
            format!(
                "the run is complete: it ended early after epoch {} of {}, since epoch {} stayed the best for {patience} epochs (training.patience)",
                state.epoch,
                self.plan.epochs,
                best_epoch + 1
            )
        } else if state.spent >= 1.0 {
            let hours = self.spec().training.hours.unwrap_or_default();
            format!(
                "the run is complete: {} epochs in {hours} hours (training.hours)",
                state.epoch
            )
        } else if self.is_spent() {
            format!(
                "the run is complete: {} steps (training.iterations)",
                state.step
            )
        } else {
            format!("the run is complete: {} epochs", state.epoch)
        }
    }

    /// Compares the state of all ranks after a step of the optimiser, if that was asked for.
    fn verify_ranks(&mut self, gradients: Gradients) -> Result<(), Error> {
        if !self.verify || gradients == Gradients::Kept {
            return Ok(());
        }
        let own = self.learner.fingerprint();
        let own = own.map_err(|source| self.step_failed(source))?;
        let all = self.gather("a comparison of their states", own.as_bytes())?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::RanksDiffer {
                step: self.state.step,
                rank,
            }),
        }
    }

    fn tensor_failed(&self, source: tch::TchError) -> Error {
        Error::Step {
            step: self.state.step,
            source: source.into(),
        }
    }
}
