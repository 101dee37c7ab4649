//! Changes to a sample's pixels that leave its objects where they are: YOLOv5's list for Albumentations,
//! in its order and with that library's default ranges.

use super::kernel::Kernel;
use super::planes::PlanarRow;
use super::{blur, brightness_contrast, clahe, gamma, gray, jpeg, median_blur};
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use trainer_core::rng::{chance, uniform, unit};

/// The clip limit of CLAHE.
const CLIP_LIMIT: (f64, f64) = (1.0, 4.0);
/// Brightness changes by this fraction of white, contrast by this factor above or below 1.
const BRIGHTNESS_CONTRAST: f64 = 0.2;
const GAMMA: (f64, f64) = (0.8, 1.2);
/// Smallest and largest JPEG quality.
const QUALITY: (u8, u8) = (75, 100);

/// How likely each change is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EffectChances {
    /// Blur.
    pub blur: f64,
    /// Median blur.
    pub median_blur: f64,
    /// The loss of colour.
    pub gray: f64,
    /// Even local contrast.
    pub clahe: f64,
    /// Brightness and contrast.
    pub brightness_contrast: f64,
    /// Gamma.
    pub gamma: f64,
    /// JPEG compression.
    pub jpeg: f64,
}

/// What is done to one sample, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Blurred with this kernel.
    pub blur: Option<Kernel>,
    /// Median blurred with this kernel.
    pub median_blur: Option<Kernel>,
    /// Without colour.
    pub gray: bool,
    /// Equalised with this clip limit.
    pub clahe: Option<f64>,
    /// Brightness, then contrast.
    pub brightness_contrast: Option<[f64; 2]>,
    /// Gamma.
    pub gamma: Option<f64>,
    /// Compressed at this quality.
    pub jpeg: Option<u8>,
}

impl EffectChances {
    /// The largest chance.
    pub fn largest(&self) -> f64 {
        let Self {
            blur,
            median_blur,
            gray,
            clahe,
            brightness_contrast,
            gamma,
            jpeg,
        } = *self;
        let all = [
            blur,
            median_blur,
            gray,
            clahe,
            brightness_contrast,
            gamma,
            jpeg,
        ];
        all.into_iter().fold(0.0, f64::max)
    }

    /// Draws what is done. Fourteen draws, whatever the chances: whether for each change in the order
    /// of the fields, and after each how much.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Effects {
        let blur = chance(rng, self.blur);
        let blur_kernel = Kernel::choose(unit(rng));
        let median_blur = chance(rng, self.median_blur);
        let median_kernel = Kernel::choose(unit(rng));
        let gray = chance(rng, self.gray);
        let clahe = chance(rng, self.clahe);
        let clip_limit = uniform(rng, CLIP_LIMIT.0, CLIP_LIMIT.1);
        let brightness_contrast = chance(rng, self.brightness_contrast);
        let changes = [0.0, 1.0].map(|middle| {
            uniform(
                rng,
                middle - BRIGHTNESS_CONTRAST,
                middle + BRIGHTNESS_CONTRAST,
            )
        });
        let gamma = chance(rng, self.gamma);
        let exponent = uniform(rng, GAMMA.0, GAMMA.1);
        let jpeg = chance(rng, self.jpeg);
        let quality = uniform(rng, QUALITY.0.into(), f64::from(QUALITY.1) + 1.0) as u8;
        Effects {
            blur: blur.then_some(blur_kernel),
            median_blur: median_blur.then_some(median_kernel),
            gray,
            clahe: clahe.then_some(clip_limit),
            brightness_contrast: brightness_contrast.then_some(changes),
            gamma: gamma.then_some(exponent),
            jpeg: jpeg.then_some(quality),
        }
    }
}

impl Effects {
    /// Whether a pixel's colour depends on other pixels.
    pub fn need_picture(&self) -> bool {
        self.blur.is_some()
            || self.median_blur.is_some()
            || self.clahe.is_some()
            || self.jpeg.is_some()
    }

    /// Changes a whole picture.
    pub fn apply(&self, pixels: &mut RgbImage) {
        if let Some(kernel) = self.blur {
            blur::apply(pixels, kernel);
        }
        if let Some(kernel) = self.median_blur {
            median_blur::apply(pixels, kernel);
        }
        if self.gray {
            for pixel in pixels.pixels_mut() {
                pixel.0 = gray::of(pixel.0);
            }
        }
        if let Some(clip_limit) = self.clahe {
            clahe::apply(pixels, clip_limit);
        }
        if let Some(table) = self.tones() {
            for value in pixels.iter_mut() {
                *value = table[usize::from(*value)];
            }
        }
        if let Some(quality) = self.jpeg {
            jpeg::apply(pixels, quality);
        }
    }

    /// What needs no picture, ready for rows.
    pub fn for_rows(&self) -> RowEffects {
        RowEffects {
            gray: self.gray,
            tones: self.tones(),
        }
    }

    /// What each level becomes by brightness, contrast and gamma.
    fn tones(&self) -> Option<[u8; 256]> {
        let first = self
            .brightness_contrast
            .map(|[brightness, contrast]| brightness_contrast::table(brightness, contrast));
        let second = self.gamma.map(gamma::table);
        match (first, second) {
            (Some(first), Some(second)) => Some(first.map(|level| second[usize::from(level)])),
            (first, second) => first.or(second),
        }
    }
}

/// Changes of colours, each pixel by itself.
#[derive(Clone, Debug)]
pub struct RowEffects {
    gray: bool,
    tones: Option<[u8; 256]>,
}

impl RowEffects {
    /// Changes a row.
    pub fn apply(&self, row: &mut PlanarRow) {
        if self.gray {
            for x in 0..row.r.len() {
                [row.r[x], row.g[x], row.b[x]] = gray::of([row.r[x], row.g[x], row.b[x]]);
            }
        }
        if let Some(table) = &self.tones {
            for plane in [&mut row.r, &mut row.g, &mut row.b] {
                for value in plane {
                    *value = table[usize::from(*value)];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
