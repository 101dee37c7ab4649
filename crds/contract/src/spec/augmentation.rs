use serde::{Deserialize, Serialize};

/// Random changes to training images, with YOLOv5's names and defaults. Each is drawn from
/// (seed, epoch, image), so threads, processes and restarts do not change it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Augmentation {
    /// Largest change of hue, as a fraction of the circle.
    #[serde(alias = "hsv_h")]
    pub hsv_h: f64,
    /// Largest change of saturation, as a fraction.
    #[serde(alias = "hsv_s")]
    pub hsv_s: f64,
    /// Largest change of brightness, as a fraction.
    #[serde(alias = "hsv_v")]
    pub hsv_v: f64,
    /// Largest rotation, in degrees, either way.
    pub degrees: f64,
    /// Largest shift, as a fraction of the image.
    pub translate: f64,
    /// Largest change of scale: factors from 1 - x to 1 + x.
    pub scale: f64,
    /// Largest shear, in degrees, either way.
    pub shear: f64,
    /// Largest perspective coefficient.
    pub perspective: f64,
    /// Probability of an upside-down flip.
    pub flipud: f64,
    /// Probability of a left-right flip. Set 0 where left and right differ, as in text.
    pub fliplr: f64,
    /// Probability of laying four images into one.
    pub mosaic: f64,
}

impl Default for Augmentation {
    fn default() -> Self {
        Self {
            hsv_h: 0.015,
            hsv_s: 0.7,
            hsv_v: 0.4,
            degrees: 0.0,
            translate: 0.1,
            scale: 0.5,
            shear: 0.0,
            perspective: 0.0,
            flipud: 0.0,
            fliplr: 0.5,
            mosaic: 1.0,
        }
    }
}
