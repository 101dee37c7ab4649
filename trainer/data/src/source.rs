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
    /// Centre and size as fractions of the sample's sides.
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

/// One of the samples of an epoch whose images were drawn, so that some take part more often than others.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// The epoch's images, each as often as it was drawn.
    pub images: &'a [u32],
    /// How often the sample's image was drawn before.
    pub before: u32,
}

/// Makes samples, from any number of threads at once.
pub trait SampleSource: Send + Sync {
    /// Number of images; valid indices are below it.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width and height of the sample of image `index`. Those of one batch must be the same.
    fn size(&self, index: u32) -> (u32, u32);

    /// Makes the sample of image `index` in `epoch` and writes its pixels, three planes of height by
    /// width bytes (red, green, blue), to `pixels`, all of which it overwrites. Other images that the sample
    /// shows come from the epoch's images, if those were drawn; from all otherwise.
    ///
    /// The result depends on the arguments alone.
    fn sample(&self, epoch: u64, index: u32, drawn: Option<Drawn<'_>>, pixels: &mut [u8])
    -> Sample;
}

/// Bytes of a sample of this width and height.
pub(crate) fn sample_bytes((width, height): (u32, u32)) -> usize {
    3 * width as usize * height as usize
}
