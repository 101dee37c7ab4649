//! The images a run works with, the same on all ranks.

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::spec::{TrainerSpec, Training};
use trainer_core::image_weights::{class_weights, image_weight};
use trainer_core::rect::{self, MIN_STRIDE, RectPlan, TRAINING_PAD};
use trainer_core::rng::recovery_seed;
use trainer_data::{
    Dataset, EvaluateSource, ImageRecord, SampleSource, Shape, SkippedImage, Split, TrainSource,
};

use super::image_cache::ImageCache;
use crate::checkpoint::RunState;
use crate::distributed::Ranks;
use crate::error::Error;
use crate::job::Job;
use crate::report::Reporter;

/// Both splits of the data set.
pub struct Data {
    pub train: Arc<Dataset>,
    pub val: Arc<Dataset>,
    pub digest: String,
}

impl Data {
    pub fn open(job: &Job, reporter: &mut Reporter) -> Result<Self, Error> {
        let spec = &job.config.spec;
        let open = |split| -> Result<_, Error> {
            let mut dataset = match &job.data_file {
                Some(file) => Dataset::open_with(&job.dataset, file, split)?,
                None => Dataset::open(&job.dataset, &spec.dataset.config, split)?,
            };
            if spec.training.single_class {
                dataset.merge_classes();
            }
            Ok(Arc::new(dataset))
        };
        let (train, val) = (open(Split::Train)?, open(Split::Val)?);
        for (split, dataset) in [(Split::Train, &train), (Split::Val, &val)] {
            reporter.say(&format!("{}: {}", split.as_str(), dataset.summary()));
            // Every rank finds the same; one tells.
            let told = if reporter.is_first() {
                dataset.skipped()
            } else {
                &[]
            };
            for skipped in told {
                reporter.warn(&format!("image skipped: {skipped}"));
            }
        }
        let digest = digest(&train);
        Ok(Self { train, val, digest })
    }

    fn describe(&self) -> String {
        format!(
            "{} training images and {} validation images, {}",
            self.train.len(),
            self.val.len(),
            &self.digest[..16]
        )
    }

    /// Makes sure that all ranks see the same images.
    pub fn agree(&self, ranks: &mut Ranks) -> Result<(), Error> {
        let here = self.describe();
        let all = ranks
            .gather(here.as_bytes())
            .map_err(|source| Error::Ranks {
                when: "the comparison of their data sets",
                source,
            })?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::OtherDataset {
                rank,
                here: String::from_utf8_lossy(&all[rank]).into_owned(),
                first: String::from_utf8_lossy(&all[0]).into_owned(),
            }),
        }
    }

    pub fn train_source(
        &self,
        spec: &TrainerSpec,
        state: &RunState,
        rectangles: Option<&RectPlan>,
        epochs: u32,
        cache: &ImageCache,
    ) -> Arc<dyn SampleSource> {
        let store = cache.train_store(self, spec.training.image_size);
        let seed = recovery_seed(spec.training.seed.into(), state.recovery);
        let source = TrainSource::new(store, seed, &spec.augmentation, epochs);
        Arc::new(match rectangles {
            None => source,
            Some(plan) => source.in_rectangles(plan.sizes.clone()),
        })
    }

    /// How images share rectangles whose sides are multiples of `multiple`, if the run trains in rectangles.
    pub fn rectangles(&self, spec: &TrainerSpec, multiple: u32) -> Option<RectPlan> {
        let Training {
            rect,
            image_size,
            batch_size,
            ..
        } = spec.training;
        let sizes = || self.train.images().iter().map(|image| image.size);
        let stride = multiple.max(MIN_STRIDE);
        rect.then(|| {
            let sizes: Vec<_> = sizes().collect();
            rect::plan(
                &sizes,
                image_size,
                batch_size as usize,
                stride,
                TRAINING_PAD,
            )
        })
    }

    /// The weight of each training image, when the classes have been found this well.
    pub fn image_weights(&self, class_aps: &[f64]) -> Vec<f64> {
        let mut counts = vec![0; self.train.classes()];
        let images = self.train.images();
        for label in images.iter().flat_map(|image| &image.labels) {
            if let Some(count) = counts.get_mut(usize::from(label.class)) {
                *count += 1;
            }
        }
        let weights = class_weights(&counts, class_aps);
        let classes = |image: &ImageRecord| {
            let classes = image.labels.iter().map(|label| label.class);
            image_weight(classes, &weights)
        };
        images.iter().map(classes).collect()
    }

    pub fn val_source(
        &self,
        spec: &TrainerSpec,
        shape: Shape,
        cache: &ImageCache,
    ) -> EvaluateSource {
        EvaluateSource::new(cache.val_store(self, spec.training.image_size), shape)
    }
}

/// BLAKE3 over names and sizes of the images, in hexadecimal.
pub(super) fn digest(dataset: &Dataset) -> String {
    let mut hasher = blake3::Hasher::new();
    for image in dataset.images() {
        hasher.update(image.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&image.size.0.to_le_bytes());
        hasher.update(&image.size.1.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Images that could not be decoded when their turn came.
pub struct Skipped {
    /// On any rank, each once; their texts.
    known: BTreeSet<String>,
    /// On this rank, since the ranks last told each other.
    new: Vec<String>,
    /// Those that were left out when the data set was opened.
    at_start: u64,
}

impl Skipped {
    pub fn new(data: &Data, state: &RunState) -> Self {
        Self {
            known: state.skipped.iter().cloned().collect(),
            new: Vec::new(),
            at_start: (data.train.skipped().len() + data.val.skipped().len()) as u64,
        }
    }

    pub fn note(&mut self, images: &[SkippedImage]) {
        for image in images {
            let text = image.to_string().replace('\n', " ");
            if !self.known.contains(&text) && !self.new.contains(&text) {
                self.new.push(text);
            }
        }
    }

    /// Lines about the images this rank met since it was last asked.
    pub fn take_new(&mut self) -> String {
        std::mem::take(&mut self.new).join("\n")
    }

    /// Takes up what a rank met; true if it is news.
    pub fn learn(&mut self, text: &str) -> bool {
        self.known.insert(text.to_owned())
    }

    /// On any rank, in order.
    pub fn texts(&self) -> Vec<String> {
        self.known.iter().cloned().collect()
    }

    /// Of the whole run, those left out at its start included.
    pub fn count(&self) -> u64 {
        self.at_start + self.known.len() as u64
    }
}
