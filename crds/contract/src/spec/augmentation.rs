use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

/// Random changes to training images, with YOLOv5's names and defaults. Each is drawn from
/// (seed, epoch, image), so threads, processes and restarts do not change it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([
    {
        "rule": "self.mixup == 0.0 || self.mosaic > 0.0",
        "messageExpression": "'augmentation.mixup is %s, but augmentation.mosaic is 0 and only mosaics are mixed: set augmentation.mosaic above 0 or augmentation.mixup to 0'.format([self.mixup])",
    },
    {
        "rule": "self.mosaic9 == 0.0 || self.mosaic > 0.0",
        "messageExpression": "'augmentation.mosaic9 is %s, but augmentation.mosaic is 0 and it is a share of the mosaics: set augmentation.mosaic above 0 or augmentation.mosaic9 to 0'.format([self.mosaic9])",
    },
]))))]
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
    /// Share of the mosaics that are laid from nine images in place of four.
    pub mosaic9: f64,
    /// Probability of mixing a mosaic with a second one, pixel by pixel.
    pub mixup: f64,
    /// Probability of replacing a free part of the image by the same part of another one.
    pub cutmix: f64,
    /// Share of the objects of an image that are pasted into it once more, mirrored, where they cover
    /// less than 30 % of other objects. Only objects whose labels are polygons.
    #[serde(alias = "copy_paste")]
    pub copy_paste: f64,
    /// Number of last epochs without `mosaic`, `mixup`, `cutmix` and `copyPaste`, in which the network
    /// learns images as they will be. YOLOv5 has 0. Not together with `training.hours`, where nobody knows which
    /// epochs will be the last.
    #[serde(alias = "close_mosaic")]
    pub close_mosaic: u32,
    /// Probability of cutting out a part of 80 to 100 % of the area, with an aspect of 3:4 to 4:3, and
    /// enlarging it to the whole.
    #[serde(alias = "random_crop")]
    pub random_crop: f64,
    /// Probability of covering parts of the image with rectangles of several sizes, grey or of a random
    /// colour. Objects of which more than 60 % are covered lose their labels.
    pub cutout: f64,
    /// Probability of a blur: the mean of 3 x 3, 5 x 5 or 7 x 7 pixels.
    pub blur: f64,
    /// Probability of a median blur of 3 x 3, 5 x 5 or 7 x 7 pixels.
    #[serde(alias = "median_blur")]
    pub median_blur: f64,
    /// Probability of losing all colour.
    pub gray: f64,
    /// Probability of evening out local contrast (CLAHE): on lightness, in 8 x 8 tiles, with a clip
    /// limit from 1 to 4.
    pub clahe: f64,
    /// Probability of a change of brightness and of contrast, each by up to 20 % either way.
    #[serde(alias = "brightness_contrast")]
    pub brightness_contrast: f64,
    /// Probability of a gamma between 0.8 and 1.2.
    pub gamma: f64,
    /// Probability of the loss of JPEG compression at a quality from 75 to 100.
    pub jpeg: f64,
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
            mosaic9: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
            copy_paste: 0.0,
            close_mosaic: 0,
            random_crop: 0.0,
            cutout: 0.0,
            blur: 0.0,
            median_blur: 0.0,
            gray: 0.0,
            clahe: 0.0,
            brightness_contrast: 0.0,
            gamma: 0.0,
            jpeg: 0.0,
        }
    }
}
