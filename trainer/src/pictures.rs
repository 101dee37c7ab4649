//! Pictures of an evaluation.

use std::path::Path;

use trainer_core::average_precision::{ClassCurves, Evaluation};
use trainer_core::boxes::Xywh;
use trainer_core::confusion::{CONFIDENCE, ConfusionMatrix};
use trainer_core::detection::Detection;
use trainer_data::{
    Batch, Dataset, DrawError, DrawnImage, RgbImage, contact_sheet, label_sheet, write_png,
};
use trainer_report::ChartError;
use trainer_report::confusion::confusion_matrix;
use trainer_report::curves::curves;
use trainer_report::labels::label_distribution;

/// Batches that are shown, images of each, and images in a row; as `YOLOv5`.
pub const SHEETS: usize = 3;
/// Images on a sheet, at most.
pub const IMAGES: usize = 16;
const COLUMNS: u32 = 4;
/// Pixels of the long side of an image that is kept for a sheet.
const SIDE: u32 = 480;

/// Why pictures are missing.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// A chart.
    #[error(transparent)]
    Chart(#[from] ChartError),
    /// A file.
    #[error(transparent)]
    Write(#[from] DrawError),
}

/// The first images of an evaluation with what was found on them.
#[derive(Debug, Default)]
pub struct Sheets {
    batches: Vec<Vec<DrawnImage>>,
    done: usize,
}

impl Sheets {
    /// An image of the present batch; `detections` are in its own pixels.
    pub fn add(&mut self, batch: &Batch, k: usize, detections: &[Detection]) {
        if self.done >= SHEETS || k >= IMAGES {
            return;
        }
        let letterbox = &batch.evaluated[k].letterbox;
        let sure = detections.iter().filter(|found| found.conf > CONFIDENCE);
        let found = sure.map(|found| Detection {
            xyxy: letterbox.from_original(found.xyxy),
            ..*found
        });
        if let Some(drawn) = DrawnImage::from_batch(batch, k, found.collect()) {
            if self.batches.len() <= self.done {
                self.batches.push(Vec::new());
            }
            self.batches[self.done].push(drawn.at_most(SIDE));
        }
    }

    /// The present batch has no more images.
    pub fn batch_done(&mut self) {
        self.done += 1;
    }

    /// Writes `val_batchN_labels.png` and `val_batchN_pred.png`.
    fn write(&self, folder: &Path, names: &[String]) -> Result<(), DrawError> {
        let sheet = |number: usize, images: &[DrawnImage], labels: bool| {
            let (kind, picture) = if labels {
                ("labels", label_sheet(images, names, COLUMNS))
            } else {
                let alone = |image: &DrawnImage| DrawnImage {
                    labels: Vec::new(),
                    ..image.clone()
                };
                let images: Vec<_> = images.iter().map(alone).collect();
                ("pred", contact_sheet(&images, names, COLUMNS))
            };
            write_png(
                &picture,
                &folder.join(format!("val_batch{number}_{kind}.png")),
            )
        };
        let sheet = &sheet;
        std::thread::scope(|scope| {
            let each = self.batches.iter().enumerate();
            let threads: Vec<_> = each
                .flat_map(|(number, images)| {
                    [true, false].map(|labels| scope.spawn(move || sheet(number, images, labels)))
                })
                .collect();
            // A panic of a thread is one of this function.
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }
}

/// What pictures are made of.
#[derive(Debug)]
pub struct Shown {
    /// Which classes are taken for which.
    pub confusion: ConfusionMatrix,
    /// The first images.
    pub sheets: Sheets,
}

/// Writes everything there is to see of an evaluation into `folder`.
pub fn write(
    folder: &Path,
    (evaluation, of_classes): (&Evaluation, &[ClassCurves]),
    shown: &Shown,
    names: &[String],
) -> Result<(), PictureError> {
    for (name, picture) in curves(evaluation, of_classes, names)? {
        write_png(&picture, &folder.join(name))?;
    }
    let picture = confusion_matrix(&shown.confusion, names)?;
    write_png(&picture, &folder.join("confusion_matrix.png"))?;
    Ok(shown.sheets.write(folder, names)?)
}

/// Writes `labels.png`: how the labels of a data set are distributed.
pub fn write_labels(folder: &Path, dataset: &Dataset) -> Result<(), PictureError> {
    let labels = dataset.images().iter().flat_map(|image| &image.labels);
    let labels: Vec<(u16, Xywh)> = labels.map(|label| (label.class, label.xywh)).collect();
    let picture = label_distribution(&labels, dataset.names())?;
    Ok(write_png(&picture, &folder.join("labels.png"))?)
}

/// The first images of a training batch, as the network sees them.
pub fn training_sheet(batch: &Batch, names: &[String]) -> RgbImage {
    let images = (0..IMAGES).filter_map(|k| DrawnImage::from_batch(batch, k, Vec::new()));
    label_sheet(&images.collect::<Vec<_>>(), names, COLUMNS)
}
