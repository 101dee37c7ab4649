//! Training samples: YOLOv5's augmentations in YOLOv5's order, and some of its relatives'.
//!
//! ```text
//! canvas    one image, or four or nine of them as a mosaic; copies of objects, mirrored
//! picture   the canvas through one geometric transform
//! sample    mixup and cutmix with a second picture, crop, effects, hue/saturation/value, flips, cutout
//! ```
//!
//! Mostly the canvas and the picture are never painted: each row of the sample is computed from the
//! images, coloured and stored while it is still in the processor's cache. What needs more than a row
//! (a second picture, a crop, a blur) is done on a [`Picture`], only for the samples that have it.
//!
//! Random numbers come from streams per (seed, epoch, image number), one for each purpose. A stream
//! shared by several augmentations has a fixed number and order of draws. So turning one augmentation
//! off does not change the others.

pub mod affine;
pub mod blur;
pub mod brightness_contrast;
pub mod canvas;
pub mod clahe;
pub mod copy_paste;
pub mod crop;
pub mod cutmix;
pub mod cutout;
pub mod effects;
pub mod flip;
pub mod gamma;
pub mod gray;
pub mod hsv;
pub mod jpeg;
pub mod kernel;
pub mod labels;
pub mod median_blur;
pub mod mixup;
pub mod mosaic;
pub mod mosaic9;
pub mod picture;
pub mod planes;
mod settings;
mod streams;
mod view;

use crate::dataset::SkippedImage;
use crate::source::{Drawn, Sample, SampleSource, SampleTarget};
use crate::store::ImageStore;
use canvas::Canvas;
use contract::spec::Augmentation;
use effects::Effects;
use picture::Picture;
use settings::{Mosaics, Settings};
use streams::{Layer, Pool, Streams};
use trainer_core::affine::{AffineDraw, compose};
use trainer_core::mosaic::PixelRect;
use trainer_core::rng::{Purpose, chance};
use view::View;

/// Makes training samples.
#[derive(Debug)]
pub struct TrainSource {
    store: ImageStore,
    seed: u64,
    settings: Settings,
    /// Of each image; none for squares.
    sizes: Option<Vec<(u32, u32)>>,
}

/// What is done to a sample's first picture before it is coloured and flipped.
#[derive(Default)]
struct Changes {
    mix: Option<mixup::Mix>,
    cut: Option<cutmix::Cut>,
    crop: Option<PixelRect>,
    effects: Effects,
}

impl TrainSource {
    /// Samples of the images of `store`, which must have [`crate::Sizing::Train`], for a run of `epochs`
    /// epochs. A rollback's recovery is already part of the seed (`trainer_core::rng::recovery_seed`).
    pub fn new(store: ImageStore, seed: u64, augmentation: &Augmentation, epochs: u32) -> Self {
        Self {
            store,
            seed,
            settings: Settings::new(augmentation, epochs),
            sizes: None,
        }
    }

    /// The same with each image in a sample of its own width and height, into which it must fit: `sizes` by image
    /// number. Such samples show one image only, so `augmentation` must neither make mosaics nor cut images into
    /// others.
    #[must_use]
    pub fn in_rectangles(self, sizes: Vec<(u32, u32)>) -> Self {
        Self {
            sizes: Some(sizes),
            ..self
        }
    }

    /// Where the images come from.
    pub fn store(&self) -> &ImageStore {
        &self.store
    }

    /// One picture of a sample, with image `image` on it and transformed as `draw` says.
    fn view(
        &self,
        streams: Streams<'_>,
        layer: Layer,
        mosaics: &Mosaics,
        image: u32,
        draw: &AffineDraw,
    ) -> View {
        let canvas = self.canvas(streams, layer, mosaics, image, draw);
        View::new(canvas, draw, self.size(streams.image))
    }

    /// The picture's canvas, as far as the transform `draw` shows it.
    fn canvas(
        &self,
        streams: Streams<'_>,
        layer: Layer,
        mosaics: &Mosaics,
        image: u32,
        draw: &AffineDraw,
    ) -> Canvas {
        let side = self.store.image_size();
        let largest = (2 * side, 2 * side);
        let Some(mut rng) = streams.picture_if(mosaics.copy_paste, Purpose::CopyPaste, layer)
        else {
            let matrix = compose(draw, largest, (side, side));
            let seen = affine::seen(&matrix, largest, (side, side));
            return self.lay(streams, layer, mosaics, image, seen);
        };
        // What is pasted comes from anywhere.
        let canvas = self.lay(streams, layer, mosaics, image, canvas::whole(largest));
        copy_paste::paste(&mut rng, canvas, mosaics.copy_paste)
    }

    fn lay(
        &self,
        streams: Streams<'_>,
        layer: Layer,
        mosaics: &Mosaics,
        image: u32,
        seen: PixelRect,
    ) -> Canvas {
        let mut rng = streams.picture(Purpose::Mosaic, layer);
        if !chance(&mut rng, mosaics.mosaic) {
            return canvas::lay_one(&self.store, image, self.size(streams.image));
        }
        if let Some(mut rng) = streams.picture_if(mosaics.nine, Purpose::Mosaic9, layer)
            && chance(&mut rng, mosaics.nine)
        {
            return mosaic9::lay_nine(&mut rng, &self.store, (image, streams.pool), seen);
        }
        mosaic::lay_four(&mut rng, &self.store, (image, streams.pool), seen)
    }

    /// A picture of a sample besides its own, painted.
    fn second(
        &self,
        streams: Streams<'_>,
        layer: Layer,
        mosaics: &Mosaics,
        image: u32,
        skipped: &mut Vec<SkippedImage>,
    ) -> Picture {
        let mut rng = streams.picture(Purpose::Augment, layer);
        let draw = self.settings.affine.draw(&mut rng);
        let mut view = self.view(streams, layer, mosaics, image, &draw);
        skipped.append(&mut view.skipped);
        view.render()
    }

    fn draw_changes(&self, streams: Streams<'_>, mosaics: &Mosaics, is_mosaic: bool) -> Changes {
        let (size, pool) = (self.size(streams.image), streams.pool);
        let Settings { crop, effects, .. } = self.settings;
        let Mosaics { mixup, cutmix, .. } = *mosaics;
        Changes {
            mix: streams
                .sample_if(mixup, Purpose::Mixup)
                .and_then(|mut rng| mixup::draw(&mut rng, mixup, pool))
                .filter(|_| is_mosaic),
            cut: streams
                .sample_if(cutmix, Purpose::Cutmix)
                .and_then(|mut rng| cutmix::draw(&mut rng, cutmix, pool, size.0)),
            crop: streams
                .sample_if(crop, Purpose::Crop)
                .and_then(|mut rng| crop::draw(&mut rng, crop, size)),
            effects: streams
                .sample_if(effects.largest(), Purpose::Effects)
                .map_or_else(Effects::default, |mut rng| effects.draw(&mut rng)),
        }
    }

    /// The sample's picture, changed.
    fn change(
        &self,
        streams: Streams<'_>,
        mosaics: &Mosaics,
        mut picture: Picture,
        changes: &Changes,
        skipped: &mut Vec<SkippedImage>,
    ) -> Picture {
        if let Some(mix) = changes.mix {
            // A mosaic is mixed with a mosaic.
            let always = Mosaics {
                mosaic: 1.0,
                ..*mosaics
            };
            let second = self.second(streams, Layer::Mixed, &always, mix.partner, skipped);
            mixup::apply(&mut picture, second, mix.part);
        }
        if let Some(cut) = changes.cut
            && let Some(part) = cut.free_part(&picture.boxes)
        {
            let second = self.second(streams, Layer::Inserted, mosaics, cut.partner, skipped);
            cutmix::apply(&mut picture, &second, part);
        }
        if let Some(part) = changes.crop {
            crop::apply(&mut picture, part);
        }
        changes.effects.apply(&mut picture.pixels);
        picture
    }

    /// Covers parts of a finished sample, and drops the labels of what is hidden.
    fn cover(&self, streams: Streams<'_>, pixels: &mut [u8], targets: &mut Vec<SampleTarget>) {
        let ((width, height), probability) = (self.size(streams.image), self.settings.cutout);
        let Some(mut rng) = streams.sample_if(probability, Purpose::Cutout) else {
            return;
        };
        let masks = cutout::draw(&mut rng, probability, (width, height));
        cutout::paint(&masks, width, pixels);
        let (width, height) = (width as f32, height as f32);
        targets.retain(|target| !cutout::hides(&masks, target.xywh.scale(width, height).to_xyxy()));
    }
}

impl Changes {
    fn need_picture(&self) -> bool {
        self.mix.is_some()
            || self.cut.is_some()
            || self.crop.is_some()
            || self.effects.need_picture()
    }
}

impl SampleSource for TrainSource {
    fn len(&self) -> usize {
        self.store.dataset().len()
    }

    fn size(&self, index: u32) -> (u32, u32) {
        let own = self
            .sizes
            .as_ref()
            .and_then(|sizes| sizes.get(index as usize));
        let side = self.store.image_size();
        own.copied().unwrap_or((side, side))
    }

    fn sample(
        &self,
        epoch: u64,
        index: u32,
        drawn: Option<Drawn<'_>>,
        pixels: &mut [u8],
    ) -> Sample {
        let all = Pool::All(self.len() as u32);
        let pool = drawn.map_or(all, |drawn| Pool::Of(drawn.images));
        let before = drawn.map_or(0, |drawn| drawn.before);
        let streams = Streams::new(self.seed, epoch, index, pool).after(before);
        let mosaics = self.settings.mosaics(epoch);
        let mut rng = streams.picture(Purpose::Augment, Layer::Own);
        let (draw, colours, flip) = self.settings.draw(&mut rng);
        let mut view = self.view(streams, Layer::Own, &mosaics, index, &draw);
        let mut skipped = std::mem::take(&mut view.skipped);
        let changes = self.draw_changes(streams, &mosaics, view.is_mosaic());
        let boxes = if changes.need_picture() {
            let picture = view.render();
            let picture = self.change(streams, &mosaics, picture, &changes, &mut skipped);
            picture.rows(|y, row| {
                colours.apply(row);
                flip.store(row, y, pixels);
            });
            picture.boxes
        } else {
            let effects = changes.effects.for_rows();
            view.rows(|y, row| {
                effects.apply(row);
                colours.apply(row);
                flip.store(row, y, pixels);
            });
            view.boxes
        };
        let mut targets = labels::to_targets(&boxes, self.size(index));
        for target in &mut targets {
            target.xywh = flip.apply(target.xywh);
        }
        self.cover(streams, pixels, &mut targets);
        Sample {
            targets,
            skipped,
            evaluated: None,
        }
    }
}

#[cfg(test)]
mod tests;
