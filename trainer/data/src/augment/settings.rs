//! The augmentation as the parts of the pipeline understand it.

use super::effects::EffectChances;
use super::flip::Flip;
use super::hsv::{HsvChange, HsvRanges};
use contract::spec::Augmentation;
use rand_chacha::ChaCha8Rng;
use trainer_core::affine::{AffineDraw, AffineRanges};
use trainer_core::rng::chance;

/// All settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    mosaics: Mosaics,
    /// The first epoch without mosaics, if any is.
    closed_from: Option<u64>,
    pub(super) affine: AffineRanges,
    hsv: HsvRanges,
    flip_vertical: f64,
    flip_horizontal: f64,
    pub(super) crop: f64,
    pub(super) cutout: f64,
    pub(super) effects: EffectChances,
}

/// What puts several images or copies of objects into one sample.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mosaics {
    pub(super) mosaic: f64,
    pub(super) nine: f64,
    pub(super) mixup: f64,
    pub(super) cutmix: f64,
    pub(super) copy_paste: f64,
}

impl Settings {
    /// For a run of `epochs` epochs.
    pub(super) fn new(augmentation: &Augmentation, epochs: u32) -> Self {
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
            mosaic9,
            mixup,
            cutmix,
            copy_paste,
            close_mosaic,
            random_crop,
            cutout,
            blur,
            median_blur,
            gray,
            clahe,
            brightness_contrast,
            gamma,
            jpeg,
        } = *augmentation;
        Self {
            mosaics: Mosaics {
                mosaic,
                nine: mosaic9,
                mixup,
                cutmix,
                copy_paste,
            },
            closed_from: (close_mosaic > 0).then(|| epochs.saturating_sub(close_mosaic).into()),
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
            crop: random_crop,
            cutout,
            effects: EffectChances {
                blur,
                median_blur,
                gray,
                clahe,
                brightness_contrast,
                gamma,
                jpeg,
            },
        }
    }

    /// What puts several images into a sample in this epoch.
    pub(super) fn mosaics(&self, epoch: u64) -> Mosaics {
        match self.closed_from {
            Some(closed_from) if epoch >= closed_from => Mosaics::default(),
            _ => self.mosaics,
        }
    }

    /// How the own picture of a sample is transformed, coloured and mirrored; the first part alone for
    /// its other pictures.
    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> (AffineDraw, HsvChange, Flip) {
        let affine = self.affine.draw(rng);
        let colours = self.hsv.draw(rng);
        let flip = Flip {
            vertical: chance(rng, self.flip_vertical),
            horizontal: chance(rng, self.flip_horizontal),
        };
        (affine, colours, flip)
    }
}
