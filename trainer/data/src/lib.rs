//! Images, labels, augmentation and loading: no tensors.
//!
//! ```text
//! dataset   data.yaml, label files   -> Dataset: records of images with their labels, or all problems
//! store     image file               -> pixels at the network's scale, kept in memory if they fit
//! augment   pixels, labels, (seed, epoch, image) -> a training sample
//! letterbox pixels, labels           -> an evaluation sample
//! loader    which images, in order   -> batches, made ahead of time by a few threads
//! digits    seed                     -> an example data set
//! draw      images, boxes            -> a picture for people
//! ```
//!
//! What a sample looks like is a function of the seed, the epoch and the image's number alone.
//! Threads, ranks, caches and resumed runs change when it is made and where its bytes come from,
//! never its contents. Nothing is ever written into a data set.

pub mod augment;
pub mod bounded;
pub mod dataset;
pub mod decode;
pub mod digits;
pub mod draw;
pub mod letterbox;
pub mod loader;
pub mod source;
pub mod store;

pub use augment::TrainSource;
pub use dataset::{Dataset, DatasetError, ImageRecord, SkippedImage, Split, Summary};
pub use digits::{DigitsConfig, DigitsError, DigitsProgress, DigitsSummary, make_dataset_digits};
pub use draw::{DrawError, DrawnImage, annotated, contact_sheet, label_sheet, write_png};
pub use image::RgbImage;
pub use letterbox::{EvaluateSource, Shape};
pub use loader::{
    Batch, Loader, LoaderConfig, LoaderError, PixelBuffer, StepDrawn, StepRequest, Target,
};
pub use source::{Drawn, EvaluatedImage, Sample, SampleSource, SampleTarget};
pub use store::{ImageStore, Sizing};

#[cfg(test)]
mod testing;
