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

use contract::spec::Hyperparameters;
use tch::{TchError, Tensor};

use crate::architecture::{ANCHORS_PER_LEVEL, LEVELS, outputs_per_anchor};
use crate::assign::{BatchShape, assign};
use crate::error::Error;
use crate::options::{Anchors, NetworkOptions};
use crate::sums;

pub use crate::assign::{Assignment, Target};
pub use crate::sums::LevelSums;

/// Weight of each level's objectness: small objects are many cells and few objects.
const BALANCE: [f64; LEVELS] = [4.0, 1.0, 0.4];
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
        }
    }

    /// The gains for training with `classes` classes and images of `image_size` pixels a side
    /// (YOLOv5 v7.0: the factor 3 / levels is 1 in these networks).
    pub fn scaled(hyperparameters: &Hyperparameters, classes: usize, image_size: u32) -> Self {
        let settings = Self::unscaled(hyperparameters);
        let by_levels = 3.0 / LEVELS as f64;
        Self {
            box_gain: settings.box_gain * by_levels,
            class_gain: settings.class_gain * classes as f64 / NOMINAL_CLASSES * by_levels,
            object_gain: settings.object_gain
                * (f64::from(image_size) / NOMINAL_IMAGE).powi(2)
                * by_levels,
            ..settings
        }
    }
}

/// What the sums of each level are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denominators {
    /// Matches of objects with cells and anchors.
    pub matches: [u64; LEVELS],
    /// Predictions: images times anchors times cells.
    pub cells: [u64; LEVELS],
}

impl Denominators {
    /// The six numbers in a row, to be added up over processes.
    pub fn to_array(self) -> [i64; 2 * LEVELS] {
        let mut array = [0; 2 * LEVELS];
        for (to, from) in array
            .iter_mut()
            .zip(self.matches.into_iter().chain(self.cells))
        {
            *to = from as i64;
        }
        array
    }

    /// The inverse of [`Denominators::to_array`].
    pub fn from_array(array: [i64; 2 * LEVELS]) -> Self {
        Self {
            matches: std::array::from_fn(|level| array[level] as u64),
            cells: std::array::from_fn(|level| array[LEVELS + level] as u64),
        }
    }
}

impl AddAssign for Denominators {
    fn add_assign(&mut self, other: Self) {
        for level in 0..LEVELS {
            self.matches[level] += other.matches[level];
            self.cells[level] += other.cells[level];
        }
    }
}

/// The loss of one network.
#[derive(Clone, Debug, PartialEq)]
pub struct Loss {
    classes: usize,
    anchors: Anchors,
    settings: LossSettings,
}

/// The sums of one batch.
#[derive(Debug)]
pub struct LossTerms {
    /// Those of each level.
    pub levels: [LevelSums; LEVELS],
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
            classes: options.classes,
            anchors: options.anchors,
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
        if let Some(target) = targets
            .iter()
            .find(|t| usize::from(t.class) >= self.classes)
        {
            return Err(Error::TargetClass {
                class: target.class,
                classes: self.classes,
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
            &self.anchors,
            self.settings.anchor_threshold as f32,
        )
    }

    /// The sums for raw predictions `[images, 3, height / stride, width / stride, 5 + classes]`.
    pub fn terms(&self, raw: &[Tensor], assignment: &Assignment) -> Result<LossTerms, Error> {
        let level = |level: usize| {
            let matches = &assignment.levels[level];
            let [images, height, width] = matches.grid;
            let anchors = ANCHORS_PER_LEVEL as i64;
            let expected = vec![
                images,
                anchors,
                height,
                width,
                outputs_per_anchor(self.classes),
            ];
            match raw.get(level) {
                Some(raw) if raw.size() == expected => {
                    sums::of_level(raw, matches, self.classes, &self.settings)
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
        };
        Ok(LossTerms {
            levels: [level(0)?, level(1)?, level(2)?],
            own: assignment.denominators(),
            classes: self.classes,
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

        let boxes = weighted_sum(|i| (&self.levels[i].boxes, box_gain / matches[i]))?;
        let objects =
            weighted_sum(|i| (&self.levels[i].objects, object_gain * BALANCE[i] / cells[i]))?;
        let class =
            weighted_sum(|i| (&self.levels[i].classes, class_gain / (matches[i] * classes)))?;
        let parts = Tensor::f_stack(&[boxes, objects, class], 0)?;
        let loss = parts.f_sum(parts.kind())?.f_mul_scalar(scale)?;
        Ok(TotalLoss {
            loss,
            parts: parts.f_detach()?,
        })
    }
}

/// The sum over levels of a tensor times a weight.
fn weighted_sum<'a>(term: impl Fn(usize) -> (&'a Tensor, f64)) -> Result<Tensor, TchError> {
    let weighted = |level| {
        let (sum, weight) = term(level);
        sum.f_mul_scalar(weight)
    };
    weighted(0)?.f_add(&weighted(1)?)?.f_add(&weighted(2)?)
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;
