//! Precision, recall and mean average precision over a data set.
//!
//! YOLOv5 v7.0 behaviour in `f64`: 101-point interpolation, and precision and recall reported at
//! the confidence that maximises the smoothed mean F1. (pycocotools differs in matching and in
//! where it samples.)

use crate::image_stats::ImageStats;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

const LEVELS: usize = 10;
/// Numbers of a curve.
pub const CURVE_POINTS: usize = 1000;
const TINY: f64 = 1e-16;

/// The result of one evaluation. Means are over the classes that occur in the labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Per class of the labels, in class order.
    pub classes: Vec<ClassResult>,
    /// Mean precision at `best_confidence`.
    pub precision: f64,
    /// Mean recall at `best_confidence`.
    pub recall: f64,
    /// Mean average precision at `IoU` 0.5.
    pub map50: f64,
    /// Mean average precision over `IoU` 0.5 to 0.95.
    pub map50_95: f64,
    /// The confidence threshold with the highest smoothed mean F1.
    pub best_confidence: f64,
}

impl Evaluation {
    /// Of each of `classes` classes, the average precision over `IoU` 0.5 to 0.95: that of all together for those
    /// without labels, of which nothing is known.
    pub fn class_aps(&self, classes: usize) -> Vec<f64> {
        let mut aps = vec![self.map50_95; classes];
        for result in &self.classes {
            if let Some(ap) = aps.get_mut(usize::from(result.class)) {
                *ap = result.ap.iter().sum::<f64>() / LEVELS as f64;
            }
        }
        aps
    }
}

/// The result of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassResult {
    /// Class index.
    pub class: u16,
    /// Number of images with such a label.
    #[serde(default)]
    pub images: u64,
    /// Number of labels.
    pub labels: u64,
    /// Precision at the common best confidence.
    pub precision: f64,
    /// Recall at the common best confidence.
    pub recall: f64,
    /// Average precision at `IoU` 0.5, 0.55, ..., 0.95.
    pub ap: [f64; LEVELS],
}

/// Two ranks evaluated the same image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "image {image_index} was evaluated more than once: give every rank its own share of the images"
)]
pub struct DuplicateImageError {
    /// The image.
    pub image_index: u32,
}

impl ClassResult {
    /// Average precision at `IoU` 0.5.
    pub fn ap50(&self) -> f64 {
        self.ap[0]
    }

    /// Mean of the average precision over `IoU` 0.5 to 0.95.
    pub fn ap50_95(&self) -> f64 {
        self.ap.iter().sum::<f64>() / LEVELS as f64
    }
}

/// Joins the statistics of all ranks, in any order, into image order.
///
/// The evaluation then does not depend on the number of ranks.
pub fn merge(mut stats: Vec<ImageStats>) -> Result<Vec<ImageStats>, DuplicateImageError> {
    stats.sort_by_key(|image| image.image_index);
    match stats
        .windows(2)
        .find(|pair| pair[0].image_index == pair[1].image_index)
    {
        Some(pair) => Err(DuplicateImageError {
            image_index: pair[0].image_index,
        }),
        None => Ok(stats),
    }
}

/// Evaluates merged statistics. Without labels everything is 0.
///
/// Detections of equal confidence count in image order, then in the order within the image.
pub fn ap_per_class(stats: &[ImageStats]) -> Evaluation {
    with_curves(stats).0
}

/// [`ap_per_class`], and for each class of the labels, in their order, how it comes about.
pub fn with_curves(stats: &[ImageStats]) -> (Evaluation, Vec<ClassCurves>) {
    let mut labels: BTreeMap<u16, u64> = BTreeMap::new();
    let mut images: BTreeMap<u16, u64> = BTreeMap::new();
    for image in stats {
        for class in &image.target_class {
            *labels.entry(*class).or_default() += 1;
        }
        for class in image.target_class.iter().collect::<BTreeSet<_>>() {
            *images.entry(*class).or_default() += 1;
        }
    }
    let mut ranked: BTreeMap<u16, Vec<(f32, u16)>> = BTreeMap::new();
    for image in stats {
        let rows = image.conf.iter().zip(&image.tp).zip(&image.pred_class);
        for ((conf, tp), class) in rows.filter(|(_, class)| labels.contains_key(class)) {
            ranked.entry(*class).or_default().push((*conf, *tp));
        }
    }
    let curves: Vec<ClassCurves> = labels
        .iter()
        .map(|(class, count)| {
            ClassCurves::of(ranked.remove(class).unwrap_or_default(), *count as f64)
        })
        .collect();
    let best = best_f1_index(&curves);
    let classes: Vec<ClassResult> = labels
        .into_iter()
        .zip(&curves)
        .map(|((class, labels), curves)| ClassResult {
            class,
            images: images[&class],
            labels,
            precision: curves.precision[best],
            recall: curves.recall[best],
            ap: curves.ap,
        })
        .collect();
    let mean = |of: fn(&ClassResult) -> f64| {
        // Nothing adds up to -0.
        (classes.iter().map(of).sum::<f64>() + 0.0) / classes.len().max(1) as f64
    };
    let evaluation = Evaluation {
        precision: mean(|c| c.precision),
        recall: mean(|c| c.recall),
        map50: mean(ClassResult::ap50),
        map50_95: mean(ClassResult::ap50_95),
        best_confidence: curve_confidence(best),
        classes,
    };
    (evaluation, curves)
}

/// Area under the precision-recall curve.
///
/// `recall` ascends; both have one value per detection in order of confidence. The curve is extended
/// by (0, 1) and (1, 0), precision made non-increasing, sampled at 101 recalls and integrated by
/// trapezoids.
pub fn average_precision(recall: &[f64], precision: &[f64]) -> f64 {
    let (recalls, envelope) = envelope(recall, precision);
    let at = |k: i32| interpolate(f64::from(k) / 100.0, &recalls, &envelope, 1.0);
    (0..100)
        .map(|k| f64::midpoint(at(k), at(k + 1)) / 100.0)
        .sum()
}

/// Recalls and precisions of the curve whose area is the average precision.
fn envelope(recall: &[f64], precision: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mut recalls = vec![0.0];
    recalls.extend_from_slice(recall);
    recalls.push(1.0);
    let mut envelope = vec![1.0];
    envelope.extend_from_slice(precision);
    envelope.push(0.0);
    for k in (0..envelope.len() - 1).rev() {
        envelope[k] = envelope[k].max(envelope[k + 1]);
    }
    (recalls, envelope)
}

/// The curves of one class at `IoU` 0.5, [`CURVE_POINTS`] numbers each, over an axis of equal steps from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassCurves {
    /// Precision over the confidence threshold.
    pub precision: Vec<f64>,
    /// Recall over the confidence threshold.
    pub recall: Vec<f64>,
    /// Precision over recall: non-increasing.
    pub precision_at_recall: Vec<f64>,
    ap: [f64; LEVELS],
}

impl ClassCurves {
    /// The harmonic mean of precision and recall over the confidence threshold.
    pub fn f1(&self) -> Vec<f64> {
        let pairs = self.precision.iter().zip(&self.recall);
        pairs.map(|(p, r)| 2.0 * p * r / (p + r + TINY)).collect()
    }

    fn of(mut detections: Vec<(f32, u16)>, labels: f64) -> Self {
        if detections.is_empty() {
            let zeros = vec![0.0; CURVE_POINTS];
            return Self {
                precision: zeros.clone(),
                precision_at_recall: zeros.clone(),
                recall: zeros,
                ap: [0.0; LEVELS],
            };
        }
        // Stable: the order does not depend on anything but the data.
        detections.sort_by(|a, b| b.0.total_cmp(&a.0));
        let falling: Vec<f64> = detections.iter().map(|d| -f64::from(d.0)).collect();
        let mut curves = (Vec::new(), Vec::new(), Vec::new());
        let ap = std::array::from_fn(|level| {
            let mut right = 0.0;
            let (mut recall, mut precision) = (Vec::new(), Vec::new());
            for (seen, (_, bits)) in (1..).zip(&detections) {
                right += f64::from(bits >> level & 1);
                recall.push(right / (labels + TINY));
                precision.push(right / f64::from(seen));
            }
            let area = average_precision(&recall, &precision);
            if level == 0 {
                let sample = |values: &[f64], left: f64| {
                    let at = |k| interpolate(-curve_confidence(k), &falling, values, left);
                    (0..CURVE_POINTS).map(at).collect()
                };
                let (recalls, envelope) = envelope(&recall, &precision);
                let at = |k| interpolate(curve_confidence(k), &recalls, &envelope, 1.0);
                let precision_at_recall = (0..CURVE_POINTS).map(at).collect();
                curves = (
                    sample(&precision, 1.0),
                    sample(&recall, 0.0),
                    precision_at_recall,
                );
            }
            area
        });
        Self {
            precision: curves.0,
            recall: curves.1,
            precision_at_recall: curves.2,
            ap,
        }
    }
}

/// The k-th of 1000 confidences from 0 to 1.
fn curve_confidence(k: usize) -> f64 {
    k as f64 / (CURVE_POINTS - 1) as f64
}

/// Where the mean F1 of all classes, smoothed by a box filter over 10 % of the curve whose ends are
/// continued with their last value, is highest; the first of equals.
fn best_f1_index(curves: &[ClassCurves]) -> usize {
    let f1: Vec<Vec<f64>> = curves.iter().map(ClassCurves::f1).collect();
    let mean_f1: Vec<f64> = (0..CURVE_POINTS)
        .map(|k| f1.iter().map(|f1| f1[k]).sum::<f64>() / curves.len().max(1) as f64)
        .collect();
    let half = CURVE_POINTS / 20;
    let smooth = |k: usize| -> f64 {
        let clamped = |j: usize| mean_f1[j.saturating_sub(half).min(CURVE_POINTS - 1)];
        (k..=k + 2 * half).map(clamped).sum::<f64>() / (2 * half + 1) as f64
    };
    let mut best = (0, f64::NEG_INFINITY);
    for k in 0..CURVE_POINTS {
        let value = smooth(k);
        if value > best.1 {
            best = (k, value);
        }
    }
    best.0
}

/// Piecewise linear interpolation as numpy does it: at a repeated x the last y counts, before the
/// first x it is `left`, after the last x the last y.
fn interpolate(x: f64, xs: &[f64], ys: &[f64], left: f64) -> f64 {
    let above = xs.partition_point(|known| *known <= x);
    if above == 0 {
        return left;
    }
    let below = above - 1;
    if above == xs.len() || xs[below] == x {
        return ys[below];
    }
    ys[below] + (ys[above] - ys[below]) / (xs[above] - xs[below]) * (x - xs[below])
}

#[cfg(test)]
#[path = "average_precision_tests.rs"]
mod tests;
