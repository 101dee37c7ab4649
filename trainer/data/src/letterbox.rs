//! Samples for evaluation: the whole image, undistorted, in the middle of a square.

use crate::source::{EvaluatedImage, Sample, SampleSource, SampleTarget};
use crate::store::{FILL, ImageStore, evaluation_letterbox};
use image::RgbImage;

/// Makes evaluation samples. The epoch does not matter to them.
#[derive(Debug)]
pub struct EvaluateSource {
    store: ImageStore,
}

impl EvaluateSource {
    /// Samples of the images of `store`, which must have [`crate::Sizing::Evaluate`].
    pub fn new(store: ImageStore) -> Self {
        Self { store }
    }

    /// Where the images come from.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }
}

impl SampleSource for EvaluateSource {
    fn len(&self) -> usize {
        self.store.dataset().len()
    }

    fn image_size(&self) -> u32 {
        self.store.image_size()
    }

    fn sample(&self, _epoch: u64, index: u32, pixels: &mut [u8]) -> Sample {
        let side = self.image_size();
        let loaded = self.store.load(index);
        let size = match &loaded.record {
            Ok(record) => record.size,
            Err(_) => (side, side),
        };
        let letterbox = evaluation_letterbox(size, side);
        lay(&loaded.pixels, letterbox.offset, side, pixels);
        let (labels, name, skipped) = match loaded.record {
            Ok(record) => (record.labelled_boxes(), record.name.clone(), Vec::new()),
            Err(skipped) => (Vec::new(), skipped.name.clone(), vec![skipped]),
        };
        let scale = 1.0 / side as f32;
        let targets = labels
            .iter()
            .map(|label| SampleTarget {
                class: label.class,
                xywh: letterbox
                    .from_original(label.xyxy)
                    .scale(scale, scale)
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

/// Writes `image` as planes into a grey square of side `side`, its top left corner at `offset`.
fn lay(image: &RgbImage, offset: (u32, u32), side: u32, pixels: &mut [u8]) {
    let side = side as usize;
    let (left, top) = (offset.0 as usize, offset.1 as usize);
    let width = image.width() as usize;
    pixels.fill(FILL);
    for (channel, plane) in pixels.chunks_exact_mut(side * side).enumerate() {
        let rows = plane.chunks_exact_mut(side).skip(top);
        for (row, source) in rows.zip(image.as_raw().chunks_exact(3 * width)) {
            let source = source.as_chunks::<3>().0;
            for (to, from) in row[left..left + width].iter_mut().zip(source) {
                *to = from[channel];
            }
        }
    }
}

#[cfg(test)]
mod tests;
