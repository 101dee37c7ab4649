//! What the loader's threads call to make one sample.

use crate::dataset::SkippedImage;
use trainer_core::boxes::Xywh;
use trainer_core::detection::LabelledBox;
use trainer_core::letterbox::Letterbox;

/// One object of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleTarget {
    /// Class index.
    pub class: u16,
    /// Centre and size as fractions of the sample's side.
    pub xywh: Xywh,
}

/// What evaluation needs to know of an image besides its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluatedImage {
    /// How the image lies in the sample; `to_original` maps detections back.
    pub letterbox: Letterbox,
    /// The image's labels in pixels of the original.
    pub labels: Vec<LabelledBox>,
    /// The image's path inside the data source.
    pub name: String,
}

/// A sample's contents besides its pixels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The objects.
    pub targets: Vec<SampleTarget>,
    /// Images that should have been part of it but could not be read; grey took their place.
    pub skipped: Vec<SkippedImage>,
    /// Only for evaluation.
    pub evaluated: Option<EvaluatedImage>,
}

/// Makes samples, from any number of threads at once.
pub trait SampleSource: Send + Sync {
    /// Number of images; valid indices are below it.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width and height S of a sample.
    fn image_size(&self) -> u32;

    /// Makes the sample of image `index` in `epoch` and writes its pixels, three planes of S by S
    /// bytes (red, green, blue), to `pixels`, all of which it overwrites.
    ///
    /// The result depends on the arguments alone.
    fn sample(&self, epoch: u64, index: u32, pixels: &mut [u8]) -> Sample;
}

/// Bytes of a sample of side `image_size`.
pub(crate) fn sample_bytes(image_size: u32) -> usize {
    3 * (image_size as usize).pow(2)
}
