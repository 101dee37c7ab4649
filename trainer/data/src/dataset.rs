//! A data set: which images it has and what they show, by label files in YOLO's text format, Pascal VOC's
//! XML or COCO's JSON.
//!
//! Opening reads the description, lists the images, reads their headers and parses every label file,
//! so that whatever is wrong is said before training starts and all at once. Nothing is written: no
//! cache beside the labels, no repaired images.

mod coco;
mod config;
mod error;
mod header;
mod labelling;
mod listing;
mod reading;
mod scan;
mod voc;

pub use error::{DatasetError, LabelProblems};
pub use labelling::label_path;

use config::Description;
use labelling::Labelling;
use std::fmt;
use std::path::{Path, PathBuf};
use trainer_core::detection::LabelledBox;
use trainer_core::labels::Label;
use trainer_core::letterbox::resize_to_long_side;

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The images to learn from.
    Train,
    /// The images to measure on.
    Val,
    /// Images to measure on in the end, which no choice of training depended on.
    Test,
}

impl Split {
    /// The key in the data file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// One image with its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRecord {
    /// The file.
    pub path: PathBuf,
    /// The file's path inside the data source, for messages.
    pub name: String,
    /// Width and height in pixels as people see the image, that is after its EXIF orientation.
    pub size: (u32, u32),
    /// The number that a COCO annotation file gives it; none with other labels.
    pub coco_id: Option<u64>,
    /// The objects on it; empty for background.
    pub labels: Vec<Label>,
    /// If the label file holds polygons: the points of each label as fractions, else empty.
    pub segments: Vec<Vec<[f32; 2]>>,
}

impl ImageRecord {
    /// The labels in pixels of the original image, cut off at its edges as detections are: what an evaluation
    /// compares. Training cuts once its samples are made.
    pub fn labelled_boxes(&self) -> Vec<LabelledBox> {
        let (width, height) = (self.size.0 as f32, self.size.1 as f32);
        self.labels
            .iter()
            .map(|label| LabelledBox {
                xyxy: label
                    .xywh
                    .scale(width, height)
                    .to_xyxy()
                    .clip(width, height),
                class: label.class,
            })
            .collect()
    }
}

/// An image that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedImage {
    /// The file's path inside the data source.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for SkippedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// What a data set holds, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Usable images.
    pub images: usize,
    /// Usable images without labels.
    pub background: usize,
    /// Labels on all images.
    pub objects: usize,
    /// Images left out.
    pub skipped: usize,
    /// Labels left out because they repeat another one of their image.
    pub duplicates: usize,
    /// Annotations left out because they are not for training: VOC's difficult objects, COCO's crowds and
    /// boxes without a size.
    pub ignored: usize,
    /// How often lists and folders name an image again: each is taken once.
    pub repeated: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} images ({} without labels), {} objects, {} images skipped, {} repeated labels ignored",
            self.images, self.background, self.objects, self.skipped, self.duplicates
        )?;
        if self.ignored > 0 {
            write!(
                f,
                ", {} difficult, crowd or empty annotations ignored",
                self.ignored
            )?;
        }
        if self.repeated > 0 {
            write!(f, ", {} repeated images ignored", self.repeated)?;
        }
        Ok(())
    }
}

/// The images of one split, sorted by path, so that every process numbers them alike.
#[derive(Clone, Debug)]
pub struct Dataset {
    names: Vec<String>,
    category_ids: Vec<u64>,
    images: Vec<ImageRecord>,
    skipped: Vec<SkippedImage>,
    duplicates: usize,
    ignored: usize,
    repeated: usize,
}

impl Dataset {
    /// Opens the `split` of the data set in the folder `root` that the file `config` describes;
    /// `config` and everything it names lie inside `root`.
    ///
    /// # Errors
    ///
    /// See [`Self::read`].
    pub fn open(root: &Path, config: &str, split: Split) -> Result<Self, DatasetError> {
        Self::read(root, config::read(root, config)?, split)
    }

    /// The same, described by a file that lies elsewhere. Everything it names lies inside `root`, and paths in it are
    /// read as if it lay at the top of that.
    ///
    /// # Errors
    ///
    /// See [`Self::read`].
    pub fn open_with(root: &Path, config: &Path, split: Split) -> Result<Self, DatasetError> {
        Self::read(root, config::read_from(root, config)?, split)
    }

    /// Images that cannot be used or have a side below 10 pixels are left out and counted. Bad
    /// labels are an error that lists them all: training on half of what a user labelled is worse
    /// than not starting. A volume that fails is an error, too, which may pass: with images left out
    /// because of it, the next start would find another data set.
    fn read(root: &Path, description: Description, split: Split) -> Result<Self, DatasetError> {
        let labelling = Labelling::open(root, &description, split)?;
        let (mut unknown, mut repeated) = (Vec::new(), 0);
        let files = match &labelling {
            Labelling::Coco(file) => file.images(),
            Labelling::Yolo | Labelling::Voc => {
                let listed = listing::list(root, &description, split)?;
                (unknown, repeated) = (listed.skipped, listed.repeated);
                listed.files
            }
        };
        let mut scanned = scan::scan(root, &files, &labelling, &description.names)?;
        scanned.skipped.append(&mut unknown);
        let dataset = Self {
            category_ids: match &labelling {
                Labelling::Coco(file) => file.category_ids(&description.names),
                Labelling::Yolo | Labelling::Voc => Vec::new(),
            },
            names: description.names,
            images: scanned.images,
            skipped: scanned.skipped,
            duplicates: scanned.duplicates,
            ignored: scanned.ignored,
            repeated,
        };
        if dataset.images.is_empty() {
            return Err(DatasetError::AllSkipped {
                split: split.as_str(),
                skipped: dataset.skipped.len(),
                first: dataset
                    .skipped
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            });
        }
        if split == Split::Train && dataset.images.iter().all(|image| image.labels.is_empty()) {
            let first = &dataset.images[0];
            return Err(DatasetError::NoLabels {
                images: dataset.images.len(),
                image: first.name.clone(),
                expected: labelling.expected(Path::new(&first.name)),
            });
        }
        Ok(dataset)
    }

    /// Makes all objects one class, called `item` (YOLOv5's --single-cls); a data set of one class stays as
    /// it is.
    pub fn merge_classes(&mut self) {
        if self.names.len() == 1 {
            return;
        }
        self.names = vec!["item".to_owned()];
        self.category_ids.clear();
        let labels = self.images.iter_mut().flat_map(|image| &mut image.labels);
        labels.for_each(|label| label.class = 0);
    }

    /// Number of usable images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none; an opened data set always has some.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Class names in class order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of each class in the COCO annotation file; empty with other labels, or once classes are
    /// merged.
    pub fn category_ids(&self) -> &[u64] {
        &self.category_ids
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.names.len()
    }

    /// The image of this number.
    pub fn image(&self, index: u32) -> Option<&ImageRecord> {
        self.images.get(index as usize)
    }

    /// All images in order.
    pub fn images(&self) -> &[ImageRecord] {
        &self.images
    }

    /// The images left out.
    pub fn skipped(&self) -> &[SkippedImage] {
        &self.skipped
    }

    /// The data set in numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            images: self.images.len(),
            background: self.images.iter().filter(|i| i.labels.is_empty()).count(),
            objects: self.images.iter().map(|i| i.labels.len()).sum(),
            skipped: self.skipped.len(),
            duplicates: self.duplicates,
            ignored: self.ignored,
            repeated: self.repeated,
        }
    }

    /// Width and height of every label in pixels, with each image's long side resized to
    /// `image_size`: what anchors are fitted to.
    pub fn box_sizes(&self, image_size: u32) -> Vec<[f32; 2]> {
        self.images
            .iter()
            .flat_map(|image| {
                let (width, height) = (image.size.0 as f32, image.size.1 as f32);
                let ratio = image_size as f32 / width.max(height);
                image
                    .labels
                    .iter()
                    .map(move |label| [label.xywh.w * width * ratio, label.xywh.h * height * ratio])
            })
            .collect()
    }

    /// The bytes that each image takes when decoded with its long side at `image_size`.
    pub fn decoded_sizes(&self, image_size: u32) -> impl Iterator<Item = u64> {
        self.images.iter().map(move |image| {
            let (width, height) = resize_to_long_side(image.size.0, image.size.1, image_size);
            u64::from(width) * u64::from(height) * 3
        })
    }

    /// The bytes that all images take when decoded with their long side at `image_size`.
    pub fn decoded_bytes(&self, image_size: u32) -> u64 {
        self.decoded_sizes(image_size).sum()
    }
}

#[cfg(test)]
mod formats_tests;
#[cfg(test)]
mod tests;
