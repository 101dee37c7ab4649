//! Samples for evaluation: the whole image, undistorted, with a grey border around it.

use crate::source::{Drawn, EvaluatedImage, Sample, SampleSource, SampleTarget};
use crate::store::{FILL, ImageStore};
use image::RgbImage;
use trainer_core::letterbox::{Border, Enlarge, Letterbox, LetterboxOptions};
use trainer_core::rect::{EVALUATION_PAD, MIN_STRIDE, rectangle};

/// What images are laid into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Squares of the image size, for networks of fixed size.
    Square,
    /// Half a stride of border or more, up to the next multiple of the stride.
    ///
    /// YOLOv5 evaluates in rectangles that are large enough for all images of their batch. Here each image has
    /// the rectangle that v5 gives it in a batch of its own: its result is then independent of the images beside
    /// it, so that any number of ranks and any batch size gets the same.
    Rectangle {
        /// What sides are multiples of, in pixels.
        stride: u32,
    },
}

impl Shape {
    /// Rectangles for a network whose images must have sides that are multiples of `multiple`.
    pub fn rectangle(multiple: u32) -> Self {
        Self::Rectangle {
            stride: multiple.max(MIN_STRIDE),
        }
    }
}

/// Makes evaluation samples. The epoch does not matter to them.
#[derive(Debug)]
pub struct EvaluateSource {
    store: ImageStore,
    shape: Shape,
}

impl EvaluateSource {
    /// Samples of the images of `store`, which must have [`crate::Sizing::Evaluate`].
    pub fn new(store: ImageStore, shape: Shape) -> Self {
        Self { store, shape }
    }

    /// Where the images come from.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// All images in batches of at most `most`, each of one size; always the same ones.
    pub fn batches(&self, most: usize) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_cached_key(|index| self.size(*index));
        order
            .chunk_by(|a, b| self.size(*a) == self.size(*b))
            .flat_map(|images| images.chunks(most.max(1)))
            .map(<[u32]>::to_vec)
            .collect()
    }

    fn letterbox(&self, index: u32) -> Letterbox {
        let side = self.store.image_size();
        let record = self.store.dataset().image(index);
        let original = record.map_or((side, side), |record| record.size);
        let output = match self.shape {
            Shape::Square => (side, side),
            Shape::Rectangle { stride } => rectangle(original, side, stride, EVALUATION_PAD),
        };
        Letterbox::of_long_side(original, side, output)
    }
}

impl SampleSource for EvaluateSource {
    fn len(&self) -> usize {
        self.store.dataset().len()
    }

    fn size(&self, index: u32) -> (u32, u32) {
        self.letterbox(index).output
    }

    fn sample(
        &self,
        _epoch: u64,
        index: u32,
        _drawn: Option<Drawn<'_>>,
        pixels: &mut [u8],
    ) -> Sample {
        let letterbox = self.letterbox(index);
        let loaded = self.store.load(index);
        let (labels, name, skipped) = match loaded.record {
            Ok(record) => {
                lay(&loaded.pixels, &letterbox, pixels);
                (record.labelled_boxes(), record.name.clone(), Vec::new())
            }
            Err(skipped) => {
                pixels.fill(FILL);
                (Vec::new(), skipped.name.clone(), vec![skipped])
            }
        };
        let (width, height) = letterbox.output;
        let targets = labels
            .iter()
            .map(|label| SampleTarget {
                class: label.class,
                xywh: letterbox
                    .from_original(label.xyxy)
                    .scale(1.0 / width as f32, 1.0 / height as f32)
                    .to_xywh(),
            })
            .collect();
        Sample {
            targets,
            skipped,
            evaluated: Some(EvaluatedImage {
                letterbox,
                labels,
                name,
            }),
        }
    }
}

/// How a prediction fits an image of `size` (width and height) into a square of `image_size` or, with a stride, into the
/// part of it that the image needs, up to the next multiple of the stride. In the middle, small images enlarged. YOLOv5's
/// detect does so.
pub fn prediction_letterbox(size: (u32, u32), image_size: u32, shape: Shape) -> Letterbox {
    let options = LetterboxOptions {
        target: (image_size, image_size),
        enlarge: Enlarge::Yes,
        border: match shape {
            Shape::Square => Border::Full,
            Shape::Rectangle { stride } => Border::Multiple(stride),
        },
    };
    Letterbox::new(size.0, size.1, options)
}

/// Writes `image` as planes into grey, where `letterbox` says. What rounding made a pixel too wide or high is cut
/// off.
pub fn lay(image: &RgbImage, letterbox: &Letterbox, pixels: &mut [u8]) {
    let (across, down) = (letterbox.output.0 as usize, letterbox.output.1 as usize);
    let (left, top) = (letterbox.offset.0 as usize, letterbox.offset.1 as usize);
    let width = image.width() as usize;
    let shown = width.min(across.saturating_sub(left));
    pixels.fill(FILL);
    for (channel, plane) in pixels.chunks_exact_mut(across * down).enumerate() {
        let rows = plane.chunks_exact_mut(across).skip(top);
        for (row, source) in rows.zip(image.as_raw().chunks_exact(3 * width)) {
            let source = source.as_chunks::<3>().0;
            for (to, from) in row[left..left + shown].iter_mut().zip(source) {
                *to = from[channel];
            }
        }
    }
}

#[cfg(test)]
mod tests;
