use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

/// The optimiser's and the loss's numbers. Defaults are YOLOv5's `hyp.scratch-low`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hyperparameters {
    /// Initial learning rate.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self > 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.lr0 is %s: choose above 0 and at most 1'.format([self])",
    }]))))]
    pub lr0: f64,
    /// Final learning rate as a fraction of lr0.
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self > 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.lrf is %s: choose above 0 and at most 1'.format([self])",
    }]))))]
    pub lrf: f64,
    /// SGD momentum (Nesterov).
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.momentum is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub momentum: f64,
    /// Weight decay of convolution weights, for the nominal batch size; biases and norms have none.
    #[serde(alias = "weight_decay")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.weightDecay is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub weight_decay: f64,
    /// Length of the warm-up in epochs; at least 100 steps, as in YOLOv5. 0 turns it off.
    #[serde(alias = "warmup_epochs")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1000.0",
        "messageExpression": "'hyperparameters.warmupEpochs is %s: choose 0 to 1000'.format([self])",
    }]))))]
    pub warmup_epochs: f64,
    /// Momentum at the start of the warm-up.
    #[serde(alias = "warmup_momentum")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.warmupMomentum is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub warmup_momentum: f64,
    /// Learning rate of biases at the start of the warm-up; the others start at 0.
    #[serde(alias = "warmup_bias_lr")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 1.0",
        "messageExpression": "'hyperparameters.warmupBiasLr is %s: choose 0 to 1'.format([self])",
    }]))))]
    pub warmup_bias_lr: f64,
    /// Weight of the box loss (CIoU). YOLOv5: box.
    #[serde(alias = "box", alias = "box_gain")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.boxGain is %s: choose 0 to 100'.format([self])",
    }]))))]
    pub box_gain: f64,
    /// Weight of the class loss, for 80 classes; scaled by the number of classes. YOLOv5: cls.
    #[serde(alias = "cls", alias = "cls_gain")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.clsGain is %s: choose 0 to 100'.format([self])",
    }]))))]
    pub cls_gain: f64,
    /// Weight of positive examples in the class loss. YOLOv5: `cls_pw`.
    #[serde(alias = "cls_pw")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.clsPositiveWeight is %s: choose 0 to 100'.format([self])",
    }]))))]
    pub cls_positive_weight: f64,
    /// Weight of the objectness loss, for 640 pixels; scaled by the image area. YOLOv5: obj.
    #[serde(alias = "obj", alias = "obj_gain")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.objGain is %s: choose 0 to 100'.format([self])",
    }]))))]
    pub obj_gain: f64,
    /// Weight of positive examples in the objectness loss. YOLOv5: `obj_pw`.
    #[serde(alias = "obj_pw")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.objPositiveWeight is %s: choose 0 to 100'.format([self])",
    }]))))]
    pub obj_positive_weight: f64,
    /// Largest ratio between a box's side and an anchor's for the two to match. YOLOv5: `anchor_t`.
    #[serde(alias = "anchor_t")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 1.0 && self <= 100.0",
        "messageExpression": "'hyperparameters.anchorThreshold is %s: choose 1 to 100'.format([self])",
    }]))))]
    pub anchor_threshold: f64,
    /// Class targets become 1 - 0.5 x and 0.5 x.
    #[serde(alias = "label_smoothing")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 0.0 && self <= 0.9",
        "messageExpression": "'hyperparameters.labelSmoothing is %s: choose 0 to 0.9'.format([self])",
    }]))))]
    pub label_smoothing: f64,
    /// How the learning rate falls over the epochs.
    pub schedule: Schedule,
    /// Batch size to which gradients are accumulated before a step of the optimiser, and to which
    /// weight decay refers. YOLOv5: 64, fixed.
    #[serde(alias = "nbs")]
    #[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "self >= 1 && self <= 65536",
        "messageExpression": "'hyperparameters.nominalBatchSize is %s: choose 1 to 65536'.format([self])",
    }]))))]
    pub nominal_batch_size: u32,
    /// Over which images the loss is averaged: `global` makes any number of processes equal one,
    /// `perRank` averages in each process as YOLOv5's DDP does.
    pub loss_normalisation: LossNormalisation,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            lr0: 0.01,
            lrf: 0.01,
            momentum: 0.937,
            weight_decay: 0.0005,
            warmup_epochs: 3.0,
            warmup_momentum: 0.8,
            warmup_bias_lr: 0.1,
            box_gain: 0.05,
            cls_gain: 0.5,
            cls_positive_weight: 1.0,
            obj_gain: 1.0,
            obj_positive_weight: 1.0,
            anchor_threshold: 4.0,
            label_smoothing: 0.0,
            schedule: Schedule::Linear,
            nominal_batch_size: 64,
            loss_normalisation: LossNormalisation::Global,
        }
    }
}

impl Hyperparameters {
    /// Name, value, bounds and whether the lower bound itself is excluded, for every bounded number.
    pub(super) fn bounds(&self) -> Vec<super::check::Bound> {
        vec![
            super::check::Bound::new("hyperparameters.lr0", self.lr0, 0.0, 1.0, true),
            super::check::Bound::new("hyperparameters.lrf", self.lrf, 0.0, 1.0, true),
            super::check::Bound::new("hyperparameters.momentum", self.momentum, 0.0, 1.0, false),
            super::check::Bound::new(
                "hyperparameters.weightDecay",
                self.weight_decay,
                0.0,
                1.0,
                false,
            ),
            super::check::Bound::new(
                "hyperparameters.warmupEpochs",
                self.warmup_epochs,
                0.0,
                1000.0,
                false,
            ),
            super::check::Bound::new(
                "hyperparameters.warmupMomentum",
                self.warmup_momentum,
                0.0,
                1.0,
                false,
            ),
            super::check::Bound::new(
                "hyperparameters.warmupBiasLr",
                self.warmup_bias_lr,
                0.0,
                1.0,
                false,
            ),
            super::check::Bound::new("hyperparameters.boxGain", self.box_gain, 0.0, 100.0, false),
            super::check::Bound::new("hyperparameters.clsGain", self.cls_gain, 0.0, 100.0, false),
            super::check::Bound::new(
                "hyperparameters.clsPositiveWeight",
                self.cls_positive_weight,
                0.0,
                100.0,
                false,
            ),
            super::check::Bound::new("hyperparameters.objGain", self.obj_gain, 0.0, 100.0, false),
            super::check::Bound::new(
                "hyperparameters.objPositiveWeight",
                self.obj_positive_weight,
                0.0,
                100.0,
                false,
            ),
            super::check::Bound::new(
                "hyperparameters.anchorThreshold",
                self.anchor_threshold,
                1.0,
                100.0,
                false,
            ),
            super::check::Bound::new(
                "hyperparameters.labelSmoothing",
                self.label_smoothing,
                0.0,
                0.9,
                false,
            ),
        ]
    }
}

/// How the learning rate falls over the epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// In a straight line from `lr0` to `lr0 * lrf`.
    #[default]
    Linear,
    /// Along half a cosine (YOLOv5's --cos-lr).
    Cosine,
}

/// Over which images the loss is averaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LossNormalisation {
    /// Over the whole step's images, whatever process they are on.
    #[default]
    Global,
    /// In each process over its own images.
    PerRank,
}
