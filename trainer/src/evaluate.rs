//! How good a network is on validation images, over all ranks.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use contract::progress::Losses;
use tch::{Device, Kind, Tensor};
use trainer_core::average_precision::{Evaluation, ap_per_class, merge};
use trainer_core::image_stats::{ImageStats, MatchRule};
use trainer_core::nms::NmsOptions;
use trainer_core::stats_bytes;
use trainer_data::{
    Batch, Dataset, EvaluateSource, ImageStore, Loader, LoaderConfig, SkippedImage, Sizing,
    Split, StepRequest,
};
use trainer_model::detect::detections;
use trainer_model::loss::{Loss, Target};
use trainer_model::network::{FusedNetwork, Network};

use crate::console::Bar;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::losses::{Parts, Sums};
use crate::weights;

/// Evaluates networks on one set of images.
pub struct Evaluator {
    source: Arc<EvaluateSource>,
    loader: LoaderConfig,
    batch: usize,
}

/// What came of it; the same on every rank, except for `skipped`.
#[derive(Debug)]
pub struct Outcome {
    /// Precision, recall, mAP.
    pub evaluation: Evaluation,
    /// Validation losses; none without a loss to compute.
    pub losses: Option<Losses>,
    /// Images that this rank could not decode.
    pub skipped: Vec<SkippedImage>,
}

impl Evaluator {
    /// Evaluates on `dataset` in squares of `image_size` pixels, `batch` images at a time.
    pub fn new(
        dataset: Arc<Dataset>,
        image_size: u32,
        cache_bytes: u64,
        loader: LoaderConfig,
        batch: usize,
    ) -> Self {
        let store = ImageStore::new(dataset, image_size, Sizing::Evaluate, cache_bytes);
        Self {
            source: Arc::new(EvaluateSource::new(store)),
            loader,
            batch: batch.max(1),
        }
    }

    /// The images.
    pub fn dataset(&self) -> &Dataset {
        self.source.store().dataset()
    }

    /// Evaluates `network`; batches are dealt over the ranks. `progress` hears of every batch.
    pub fn run(
        &self,
        network: &Network,
        loss: Option<&Loss>,
        ranks: &mut Ranks,
        progress: &mut dyn FnMut(),
    ) -> Result<Outcome, Error> {
        let network = network.fuse()?;
        let images = self.dataset().len() as u32;
        let indices: Vec<u32> = (0..images).collect();
        let (rank, world) = (ranks.rank() as usize, ranks.world() as usize);
        let requests: Vec<StepRequest> = indices
            .chunks(self.batch)
            .enumerate()
            .skip(rank)
            .step_by(world)
            .map(|(number, indices)| StepRequest {
                epoch: 0,
                step: number as u64,
                indices: indices.to_vec(),
            })
            .collect();
        let mut bar = Bar::new("evaluating", requests.len() as u64);
        let source = Arc::clone(&self.source);
        let loader = Loader::start(self.loader, source, requests.into_iter())?;
        let (mut stats, mut sums, mut skipped) = (Vec::new(), Sums::default(), Vec::new());
        for (done, batch) in (1..).zip(loader) {
            let batch = batch?;
            stats.extend(one_batch(&network, loss, &batch, &mut sums)?);
            skipped.extend(batch.skipped);
            bar.set(done, || "batches".to_owned());
            progress();
        }
        let losses = match loss {
            None => None,
            Some(loss) => {
                let sum = ranks.sum(&sums.to_vec())?;
                let total = Sums::from_slice(&ranks.finish(sum)?);
                let parts = Parts::new(loss, network.options())?.of(&total)?;
                Some(losses(parts))
            }
        };
        Ok(Outcome {
            evaluation: together(&stats, ranks)?,
            losses,
            skipped,
        })
    }
}

/// Box, objectness and class part with their sum.
pub fn losses([box_loss, obj, cls]: [f64; 3]) -> Losses {
    Losses {
        box_loss,
        obj,
        cls,
        total: box_loss + obj + cls,
    }
}

/// A batch's pixels as a tensor.
pub fn pixels(batch: &Batch) -> Result<Tensor, Error> {
    let side = i64::from(batch.image_size);
    let shape = [batch.indices.len() as i64, 3, side, side];
    Tensor::f_from_data_size(&batch.images, &shape, Kind::Uint8).map_err(|source| Error::Tensor {
        operation: "making a tensor of a batch's pixels",
        source,
    })
}

/// A batch's objects in the loss's words.
pub fn targets(batch: &Batch) -> Vec<Target> {
    let target = |target: &trainer_data::Target| Target {
        image: target.image,
        class: target.class,
        xywh: target.xywh,
    };
    batch.targets.iter().map(target).collect()
}

fn one_batch(
    network: &FusedNetwork,
    loss: Option<&Loss>,
    batch: &Batch,
    sums: &mut Sums,
) -> Result<Vec<ImageStats>, Error> {
    let input = network.input(&pixels(batch)?)?;
    let evaluated = network.evaluate(&input)?;
    if let Some(loss) = loss {
        let side = batch.image_size as usize;
        let assignment = loss.assign(&targets(batch), batch.indices.len(), side, side)?;
        sums.add(&Sums::of(&loss.terms(&evaluated.raw, &assignment)?)?);
    }
    let unreadable: BTreeSet<&str> = batch.skipped.iter().map(|image| image.name.as_str()).collect();
    let found = detections(&evaluated.decoded, &NmsOptions::VALIDATION)?;
    let images = batch.indices.iter().zip(found).zip(&batch.evaluated);
    Ok(images
        .filter(|(_, image)| !unreadable.contains(image.name.as_str()))
        .map(|((index, mut found), image)| {
            for detection in &mut found {
                detection.xyxy = image.letterbox.to_original(detection.xyxy);
            }
            ImageStats::new(*index, &found, &image.labels, MatchRule::default())
        })
        .collect())
}

/// The evaluation over all ranks' images.
fn together(stats: &[ImageStats], ranks: &mut Ranks) -> Result<Evaluation, Error> {
    let wrong = |error: Box<dyn std::error::Error + Send + Sync>| Error::Evaluation(error);
    let mut all = Vec::new();
    for bytes in ranks.gather(&stats_bytes::encode(stats))? {
        all.extend(stats_bytes::decode(&bytes).map_err(|error| wrong(error.into()))?);
    }
    let all = merge(all).map_err(|error| wrong(error.into()))?;
    Ok(ap_per_class(&all))
}

/// What the command `eval` prints.
#[derive(Debug)]
pub struct Report {
    /// The result.
    pub evaluation: Evaluation,
    /// Names of the classes.
    pub names: Vec<String>,
    /// Images evaluated.
    pub images: usize,
    /// Images that could not be decoded.
    pub skipped: Vec<SkippedImage>,
}

/// Evaluates a weights file on the validation images of the data set that `data` (a `data.yaml`)
/// describes.
pub fn command(weights: &Path, data: &Path, loader_threads: usize) -> Result<Report, Error> {
    const BATCH: usize = 16;
    let (network, info) = weights::load(weights, Device::Cpu)?;
    let root = data.parent().filter(|parent| !parent.as_os_str().is_empty());
    let config = data.file_name().unwrap_or_default().to_string_lossy();
    let dataset = Dataset::open(root.unwrap_or(Path::new(".")), &config, Split::Val)?;
    if dataset.classes() != info.nc {
        return Err(Error::Classes {
            weights: info.nc,
            dataset: dataset.classes(),
        });
    }
    let config = LoaderConfig {
        threads: loader_threads,
        prefetch_steps: 2,
    };
    let mut skipped = dataset.skipped().to_vec();
    let evaluator = Evaluator::new(Arc::new(dataset), info.image_size, 0, config, BATCH);
    let outcome = evaluator.run(&network, None, &mut Ranks::alone(), &mut || {})?;
    skipped.extend(outcome.skipped);
    Ok(Report {
        evaluation: outcome.evaluation,
        names: info.names,
        images: evaluator.dataset().len(),
        skipped,
    })
}

impl Report {
    /// The table that people read.
    pub fn table(&self) -> String {
        let all = &self.evaluation;
        let labels: u64 = all.classes.iter().map(|class| class.labels).sum();
        let header = ["class", "labels", "P", "R", "mAP50", "mAP50_95"];
        let mut rows = vec![header.map(ToOwned::to_owned)];
        let mut row = |name: &str, labels: u64, numbers: [f64; 4]| {
            let [p, r, map50, map] = numbers.map(|number| format!("{number:.4}"));
            rows.push([name.to_owned(), labels.to_string(), p, r, map50, map]);
        };
        row("all", labels, [all.precision, all.recall, all.map50, all.map50_95]);
        for class in &all.classes {
            let numbers = [class.precision, class.recall, class.ap50(), class.ap50_95()];
            row(self.name(class.class), class.labels, numbers);
        }
        let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
        let lines: Vec<String> = rows
            .iter()
            .map(|[name, labels, p, r, map50, map]| {
                format!("{name:<width$} {labels:>8} {p:>8} {r:>8} {map50:>8} {map:>9}")
            })
            .collect();
        lines.join("\n")
    }

    /// The same for programs.
    pub fn json(&self) -> serde_json::Value {
        let all = &self.evaluation;
        let classes: Vec<_> = all
            .classes
            .iter()
            .map(|class| {
                serde_json::json!({
                    "class": class.class,
                    "name": self.name(class.class),
                    "labels": class.labels,
                    "precision": class.precision,
                    "recall": class.recall,
                    "mAP50": class.ap50(),
                    "mAP50_95": class.ap50_95(),
                })
            })
            .collect();
        serde_json::json!({
            "images": self.images,
            "precision": all.precision,
            "recall": all.recall,
            "mAP50": all.map50,
            "mAP50_95": all.map50_95,
            "classes": classes,
            "skipped": self.skipped.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    fn name(&self, class: u16) -> &str {
        self.names.get(usize::from(class)).map_or("?", String::as_str)
    }
}
