//! Tells people and the agent how the run stands.

use std::time::{Duration, Instant};

use contract::metric_names::{
    ALL_REDUCE_BYTES_PER_SECOND, EVAL_MAP50, EVAL_MAP50_95, EVAL_PRECISION, EVAL_RECALL, Metric,
    TRAIN_EPOCH, TRAIN_IMAGES_SKIPPED_TOTAL, TRAIN_IMAGES_TOTAL, TRAIN_LEARNING_RATE, TRAIN_LOSS,
    TRAIN_STEP, TRAIN_STEP_SECONDS, TRAIN_WAIT_SECONDS,
};
use contract::progress::{CheckpointRef, EpochMetrics, Losses, Phase, RunReport};
use contract::protocol::{RankResult, Sample};
use trainer_core::progress::Progress;
use trainer_core::schedule::StepPlan;

use crate::agent_link::{AgentLink, Urgency};
use crate::checkpoint::RunState;
use crate::console::{self, Bar};

/// Steps over which the throughput is averaged.
const WINDOW: usize = 50;
/// Warnings that a report carries; the console has them all.
const MAX_WARNINGS: usize = 20;

/// What is fixed for the whole run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Epochs of the run.
    pub epochs: u32,
    /// Training steps of one epoch.
    pub steps_per_epoch: u64,
    /// By how many more steps the run has come where it stands than it would have with this batch size.
    pub other_steps: i64,
    /// Steps after which the run ends, if that is before the last epoch's end.
    pub iterations: Option<u64>,
    /// Training images.
    pub images: u64,
    /// Images of the whole run, each as often as it is trained with.
    pub run_images: u64,
    /// Evaluate after every so many epochs.
    pub evaluate_every: u32,
}

impl Plan {
    /// Whether `epoch` (from 1) ends with an evaluation.
    pub fn evaluates_after(&self, epoch: u32) -> bool {
        epoch.is_multiple_of(self.evaluate_every) || epoch == self.epochs
    }

    /// Training steps of the run.
    fn steps(&self) -> u64 {
        let steps =
            (u64::from(self.epochs) * self.steps_per_epoch).saturating_add_signed(self.other_steps);
        self.iterations.map_or(steps, |most| most.min(steps))
    }

    /// Evaluations to come, when `epoch` epochs are complete.
    fn evaluations_after(&self, epoch: u32) -> u32 {
        let up_to = |epoch: u32| epoch / self.evaluate_every;
        let last_is_extra = u32::from(!self.epochs.is_multiple_of(self.evaluate_every));
        if epoch >= self.epochs {
            return 0;
        }
        up_to(self.epochs) - up_to(epoch) + last_is_extra
    }
}

/// How long one step took, and for what it waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The whole step.
    pub step: Duration,
    /// For images.
    pub data: Duration,
    /// For other ranks, as far as it shows outside the backward pass.
    pub collective: Duration,
    /// For a checkpoint to be taken.
    pub checkpoint: Duration,
}

/// The voice of one rank.
#[derive(Debug)]
pub struct Reporter {
    link: Option<AgentLink>,
    speaks: bool,
    plan: Plan,
    report: RunReport,
    throughput: Progress,
    /// Time in steps only, so that evaluations do not count against the throughput.
    stepping: Duration,
    evaluation_seconds: Option<f64>,
    epoch_start: Instant,
    bar: Option<Bar>,
}

impl Reporter {
    /// A voice that has said nothing yet. Only the first rank speaks of the model.
    pub fn new(link: Option<AgentLink>, is_first: bool) -> Self {
        let plan = Plan {
            epochs: 0,
            steps_per_epoch: 0,
            other_steps: 0,
            iterations: None,
            images: 0,
            run_images: 0,
            evaluate_every: 1,
        };
        Self {
            link,
            speaks: is_first,
            plan,
            report: RunReport::default(),
            throughput: Progress::new(0, WINDOW),
            stepping: Duration::ZERO,
            evaluation_seconds: None,
            epoch_start: Instant::now(),
            bar: None,
        }
    }

    /// From now on the agent listens too.
    pub fn link(&mut self, link: AgentLink) {
        self.link = Some(link);
    }

    /// What the rank does from now on.
    pub fn phase(&mut self, phase: Phase) {
        self.report.phase = phase;
        self.send(Urgency::Now);
    }

    /// Says how fast the ranks exchange gradients.
    pub fn all_reduce(&mut self, bytes_per_second: f64) {
        self.report.all_reduce_bytes_per_second = Some(bytes_per_second);
        if self.speaks {
            self.metrics(vec![gauge(&ALL_REDUCE_BYTES_PER_SECOND, bytes_per_second)]);
            let rate = bytes_per_second / 1e6;
            console::say(&format!(
                "the ranks exchange {rate:.0} MB/s (an all-reduce of 4 MiB)"
            ));
        }
    }

    /// Says that a run is about to go on from `state`.
    pub fn begin(&mut self, plan: Plan, state: &RunState) {
        self.plan = plan;
        self.throughput = Progress::new(plan.run_images, WINDOW);
        self.report.progress.epochs = plan.epochs;
        self.report.progress.steps = plan.steps();
        self.report.latest.clone_from(&state.latest);
        self.report.best.clone_from(&state.best);
        self.record(state);
        if self.speaks {
            let mut samples = vec![
                gauge(&TRAIN_STEP, state.step as f64),
                gauge(&TRAIN_EPOCH, f64::from(self.report.progress.epoch)),
                gauge(&TRAIN_IMAGES_TOTAL, state.images_seen as f64),
            ];
            samples.extend(state.latest.iter().flat_map(measured));
            self.metrics(samples);
        }
        self.epoch_start = Instant::now();
        self.phase(Phase::Training);
    }

    /// Says that a training step was done.
    pub fn step(&mut self, state: &RunState, plan: &StepPlan, timing: Timing) {
        self.stepping += timing.step;
        self.report.phase = Phase::Training;
        self.record(state);
        let wait = |on: &str, duration: Duration| {
            labelled(&TRAIN_WAIT_SECONDS, &[("on", on)], duration.as_secs_f64())
        };
        let mut samples = vec![
            gauge(&TRAIN_STEP_SECONDS, timing.step.as_secs_f64()),
            wait("data", timing.data),
            wait("collective", timing.collective),
            wait("checkpoint", timing.checkpoint),
        ];
        if self.speaks {
            self.report.latest = Some(self.latest(state));
            samples.extend(Self::model_samples(state, plan));
        }
        self.metrics(samples);
        self.send(Urgency::Soon);
        self.draw(state);
    }

    /// Says that an epoch ended; `metrics` has what an evaluation gave, if there was one.
    pub fn epoch(&mut self, metrics: &EpochMetrics, best: Option<&EpochMetrics>, took: EpochTimes) {
        self.bar = None;
        if took.evaluation.is_some() {
            self.evaluation_seconds = took.evaluation;
        }
        self.report.latest = Some(metrics.clone());
        self.report.best = best.cloned();
        self.report.phase = Phase::Training;
        if self.speaks {
            self.metrics(measured(metrics));
            console::say(&self.epoch_line(metrics, took));
        }
        self.epoch_start = Instant::now();
        self.send(Urgency::Now);
    }

    /// Seconds since the present epoch began in this process.
    pub fn epoch_seconds(&self) -> f64 {
        self.epoch_start.elapsed().as_secs_f64()
    }

    /// The run goes on from this checkpoint of its own, if any: it is the last good one until another is written.
    pub fn goes_on_from(&mut self, checkpoint: Option<CheckpointRef>) {
        self.report.checkpoint = checkpoint.or(self.report.checkpoint.take());
    }

    /// Says that a checkpoint is whole.
    pub fn saved(&mut self, checkpoint: CheckpointRef, checksum: String) {
        if let Some(link) = &self.link {
            link.snapshot(checkpoint.step, checkpoint.path.clone(), checksum);
        }
        self.report.checkpoint = Some(checkpoint);
        self.send(Urgency::Now);
    }

    /// Names the weights of the best epoch.
    pub fn best_weights(&mut self, path: String) {
        self.report.best_weights = Some(path);
    }

    /// Says how many images could not be decoded so far.
    pub fn skipped_images(&mut self, count: u64) {
        self.report.skipped_images = count;
        if self.speaks {
            self.metrics(vec![gauge(&TRAIN_IMAGES_SKIPPED_TOTAL, count as f64)]);
        }
    }

    /// Whether this is the voice of rank 0.
    pub fn is_first(&self) -> bool {
        self.speaks
    }

    /// Says something about the run.
    pub fn say(&self, text: &str) {
        if self.speaks {
            console::say(text);
        }
    }

    /// Says what a user should know although the run goes on.
    pub fn warn(&mut self, text: &str) {
        console::warn(text);
        let warnings = &mut self.report.warnings;
        if warnings.len() < MAX_WARNINGS {
            warnings.push(text.to_owned());
        } else if warnings.len() == MAX_WARNINGS {
            warnings.push("more warnings are in the log".to_owned());
        }
    }

    /// Says the last words.
    pub fn finish(mut self, result: RankResult) {
        self.bar = None;
        if result.reason.is_none() {
            self.report.phase = Phase::Finished;
            // Also of a run that ended early.
            self.report.progress.percent = 100.0;
            self.report.progress.eta_seconds = None;
        }
        self.send(Urgency::Now);
        if let Some(link) = self.link.take() {
            link.finish(result);
        }
    }

    fn record(&mut self, state: &RunState) {
        let images = u64::from(state.epoch) * self.plan.images + state.position;
        self.throughput.record(self.stepping, images);
        let evaluations = f64::from(self.plan.evaluations_after(state.epoch));
        let evaluating = self
            .evaluation_seconds
            .map_or(0.0, |each| each * evaluations);
        let progress = &mut self.report.progress;
        progress.epoch = if state.step == 0 {
            0
        } else {
            (state.epoch + 1).min(self.plan.epochs)
        };
        progress.step = state.step;
        progress.images_per_second = self.throughput.throughput();
        progress.training_seconds = state.training_seconds;
        let eta = self.throughput.eta();
        let eta = eta.map(|eta| eta.as_secs_f64() + evaluating);
        let (percent, eta) = within_hours(state, self.throughput.percent(), eta);
        progress.percent = percent;
        progress.eta_seconds = eta.map(|seconds| seconds.round() as u64);
        progress.first_step_time.clone_from(&state.first_step_time);
    }

    /// The present epoch's losses so far, with the latest metrics there are.
    fn latest(&self, state: &RunState) -> EpochMetrics {
        let before = self.report.latest.clone().unwrap_or_default();
        EpochMetrics {
            epoch: state.epoch + 1,
            train_loss: state.epoch_sums.means().or(before.train_loss),
            ..before
        }
    }

    fn model_samples(state: &RunState, plan: &StepPlan) -> Vec<Sample> {
        let rate = |group, value| labelled(&TRAIN_LEARNING_RATE, &[("group", group)], value);
        let mut samples = vec![
            gauge(&TRAIN_STEP, state.step as f64),
            gauge(&TRAIN_EPOCH, f64::from(state.epoch + 1)),
            gauge(&TRAIN_IMAGES_TOTAL, state.images_seen as f64),
            rate("bias", plan.lr_bias),
            rate("weight", plan.lr_other),
            rate("norm", plan.lr_other),
        ];
        samples.extend(
            state
                .epoch_sums
                .means()
                .iter()
                .flat_map(|means| losses(means, "train")),
        );
        samples
    }

    fn draw(&mut self, state: &RunState) {
        if !self.speaks {
            return;
        }
        let Plan { epochs, images, .. } = self.plan;
        let bar = self
            .bar
            .get_or_insert_with(|| Bar::new(format!("epoch {}/{epochs}", state.epoch + 1), images));
        let progress = &self.report.progress;
        bar.set(state.position, || {
            let mut text = String::new();
            if let Some(means) = state.epoch_sums.means() {
                text += &loss_text(&means);
            }
            if let Some(speed) = progress.images_per_second {
                text += &format!("  {speed:.1} images/s");
            }
            if let Some(eta) = progress.eta_seconds {
                text += &format!("  {} left", duration_text(eta));
            }
            text
        });
    }

    fn epoch_line(&self, metrics: &EpochMetrics, took: EpochTimes) -> String {
        let mut text = format!("epoch {}/{}", metrics.epoch, self.plan.epochs);
        if let Some(means) = &metrics.train_loss {
            text += &format!("  {}", loss_text(means));
        }
        let measured = [
            ("P", metrics.precision),
            ("R", metrics.recall),
            ("mAP50", metrics.map50),
            ("mAP50_95", metrics.map50_95),
        ];
        for (name, value) in measured {
            if let (Some(value), Some(_)) = (value, took.evaluation) {
                text += &format!("  {name} {value:.4}");
            }
        }
        if let Some(speed) = self.report.progress.images_per_second {
            text += &format!("  {speed:.1} images/s");
        }
        text += &format!("  {:.1} s", took.training);
        if let Some(seconds) = took.evaluation {
            text += &format!(" + {seconds:.1} s evaluation");
        }
        text
    }

    fn metrics(&self, samples: Vec<Sample>) {
        if let Some(link) = &self.link {
            link.metrics(samples);
        }
    }

    fn send(&self, urgency: Urgency) {
        if let Some(link) = &self.link {
            link.beat(self.report.progress.step, self.report.phase);
            let mut report = self.report.clone();
            if !self.speaks {
                report.latest = None;
                report.best = None;
            }
            link.report(report, urgency);
        }
    }
}

/// How long the parts of an epoch took, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct EpochTimes {
    /// Its training steps in this process.
    pub training: f64,
    /// Its evaluation, if there was one.
    pub evaluation: Option<f64>,
}

/// Percentage and seconds left of a run that ends with its epochs or with its time, whichever comes first.
fn within_hours(state: &RunState, percent: f64, eta: Option<f64>) -> (f64, Option<f64>) {
    let Some(hours) = state.spec.training.hours else {
        return (percent, eta);
    };
    let left = (3600.0 * hours - state.training_seconds).max(0.0);
    let spent = (100.0 * state.spent).min(100.0);
    (
        percent.max(spent),
        Some(eta.map_or(left, |eta| eta.min(left))),
    )
}

fn gauge(metric: &Metric, value: f64) -> Sample {
    labelled(metric, &[], value)
}

fn labelled(metric: &Metric, labels: &[(&str, &str)], value: f64) -> Sample {
    Sample {
        metric: metric.name.to_owned(),
        labels: labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        value,
    }
}

fn losses(means: &Losses, split: &str) -> Vec<Sample> {
    let parts = [
        ("box", means.box_loss),
        ("obj", means.obj),
        ("cls", means.cls),
        ("total", means.total),
    ];
    parts
        .iter()
        .map(|(part, value)| labelled(&TRAIN_LOSS, &[("part", part), ("split", split)], *value))
        .collect()
}

/// The series that an epoch's metrics set.
fn measured(metrics: &EpochMetrics) -> Vec<Sample> {
    let series = [
        (&EVAL_PRECISION, metrics.precision),
        (&EVAL_RECALL, metrics.recall),
        (&EVAL_MAP50, metrics.map50),
        (&EVAL_MAP50_95, metrics.map50_95),
    ];
    let mut samples: Vec<Sample> = series
        .into_iter()
        .filter_map(|(metric, value)| Some(gauge(metric, value?)))
        .collect();
    samples.extend(
        metrics
            .train_loss
            .iter()
            .flat_map(|means| losses(means, "train")),
    );
    samples.extend(
        metrics
            .val_loss
            .iter()
            .flat_map(|means| losses(means, "val")),
    );
    samples
}

fn loss_text(means: &Losses) -> String {
    format!(
        "box {:.4} obj {:.4} cls {:.4}",
        means.box_loss, means.obj, means.cls
    )
}

fn duration_text(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours} h {minutes:02} min")
    } else if minutes > 0 {
        format!("{minutes} min {seconds:02} s")
    } else {
        format!("{seconds} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_to_come_include_the_one_after_the_last_epoch() {
        let plan = |epochs, evaluate_every| Plan {
            iterations: None,
            epochs,
            steps_per_epoch: 1,
            other_steps: 0,
            images: 1,
            run_images: epochs.into(),
            evaluate_every,
        };
        for (epochs, every) in [(10, 1), (10, 3), (10, 5), (3, 7)] {
            let plan = plan(epochs, every);
            for done in 0..=epochs {
                let counted = (done + 1..=epochs)
                    .filter(|e| plan.evaluates_after(*e))
                    .count();
                assert_eq!(
                    counted as u32,
                    plan.evaluations_after(done),
                    "{epochs} {every} {done}"
                );
            }
        }
    }

    #[test]
    fn durations_are_short() {
        assert_eq!("7 s", duration_text(7));
        assert_eq!("2 min 05 s", duration_text(125));
        assert_eq!("3 h 00 min", duration_text(3 * 3600 + 59));
    }
}
