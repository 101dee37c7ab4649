//! What a person looks at after an evaluation or a run: no tensors.
//!
//! ```text
//! coco       detections, labels     -> COCO's own numbers, COCO's results file
//! curves     evaluation             -> PR, F1, P and R curves
//! confusion  confusion matrix       -> picture
//! labels     labels of a data set   -> picture of their distribution
//! results    results.csv            -> losses and metrics over the epochs
//! tensorboard  numbers of epochs   -> TensorBoard's event files
//! html       everything             -> one page
//! chart      lines, axes            -> picture; the font is part of the program
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        reason = "a test that unwraps fails with the error"
    )
)]

pub mod chart;
pub mod coco;
pub mod confusion;
pub mod curves;
pub mod html;
pub mod labels;
pub mod results;
pub mod tensorboard;

pub use chart::ChartError;
pub use image::RgbImage;

use trainer_core::detection::{Detection, LabelledBox};

/// An evaluated image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageResult {
    /// The file's path inside the data source.
    pub name: String,
    /// The number that the data set's annotation file gives it, if it has one.
    pub id: Option<u64>,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// What was found, in pixels of the image.
    pub detections: Vec<Detection>,
    /// What is there, in pixels of the image.
    pub labels: Vec<LabelledBox>,
}
