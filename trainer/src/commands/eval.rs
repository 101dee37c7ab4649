//! `eval`: how good trained weights are on a data set.

mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::exit::FailureReason;
use contract::spec::Hyperparameters;
use trainer_core::confusion::ConfusionMatrix;
use trainer_core::detection::Detection;
use trainer_core::nms::NmsOptions;
use trainer_data::{Batch, Dataset, DatasetError, EvaluateSource, ImageStore, Shape, Sizing};
use trainer_model::loss::{Loss, LossSettings};
use trainer_report::ImageResult;
use trainer_report::coco::{self, CocoError, CocoSummary};

use super::local_threads;
use crate::cli::EvalArgs;
use crate::console::{self, Bar};
use crate::device::{self, DeviceError};
use crate::distributed::Ranks;
use crate::evaluate::{Audience, Classes, EvaluateError, Evaluator, Measured, Outcome};
use crate::finder::{Finder, FinderError};
use crate::output_folder::{self, JsonList, OutputError};
use crate::pictures::{self, PictureError, Sheets, Shown};
use crate::predict::{FileNames, rows};
use crate::weights::WeightsError;

/// What a folder of results is known by: it holds the numbers.
const SUMMARY: &str = "evaluation.json";

/// Why `eval` failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("cannot set libtorch up")]
    Libtorch(#[from] torch_bridge::Error),
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    #[error("{} is not a path of a data file", .0.display())]
    DataPath(PathBuf),
    #[error("the weights know {weights} classes, the data set has {dataset}")]
    Classes { weights: usize, dataset: usize },
    #[error(transparent)]
    Finder(#[from] FinderError),
    #[error("the evaluation failed")]
    Evaluate(#[from] EvaluateError),
    #[error(transparent)]
    Coco(#[from] CocoError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Pictures(#[from] PictureError),
}

impl EvalError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Dataset(error) => error.reason(),
            Self::DataPath(_) => FailureReason::InvalidDataset,
            Self::Libtorch(_)
            | Self::Evaluate(_)
            | Self::Finder(FinderError::Network(_))
            | Self::Coco(_) => FailureReason::Internal,
            Self::Weights(_) | Self::Finder(_) | Self::Device(_) | Self::Classes { .. } => {
                FailureReason::InvalidConfig
            }
            Self::Output(_) | Self::Pictures(_) => FailureReason::OutputUnwritable,
        }
    }
}

/// Everything that was measured, and on what.
struct Report {
    dataset: Arc<Dataset>,
    measured: Measured,
    shown: Shown,
    coco: Option<CocoSummary>,
}

/// Does what the arguments say; returns what to tell.
pub fn eval(args: &EvalArgs) -> Result<String, EvalError> {
    if let Some(file) = &args.save_json {
        output_folder::must_be_new(file)?;
    }
    let report = measure(args)?;
    for skipped in &report.measured.skipped {
        console::warn(&format!("image skipped: {skipped}"));
    }
    let document = tables::json(&report).to_string();
    for folder in args.save_txt.iter().chain(&args.plots) {
        output_folder::write(&folder.join(SUMMARY), document.as_bytes())?;
    }
    if let Some(folder) = &args.plots {
        let measured = &report.measured;
        let curves = (&measured.evaluation, measured.curves.as_slice());
        pictures::write(folder, curves, &report.shown, report.dataset.names())?;
        pictures::write_labels(folder, &report.dataset)?;
    }
    Ok(if args.json {
        document
    } else {
        tables::text(&report, args.verbose)
    })
}

fn measure(args: &EvalArgs) -> Result<Report, EvalError> {
    let threads = local_threads();
    threads.apply()?;
    let device = device::for_inference(args.networks.device.into())?;
    let (finder, info) = Finder::load(&args.networks, device)?;
    let dataset = Arc::new(open(args, info.nc)?);
    let size = args.networks.image_size.unwrap_or(info.image_size);
    finder.check_image_size(size)?;
    let texts = prepare(args, &dataset)?;
    let options = finder.network().options();
    let architecture = &options.architecture;
    let settings = LossSettings::scaled(&Hyperparameters::default(), architecture, size);
    let shape = if args.square {
        Shape::Square
    } else {
        Shape::rectangle(finder.multiple())
    };
    let store = ImageStore::new(Arc::clone(&dataset), size, Sizing::Evaluate, 0);
    let nms = NmsOptions {
        confidence: args.conf,
        iou: args.iou,
        max_detections: args.max_det as usize,
        ..NmsOptions::VALIDATION
    };
    let classes = if args.single_class {
        Classes::Single
    } else {
        Classes::Own
    };
    let evaluator = Evaluator::new(
        EvaluateSource::new(store, shape),
        Loss::new(options, settings),
        args.batch_size as usize,
        threads.loader,
    )
    .with(nms, classes);
    let mut collector = Collector::new(args, texts, &dataset, evaluator.batches());
    let outcome = evaluator.run(&finder, &mut Ranks::alone(), &mut collector)?;
    let Outcome::Whole(measured) = outcome else {
        unreachable!("nobody asked to stop")
    };
    let Collector {
        images,
        shown,
        failure,
        ..
    } = collector;
    failure?;
    let mut images = images;
    images.sort_by_key(|(index, _)| *index);
    let images: Vec<ImageResult> = images.into_iter().map(|(_, image)| image).collect();
    if let Some(file) = &args.save_json {
        save_json(file, &images, dataset.category_ids())?;
    }
    let coco = if args.coco {
        Some(coco::summarise(&images, dataset.names())?)
    } else {
        None
    };
    Ok(Report {
        dataset,
        measured,
        shown,
        coco,
    })
}

/// Makes the folders that the arguments name, before anything is computed.
fn prepare<'a>(args: &'a EvalArgs, dataset: &Dataset) -> Result<Option<Texts<'a>>, OutputError> {
    let texts = args.save_txt.as_deref().map(|folder| Texts {
        folder,
        names: names(dataset),
    });
    if let Some(Texts { folder, names }) = &texts {
        output_folder::must_hold_no_other_labels(folder, names)?;
    }
    for folder in args.save_txt.iter().chain(&args.plots) {
        output_folder::prepare(folder, SUMMARY)?;
    }
    Ok(texts)
}

/// Writes one row per detection. Rows take many times the memory of what they are made of, so there is one at a time.
fn save_json(file: &Path, images: &[ImageResult], categories: &[u64]) -> Result<(), OutputError> {
    let mut rows = JsonList::create(file, "")?;
    for image in images {
        for row in coco::results(&image.name, image.id, categories, &image.detections) {
            rows.add(&row)?;
        }
    }
    rows.finish("")
}

/// The images to measure on; `known` is the number of classes the weights know.
fn open(args: &EvalArgs, known: usize) -> Result<Dataset, EvalError> {
    let bad_path = || EvalError::DataPath(args.data.clone());
    let config = args.data.file_name().and_then(|name| name.to_str());
    let root = match args.data.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(bad_path()),
    };
    let mut dataset = Dataset::open(root, config.ok_or_else(bad_path)?, args.task.into())?;
    let is_one_class = args.single_class && known == 1;
    if dataset.classes() != known && !is_one_class {
        return Err(EvalError::Classes {
            weights: known,
            dataset: dataset.classes(),
        });
    }
    if args.single_class {
        dataset.merge_classes();
    }
    Ok(dataset)
}

/// The folder of the label files, and what that of each image is called.
struct Texts<'a> {
    folder: &'a Path,
    names: Vec<String>,
}

/// A name for each image, in the order of the data set: that of the evaluation depends on shapes and weights.
fn names(dataset: &Dataset) -> Vec<String> {
    let mut names = FileNames::default();
    let records = dataset.images().iter();
    records
        .map(|record| names.unique(Path::new(&record.name)))
        .collect()
}

/// Keeps what the arguments ask for of each image.
struct Collector<'a> {
    dataset: &'a Dataset,
    bar: Bar,
    keeps_images: bool,
    /// With their numbers in the data set.
    images: Vec<(u32, ImageResult)>,
    shown: Shown,
    texts: Option<Texts<'a>>,
    /// The first thing that could not be written.
    failure: Result<(), OutputError>,
}

impl<'a> Collector<'a> {
    fn new(args: &EvalArgs, texts: Option<Texts<'a>>, dataset: &'a Dataset, batches: u64) -> Self {
        Self {
            dataset,
            bar: Bar::new("evaluation", batches),
            keeps_images: args.coco || args.save_json.is_some(),
            images: Vec::new(),
            shown: Shown {
                confusion: ConfusionMatrix::new(dataset.classes() as u16),
                sheets: Sheets::default(),
            },
            texts,
            failure: Ok(()),
        }
    }
}

impl Audience for Collector<'_> {
    fn batch_done(&mut self, done: u64) {
        self.shown.sheets.batch_done();
        self.bar.set(done, String::new);
    }

    fn image(&mut self, batch: &Batch, k: usize, detections: &[Detection]) {
        let evaluated = &batch.evaluated[k];
        self.shown.confusion.add(detections, &evaluated.labels);
        self.shown.sheets.add(batch, k, detections);
        let record = self.dataset.image(batch.indices[k]);
        let size = record.map_or((1, 1), |record| record.size);
        if let (Some(texts), Ok(())) = (&self.texts, &self.failure) {
            let name = &texts.names[batch.indices[k] as usize];
            let text = rows(detections, size);
            let file = texts.folder.join(format!("{name}.txt"));
            self.failure = output_folder::write(&file, text.as_bytes());
        }
        if self.keeps_images {
            let result = ImageResult {
                name: evaluated.name.clone(),
                id: record.and_then(|record| record.coco_id),
                size,
                detections: detections.to_vec(),
                labels: evaluated.labels.clone(),
            };
            self.images.push((batch.indices[k], result));
        }
    }
}
