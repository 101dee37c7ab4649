use serde::{Deserialize, Serialize};

use super::SpecProblem;

#[cfg(feature = "schema")]
use serde_json::json;

/// The optimiser's and the loss's numbers. Defaults are YOLOv5's `hyp.scratch-low`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([
    {
        "rule": "self.schedule == 'step' || !has(self.stepEpochs)",
        "message": "hyperparameters.stepEpochs is of the schedule step only: remove it or set hyperparameters.schedule to step",
    },
    {
        "rule": "self.schedule == 'step' || !has(self.stepFactor)",
        "message": "hyperparameters.stepFactor is of the schedule step only: remove it or set hyperparameters.schedule to step",
    },
    {
        "rule": "self.schedule != 'constant' || self.lrf in [1.0, 0.01]",
        "messageExpression": "'hyperparameters.lrf is %s, but hyperparameters.schedule is constant and never changes the learning rate: remove lrf or choose another schedule'.format([self.lrf])",
    },
    {
        "rule": "self.optimizer == 'sgd' || self.momentum < 1.0",
        "messageExpression": "'hyperparameters.momentum is %s, but hyperparameters.optimizer is %s, which divides by 1 - momentum: choose below 1'.format([self.momentum, self.optimizer])",
    },
]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hyperparameters {
    /// How gradients change the weights (YOLOv5's --optimizer).
    pub optimizer: OptimizerKind,
    /// Initial learning rate.
    pub lr0: f64,
    /// Final learning rate as a fraction of lr0.
    pub lrf: f64,
    /// SGD's momentum (Nesterov); the first beta of adam and adamw, which is below 1.
    pub momentum: f64,
    /// Weight decay of convolution weights, for the nominal batch size; biases and norms have none.
    #[serde(alias = "weight_decay")]
    pub weight_decay: f64,
    /// Length of the warm-up in epochs; at least 100 steps, as in YOLOv5. 0 turns it off.
    #[serde(alias = "warmup_epochs")]
    pub warmup_epochs: f64,
    /// SGD's momentum at the start of the warm-up; Adam's beta has no warm-up.
    #[serde(alias = "warmup_momentum")]
    pub warmup_momentum: f64,
    /// Learning rate of biases at the start of the warm-up; the others start at 0.
    #[serde(alias = "warmup_bias_lr")]
    pub warmup_bias_lr: f64,
    /// Weight of the box loss (CIoU). YOLOv5: box.
    #[serde(alias = "box", alias = "box_gain")]
    pub box_gain: f64,
    /// Weight of the class loss, for 80 classes; scaled by the number of classes. YOLOv5: cls.
    #[serde(alias = "cls", alias = "cls_gain")]
    pub cls_gain: f64,
    /// Weight of positive examples in the class loss. YOLOv5: `cls_pw`.
    #[serde(alias = "cls_pw")]
    pub cls_positive_weight: f64,
    /// Weight of the objectness loss, for 640 pixels; scaled by the image area. YOLOv5: obj.
    #[serde(alias = "obj", alias = "obj_gain")]
    pub obj_gain: f64,
    /// Weight of positive examples in the objectness loss. YOLOv5: `obj_pw`.
    #[serde(alias = "obj_pw")]
    pub obj_positive_weight: f64,
    /// Largest ratio between a box's side and an anchor's for the two to match. YOLOv5: `anchor_t`.
    #[serde(alias = "anchor_t")]
    pub anchor_threshold: f64,
    /// Class targets become 1 - 0.5 x and 0.5 x.
    #[serde(alias = "label_smoothing")]
    pub label_smoothing: f64,
    /// Focus of class and objectness loss on what is not learnt yet (focal loss with alpha 0.25); 0 is
    /// plain cross entropy. YOLOv5: `fl_gamma`.
    #[serde(alias = "fl_gamma")]
    pub focal_gamma: f64,
    /// Largest norm of the gradient, which is scaled down to it; 0 is no limit. YOLOv5: 10, fixed.
    pub gradient_clip: f64,
    /// How the learning rate falls over the epochs.
    pub schedule: Schedule,
    /// Number of epochs between two falls of the schedule `step`. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_epochs: Option<u32>,
    /// By what the schedule `step` multiplies the learning rate. Default 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_factor: Option<f64>,
    /// Batch size to which gradients are accumulated before a step of the optimiser, and to which
    /// weight decay refers. YOLOv5: 64, fixed.
    #[serde(alias = "nbs")]
    pub nominal_batch_size: u32,
    /// Over which images the loss is averaged: `global` makes any number of processes equal one,
    /// `perRank` averages in each process as YOLOv5's DDP does.
    pub loss_normalisation: LossNormalisation,
}

impl Default for Hyperparameters {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::Sgd,
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
            focal_gamma: 0.0,
            gradient_clip: 10.0,
            schedule: Schedule::Linear,
            step_epochs: None,
            step_factor: None,
            nominal_batch_size: 64,
            loss_normalisation: LossNormalisation::Global,
        }
    }
}

impl Hyperparameters {
    /// Numbers that do not go together; [`super::out_of_range`] has the range of each.
    pub(super) fn problems(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        for (field, set) in [
            ("stepEpochs", self.step_epochs.is_some()),
            ("stepFactor", self.step_factor.is_some()),
        ] {
            if set && self.schedule != Schedule::Step {
                problems.push(SpecProblem(format!(
                    "hyperparameters.{field} is of the schedule step only: remove it or set hyperparameters.schedule to step"
                )));
            }
        }
        let untouched = [1.0, Self::default().lrf].contains(&self.lrf);
        if self.schedule == Schedule::Constant && !untouched {
            problems.push(SpecProblem(format!(
                "hyperparameters.lrf is {}, but hyperparameters.schedule is constant and never changes the learning rate: remove lrf or choose another schedule",
                self.lrf
            )));
        }
        let adam = match self.optimizer {
            OptimizerKind::Sgd => None,
            OptimizerKind::Adam => Some("adam"),
            OptimizerKind::AdamW => Some("adamw"),
        };
        if let Some(adam) = adam
            && self.momentum >= 1.0
        {
            problems.push(SpecProblem(format!(
                "hyperparameters.momentum is {}, but hyperparameters.optimizer is {adam}, which divides by 1 - momentum: choose below 1",
                self.momentum
            )));
        }
        problems
    }
}

/// How gradients change the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Gradient descent with Nesterov momentum.
    #[default]
    #[serde(alias = "SGD")]
    Sgd,
    /// Adam; weight decay is added to the gradients.
    #[serde(alias = "Adam")]
    Adam,
    /// Adam with weight decay of its own.
    #[serde(alias = "AdamW")]
    AdamW,
}

/// How the learning rate falls over the epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Schedule {
    /// In a straight line from `lr0` to `lr0 * lrf`.
    #[default]
    Linear,
    /// Along half a cosine (YOLOv5's --cos-lr).
    Cosine,
    /// Not at all. `lrf` must be 1 or absent.
    Constant,
    /// By `stepFactor` after every `stepEpochs` epochs, not below `lr0 * lrf`.
    Step,
    /// Up from `lr0 / 25` to `lr0` in the first 30 % of the steps, then down to `lr0 * lrf`, both along half a
    /// cosine. It is a warm-up of its own: set `warmupEpochs` to 0.
    OneCycle,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_has_a_momentum_below_1() {
        let problems = |optimizer, momentum| {
            let numbers = Hyperparameters {
                optimizer,
                momentum,
                ..Hyperparameters::default()
            };
            let problems = numbers.problems().into_iter();
            problems.map(|problem| problem.0).collect::<Vec<_>>()
        };
        assert_eq!(
            [
                "hyperparameters.momentum is 1, but hyperparameters.optimizer is adamw, which divides by 1 - momentum: choose below 1"
            ],
            *problems(OptimizerKind::AdamW, 1.0)
        );
        assert_eq!(1, problems(OptimizerKind::Adam, 1.0).len());
        assert!(problems(OptimizerKind::Adam, 0.999).is_empty());
        assert!(problems(OptimizerKind::Sgd, 1.0).is_empty());
    }
}
