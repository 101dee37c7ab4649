//! Training samples: YOLOv5's augmentations in YOLOv5's order.
//!
//! One image, or four of them as a mosaic, lie on a canvas; one geometric transform takes the canvas
//! to the sample; then hue, saturation and brightness change, then the sample may be flipped. The
//! canvas is never painted: each row of the sample is computed from the images, coloured and stored
//! while it is still in the processor's cache.
//!
//! Random numbers come from two streams per (seed, epoch, image number): `Purpose::Mosaic` for the
//! mosaic, `Purpose::Augment` for all else, each with a fixed number and order of draws, so that
//! turning one augmentation off does not change the others.

pub mod affine;
pub mod canvas;
pub mod flip;
pub mod hsv;
pub mod labels;
pub mod mosaic;
pub mod planes;

use crate::source::{Sample, SampleSource};
use crate::store::ImageStore;
use canvas::Canvas;
use contract::spec::Augmentation;
use flip::Flip;
use hsv::HsvRanges;
use rand_chacha::ChaCha8Rng;
use trainer_core::affine::{AffineDraw, AffineRanges, compose};
use trainer_core::rng::{Purpose, chance, stream};

/// Makes training samples.
#[derive(Debug)]
pub struct TrainSource {
    store: ImageStore,
    seed: u64,
    settings: Settings,
}

/// The augmentation as the parts of the pipeline understand it.
#[derive(Clone, Copy, Debug)]
struct Settings {
    mosaic: f64,
    affine: AffineRanges,
    hsv: HsvRanges,
    flip_vertical: f64,
    flip_horizontal: f64,
}

impl TrainSource {
    /// Samples of the images of `store`, which must have [`crate::Sizing::Train`]. A rollback's
    /// recovery is already part of the seed (`trainer_core::rng::recovery_seed`).
    pub fn new(store: ImageStore, seed: u64, augmentation: &Augmentation) -> Self {
        Self {
            store,
            seed,
            settings: Settings::new(augmentation),
        }
    }

    /// Where the images come from.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// The canvas of image `index`: alone in the sample's square, or with three others.
    fn canvas(&self, epoch: u64, index: u32) -> Canvas {
        let mut rng = stream(self.seed, Purpose::Mosaic, epoch, u64::from(index));
        if chance(&mut rng, self.settings.mosaic) {
            mosaic::lay_four(&mut rng, &self.store, index)
        } else {
            canvas::lay_one(&self.store, index)
        }
    }
}

impl Settings {
    fn new(augmentation: &Augmentation) -> Self {
        // Destructured whole, so that a new setting cannot be forgotten here.
        let Augmentation {
            hsv_h,
            hsv_s,
            hsv_v,
            degrees,
            translate,
            scale,
            shear,
            perspective,
            flipud,
            fliplr,
            mosaic,
        } = *augmentation;
        Self {
            mosaic,
            affine: AffineRanges {
                degrees,
                translate,
                scale,
                shear,
                perspective,
            },
            hsv: HsvRanges {
                hue: hsv_h,
                saturation: hsv_s,
                value: hsv_v,
            },
            flip_vertical: flipud,
            flip_horizontal: fliplr,
        }
    }

    /// What happens to one sample after its canvas is laid.
    fn draw(&self, rng: &mut ChaCha8Rng) -> (AffineDraw, hsv::HsvTables, Flip) {
        let affine = self.affine.draw(rng);
        let colours = self.hsv.draw(rng);
        let flip = Flip {
            vertical: chance(rng, self.flip_vertical),
            horizontal: chance(rng, self.flip_horizontal),
        };
        (affine, colours, flip)
    }
}

impl SampleSource for TrainSource {
    fn len(&self) -> usize {
        self.store.dataset().len()
    }

    fn image_size(&self) -> u32 {
        self.store.image_size()
    }

    fn sample(&self, epoch: u64, index: u32, pixels: &mut [u8]) -> Sample {
        let side = self.image_size();
        let canvas = self.canvas(epoch, index);
        let mut rng = stream(self.seed, Purpose::Augment, epoch, u64::from(index));
        let (draw, colours, flip) = self.settings.draw(&mut rng);
        let matrix = compose(&draw, (canvas.side, canvas.side), (side, side));
        affine::warp(&canvas, &matrix, side, |y, row| {
            colours.apply(row);
            flip.store(row, y, pixels);
        });
        let mut targets = labels::warp(&canvas.labels, &matrix, &draw, side);
        for target in &mut targets {
            target.xywh = flip.apply(target.xywh);
        }
        Sample {
            targets,
            skipped: canvas.skipped,
            evaluated: None,
        }
    }
}

#[cfg(test)]
mod tests;
