use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

/// Random changes to training images, with YOLOv5's names and defaults. Each is drawn from
/// (seed, epoch, image), so threads, processes and restarts do not change it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Augmentation {
    /// Largest change of hue, as a fraction of the circle.
    #[serde(alias = "hsv_h")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.hsvH is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub hsv_h: f64,
    /// Largest change of saturation, as a fraction.
    #[serde(alias = "hsv_s")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.hsvS is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub hsv_s: f64,
    /// Largest change of brightness, as a fraction.
    #[serde(alias = "hsv_v")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.hsvV is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub hsv_v: f64,
    /// Largest rotation, in degrees, either way.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 180.0",
        "messageExpression": "'augmentation.degrees is %s: choose 0 to 180'.format([self])",
    }]))))]
    pub degrees: f64,
    /// Largest shift, as a fraction of the image.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.translate is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub translate: f64,
    /// Largest change of scale: factors from 1 - x to 1 + x.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.scale is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub scale: f64,
    /// Largest shear, in degrees, either way.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 89.0",
        "messageExpression": "'augmentation.shear is %s: choose 0 to 89'.format([self])",
    }]))))]
    pub shear: f64,
    /// Largest perspective coefficient.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 0.001",
        "messageExpression": "'augmentation.perspective is %s: choose 0 to 0.001'.format([self])",
    }]))))]
    pub perspective: f64,
    /// Probability of an upside-down flip.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.flipud is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub flipud: f64,
    /// Probability of a left-right flip. Set 0 where left and right differ, as in text.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.fliplr is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub fliplr: f64,
    /// Probability of laying four images into one.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'augmentation.mosaic is %s: choose 0 to 1'.format([self])",
    }]))))]
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

impl Augmentation {
    /// Every number with its bounds.
    pub(super) fn bounds(&self) -> Vec<super::check::Bound> {
        vec![
            super::check::Bound::new("augmentation.hsvH", self.hsv_h, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.hsvS", self.hsv_s, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.hsvV", self.hsv_v, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.degrees", self.degrees, 0.0, 180.0, false),
            super::check::Bound::new("augmentation.translate", self.translate, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.scale", self.scale, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.shear", self.shear, 0.0, 89.0, false),
            super::check::Bound::new(
                "augmentation.perspective",
                self.perspective,
                0.0,
                0.001,
                false,
            ),
            super::check::Bound::new("augmentation.flipud", self.flipud, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.fliplr", self.fliplr, 0.0, 1.0, false),
            super::check::Bound::new("augmentation.mosaic", self.mosaic, 0.0, 1.0, false),
        ]
    }
}
