//! The loss of YOLOv5 v7.0, as sums and counts.
//!
//! Each process sums over its own images; what the sums are divided by may be its own counts, as in
//! v5, or those of all processes, which makes several processes equal one:
//!
//! ```text
//! targets ── assign ──> Assignment ── denominators ──> (all-reduce) ──> Denominators ┐
//! images ── network ──> raw ── terms ──> LossTerms ────────────────────── total ─────┴> loss
//! ```

use std::ops::AddAssign;
use std::sync::Arc;

use contract::spec::Hyperparameters;
use tch::{Device, Kind, TchError, Tensor};

use crate::architecture::{Architecture, MAX_LEVELS};
use crate::assign::{BatchShape, assign};
use crate::error::Error;
use crate::options::NetworkOptions;
use crate::sums;

pub use crate::assign::{Assignment, Target};
pub use crate::sums::LevelSums;

/// Weight of each level's objectness: small objects are many cells and few objects.
const BALANCE_OF_THREE: [f64; MAX_LEVELS] = [4.0, 1.0, 0.4, 0.0, 0.0];
/// The same for any other number of levels.
const BALANCE: [f64; MAX_LEVELS] = [4.0, 1.0, 0.25, 0.06, 0.02];
/// What YOLOv5's gains are written for.
const NOMINAL_CLASSES: f64 = 80.0;
const NOMINAL_IMAGE: f64 = 640.0;

/// The loss's numbers, as the loss uses them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossSettings {
    /// Weight of the box part.
    pub box_gain: f64,
    /// Weight of the class part.
    pub class_gain: f64,
    /// Weight of the objectness part.
    pub object_gain: f64,
    /// Weight of positive examples in the class part.
    pub class_positive_weight: f64,
    /// Weight of positive examples in the objectness part.
    pub object_positive_weight: f64,
    /// By how many times an anchor's side may differ from a box's.
    pub anchor_threshold: f64,
    /// Class targets become `1 - 0.5 x` and `0.5 x`.
    pub label_smoothing: f64,
    /// Exponent of the focal factor on both cross entropies; 0 is none.
    pub focal_gamma: f64,
}

impl LossSettings {
    /// The gains as the user wrote them.
    pub fn unscaled(hyperparameters: &Hyperparameters) -> Self {
        Self {
            box_gain: hyperparameters.box_gain,
            class_gain: hyperparameters.cls_gain,
            object_gain: hyperparameters.obj_gain,
            class_positive_weight: hyperparameters.cls_positive_weight,
            object_positive_weight: hyperparameters.obj_positive_weight,
            anchor_threshold: hyperparameters.anchor_threshold,
            label_smoothing: hyperparameters.label_smoothing,
            focal_gamma: hyperparameters.focal_gamma,
        }
    }

    /// The gains for training `architecture` with images of `image_size` pixels a side: as written for 3
    /// levels, 80 classes and 640 pixels (YOLOv5 v7.0).
    pub fn scaled(
        hyperparameters: &Hyperparameters,
        architecture: &Architecture,
        image_size: u32,
    ) -> Self {
        let settings = Self::unscaled(hyperparameters);
        let by_levels = 3.0 / architecture.levels().len() as f64;
        let classes = architecture.classes() as f64;
        Self {
            box_gain: settings.box_gain * by_levels,
            class_gain: settings.class_gain * classes / NOMINAL_CLASSES * by_levels,
            object_gain: settings.object_gain
                * (f64::from(image_size) / NOMINAL_IMAGE).powi(2)
                * by_levels,
            ..settings
        }
    }
}

/// What the sums of each level are divided by; 0 for levels that the network does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denominators {
    /// Matches of objects with cells and anchors.
    pub matches: [u64; MAX_LEVELS],
    /// Predictions: images times anchors times cells.
    pub cells: [u64; MAX_LEVELS],
}

impl Denominators {
    /// How many numbers they are.
    pub const COUNT: usize = 2 * MAX_LEVELS;

    /// All numbers in a row, to be added up over processes.
    pub fn to_array(self) -> [i64; Self::COUNT] {
        let mut array = [0; Self::COUNT];
        for (to, from) in array
            .iter_mut()
            .zip(self.matches.into_iter().chain(self.cells))
        {
            *to = from as i64;
        }
        array
    }

    /// The inverse of [`Denominators::to_array`].
    pub fn from_array(array: [i64; Self::COUNT]) -> Self {
        Self {
            matches: std::array::from_fn(|level| array[level] as u64),
            cells: std::array::from_fn(|level| array[MAX_LEVELS + level] as u64),
        }
    }
}

impl AddAssign for Denominators {
    fn add_assign(&mut self, other: Self) {
        for level in 0..MAX_LEVELS {
            self.matches[level] += other.matches[level];
            self.cells[level] += other.cells[level];
        }
    }
}

/// The loss of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    architecture: Arc<Architecture>,
    settings: LossSettings,
}

/// The sums of one batch.
#[derive(Debug)]
pub struct LossTerms {
    /// Those of each level.
    pub levels: Vec<LevelSums>,
    /// This batch's own counts.
    pub own: Denominators,
    classes: usize,
    settings: LossSettings,
}

/// The loss of one batch.
#[derive(Debug)]
pub struct TotalLoss {
    /// What to differentiate: a scalar.
    pub loss: Tensor,
    /// Box, objectness and class part with their gains but without the scale, `[3]`, for people.
    pub parts: Tensor,
}

impl Loss {
    /// The loss for the network of `options`.
    pub fn new(options: &NetworkOptions, settings: LossSettings) -> Self {
        Self {
            architecture: Arc::clone(&options.architecture),
            settings,
        }
    }

    /// Finds the predictions that answer for `targets` in a batch of `images` images of `height` by
    /// `width` pixels. Needs no tensor, so it can be done before the forward pass.
    pub fn assign(
        &self,
        targets: &[Target],
        images: usize,
        height: usize,
        width: usize,
    ) -> Result<Assignment, Error> {
        let classes = self.architecture.classes();
        if let Some(target) = targets.iter().find(|t| usize::from(t.class) >= classes) {
            return Err(Error::TargetClass {
                class: target.class,
                classes,
            });
        }
        let shape = BatchShape {
            images,
            height,
            width,
        };
        assign(
            targets,
            shape,
            self.architecture.levels(),
            self.settings.anchor_threshold as f32,
        )
    }

    /// The sums for raw predictions `[images, anchors, height / stride, width / stride, 5 + classes]` of each
    /// level.
    pub fn terms(&self, raw: &[Tensor], assignment: &Assignment) -> Result<LossTerms, Error> {
        let classes = self.architecture.classes();
        let outputs = self.architecture.outputs_per_anchor();
        let levels = assignment.levels.iter().enumerate();
        let levels = levels
            .map(|(level, matches)| {
                let [images, height, width] = matches.grid;
                let anchors = matches.anchors_per_cell as i64;
                let expected = vec![images, anchors, height, width, outputs];
                match raw.get(level) {
                    Some(raw) if raw.size() == expected => {
                        sums::of_level(raw, matches, classes, &self.settings)
                    }
                    other => {
                        let found = other.map(Tensor::size).unwrap_or_default();
                        Err(Error::LevelShape {
                            level,
                            expected,
                            found,
                        })
                    }
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(LossTerms {
            levels,
            own: assignment.denominators(),
            classes,
            settings: self.settings,
        })
    }
}

impl LossTerms {
    /// The loss, averaged over `denominators` and multiplied by `scale`.
    ///
    /// With this batch's own counts and its number of images as scale this is v5's loss on one
    /// device. With the sum of all processes' counts it is this process's share of the loss over all
    /// their images: the shares, their gradients and their parts add up.
    pub fn total(&self, denominators: &Denominators, scale: f64) -> Result<TotalLoss, Error> {
        self.weighted(denominators, scale)
            .map_err(|source| Error::Loss {
                part: "weighted sum",
                source,
            })
    }

    fn weighted(&self, denominators: &Denominators, scale: f64) -> Result<TotalLoss, TchError> {
        let LossSettings {
            box_gain,
            class_gain,
            object_gain,
            ..
        } = self.settings;
        // Levels without matches have empty sums, which stay 0 whatever they are divided by.
        let matches = denominators.matches.map(|matches| matches.max(1) as f64);
        let cells = denominators.cells.map(|cells| cells.max(1) as f64);
        let classes = self.classes as f64;

        let balance = if self.levels.len() == 3 {
            BALANCE_OF_THREE
        } else {
            BALANCE
        };
        let levels = || self.levels.iter().enumerate();
        let boxes = levels().map(|(i, level)| level.boxes.f_mul_scalar(box_gain / matches[i]));
        let objects = levels().map(|(i, level)| {
            let weight = object_gain * balance[i] / cells[i];
            level.objects.f_mul_scalar(weight)
        });
        let class = levels().map(|(i, level)| {
            let weight = class_gain / (matches[i] * classes);
            level.classes.f_mul_scalar(weight)
        });
        let (boxes, objects, class) = (sum(boxes)?, sum(objects)?, sum(class)?);
        let parts = Tensor::f_stack(&[boxes, objects, class], 0)?;
        let loss = parts.f_sum(parts.kind())?.f_mul_scalar(scale)?;
        Ok(TotalLoss {
            loss,
            parts: parts.f_detach()?,
        })
    }
}

/// The sum of the terms of all levels, in their order.
fn sum(terms: impl Iterator<Item = Result<Tensor, TchError>>) -> Result<Tensor, TchError> {
    let none = || Tensor::f_zeros([], (Kind::Float, Device::Cpu));
    terms
        .reduce(|sum, term| sum?.f_add(&term?))
        .unwrap_or_else(none)
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
