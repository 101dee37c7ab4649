//! What a run leaves for people in its folder: pictures, TensorBoard's events, one page. Rank 0 only.
//!
//! None of it is worth ending a run for: what cannot be written is warned of.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use contract::progress::EpochMetrics;
use contract::spec::Output;
use image::ImageFormat;
use trainer_core::average_precision::{ClassCurves, Evaluation};
use trainer_core::overfitting::LossTrend;
use trainer_data::{Batch, Dataset, write_png};
use trainer_report::html::{Figure, Page, page};
use trainer_report::results::Results;
use trainer_report::tensorboard::Events;

use crate::checkpoint::RunState;
use crate::distributed::Ranks;
use crate::durable;
use crate::evaluate::Measured;
use crate::pictures::{self, PictureError, SHEETS, Shown};
use crate::results;
use crate::run_folder::RunFolder;

/// Pictures of the page with what they show: charts as they are, photos made smaller.
const FIGURES: [(&str, &str); 8] = [
    ("results.png", "Losses and metrics over the epochs"),
    ("PR_curve.png", "Precision and recall"),
    ("F1_curve.png", "F1 over the confidence"),
    ("confusion_matrix.png", "Which classes are taken for which"),
    ("labels.png", "The labels of the training images"),
    (
        "train_batch0.png",
        "Training images with their labels, as the network sees them",
    ),
    (
        "val_batch0_labels.png",
        "Validation images with their labels",
    ),
    (
        "val_batch0_pred.png",
        "Validation images with what was found",
    ),
];
/// Pictures that hold photos.
const PHOTOS: &str = "_batch";

type Job = JoinHandle<Result<(), PictureError>>;

/// Everything of a run that is for people.
pub struct Gallery {
    root: PathBuf,
    output: Output,
    dataset: Arc<Dataset>,
    events: Option<Events>,
    jobs: Vec<Job>,
    kept: Option<Kept>,
}

/// The evaluation that the pictures show.
struct Kept {
    epoch: u32,
    is_best: bool,
    evaluation: Evaluation,
    curves: Vec<ClassCurves>,
    shown: Shown,
}

impl Gallery {
    /// On the first rank, nothing yet. `dataset` are the training images.
    pub fn of_first(
        ranks: &Ranks,
        folder: &RunFolder,
        output: &Output,
        dataset: &Arc<Dataset>,
    ) -> Option<Self> {
        ranks.is_first().then(|| Self {
            root: folder.root().to_owned(),
            output: output.clone(),
            dataset: Arc::clone(dataset),
            events: None,
            jobs: Vec::new(),
            kept: None,
        })
    }

    /// A training batch is about to be learnt from, after `step` others.
    pub fn batch(&mut self, step: u64, batch: &Batch) {
        if !self.output.plots || step >= SHEETS as u64 {
            return;
        }
        let (root, dataset) = (self.root.clone(), Arc::clone(&self.dataset));
        if step == 0 {
            let (root, dataset) = (root.clone(), Arc::clone(&dataset));
            let job = move || pictures::write_labels(&root, &dataset);
            self.jobs.push(std::thread::spawn(job));
        }
        let sheet = pictures::training_sheet(batch, dataset.names());
        let job = move || {
            Ok(write_png(
                &sheet,
                &root.join(format!("train_batch{step}.png")),
            )?)
        };
        self.jobs.push(std::thread::spawn(job));
    }

    /// An epoch ended; returns what could not be written.
    pub fn epoch(&mut self, metrics: &EpochMetrics, learning_rates: [f64; 3]) -> Option<String> {
        if !self.output.tensorboard {
            return None;
        }
        let now = jiff::Timestamp::now().as_duration().as_secs_f64();
        if self.events.is_none() {
            let host = crate::hostname();
            let made = Events::create(&self.root, now, &host, std::process::id());
            match made {
                Ok(events) => self.events = Some(events),
                Err(error) => return Some(missing("TensorBoard's events", &error)),
            }
        }
        let step = i64::from(metrics.epoch) - 1;
        let values = results::named(metrics, learning_rates);
        let events = self.events.as_mut()?;
        let written = events.scalars(now, step, values.into_iter());
        written
            .err()
            .map(|error| missing("TensorBoard's events", &error))
    }

    /// An epoch was evaluated; the best is remembered for the pictures.
    pub fn evaluated(&mut self, epoch: u32, measured: &Measured, shown: Shown, is_best: bool) {
        if is_best || self.kept.as_ref().is_none_or(|kept| !kept.is_best) {
            self.kept = Some(Kept {
                epoch,
                is_best,
                evaluation: measured.evaluation.clone(),
                curves: measured.curves.clone(),
                shown,
            });
        }
    }

    /// The run is complete and `ended` says how: writes pictures and page. Returns what people should know, and what
    /// could not be written.
    pub fn finish(&mut self, state: &RunState, ended: &str) -> (Option<String>, Vec<String>) {
        let text = std::fs::read_to_string(self.root.join("results.csv")).unwrap_or_default();
        let results = Results::parse(&text);
        let trend = trend(&results).map(|trend| trend.to_string());
        if !self.output.plots {
            return (trend, Vec::new());
        }
        let mut problems: Vec<String> = self.jobs.drain(..).filter_map(problem_of).collect();
        if let Err(error) = self.write_pictures(&results) {
            problems.push(missing("the pictures", &error));
        }
        let path = self.root.join("report.html");
        // A start that finds the run complete has measured nothing, and leaves what the one that did wrote.
        if self.kept.is_none() && path.exists() {
            return (trend, problems);
        }
        let summary = [Some(ended.to_owned()), trend.clone()];
        let settings = serde_json::to_string_pretty(&state.spec).unwrap_or_default();
        let document = page(&Page {
            title: &self.root.file_name().unwrap_or_default().to_string_lossy(),
            summary: summary.into_iter().flatten().collect(),
            facts: facts(state, &self.dataset),
            settings: &settings,
            results: &results,
            evaluation: self
                .kept
                .as_ref()
                .map(|kept| (kept.epoch, &kept.evaluation)),
            names: self.dataset.names(),
            figures: FIGURES
                .iter()
                .filter_map(|(file, caption)| figure(&self.root, file, caption))
                .collect(),
        });
        if let Err(error) = durable::write(&path, document.as_bytes()) {
            problems.push(missing("report.html", &error));
        }
        (trend, problems)
    }

    fn write_pictures(&self, results: &Results) -> Result<(), PictureError> {
        write_png(&results.picture()?, &self.root.join("results.png"))?;
        match &self.kept {
            None => Ok(()),
            Some(kept) => {
                let measured = (&kept.evaluation, kept.curves.as_slice());
                pictures::write(&self.root, measured, &kept.shown, self.dataset.names())
            }
        }
    }
}

fn problem_of(job: Job) -> Option<String> {
    match job.join() {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(missing("a picture", &error)),
        Err(_) => Some("a picture is missing: its thread panicked".to_owned()),
    }
}

fn missing(what: &str, why: &dyn Display) -> String {
    format!("{what} cannot be written: {why}")
}

/// How the losses move apart, over the epochs that were evaluated: others repeat the numbers before them.
fn trend(results: &Results) -> Option<LossTrend> {
    let total = |split: &str| -> Vec<(f64, f64)> {
        let part = |part: &str| results.column(&format!("{split}/{part}_loss"));
        let parts = part("box").into_iter().zip(part("obj")).zip(part("cls"));
        parts.map(|((a, b), c)| (a.0, a.1 + b.1 + c.1)).collect()
    };
    let mut epochs: Vec<(f64, f64, f64)> = Vec::new();
    for ((epoch, training), (_, validation)) in total("train").into_iter().zip(total("val")) {
        let repeated = epochs.last().is_some_and(|last| last.2 == validation);
        if validation > 0.0 && !repeated {
            epochs.push((epoch, training, validation));
        }
    }
    LossTrend::of(&epochs)
}

fn facts(state: &RunState, dataset: &Dataset) -> Vec<(&'static str, String)> {
    let machine = &state.machine;
    let hours = state.training_seconds / 3600.0;
    vec![
        ("model", state.spec.model.name().to_owned()),
        ("training images", dataset.summary().to_string()),
        ("classes", dataset.classes().to_string()),
        (
            "machine",
            format!(
                "{} processes x {} threads on {}",
                machine.world_size, machine.compute_threads, machine.device
            ),
        ),
        ("libtorch", machine.libtorch.clone()),
        ("program", env!("CARGO_PKG_VERSION").to_owned()),
        (
            "steps",
            format!("{} ({} images)", state.step, state.images_seen),
        ),
        ("time", format!("{hours:.2} h training and evaluating")),
        ("restarts", state.attempt.restart.to_string()),
    ]
}

/// A picture of the folder, if it is there.
fn figure(root: &Path, file: &str, caption: &str) -> Option<Figure> {
    let bytes = std::fs::read(root.join(file)).ok()?;
    let (kind, bytes) = if file.contains(PHOTOS) {
        let mut small = std::io::Cursor::new(Vec::new());
        let picture = image::load_from_memory(&bytes).ok()?;
        picture.write_to(&mut small, ImageFormat::Jpeg).ok()?;
        ("image/jpeg", small.into_inner())
    } else {
        ("image/png", bytes)
    };
    Some(Figure {
        caption: caption.to_owned(),
        kind,
        bytes,
    })
}
