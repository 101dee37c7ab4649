//! Non-maximum suppression of one image's predictions.
//!
//! YOLOv5 v7.0 behaviour, with two differences: there is no time limit after which the remaining
//! images of a batch count as empty, and equal confidences keep the order of the predictions (v5
//! leaves it open).

use crate::boxes::{Xywh, Xyxy};
use crate::detection::Detection;

/// Pixels between the boxes of neighbouring classes, larger than any image.
///
/// Boxes are compared with `class * CLASS_OFFSET` added in `f32`, like v5 does, which rounds the
/// coordinates of high classes to 1/16 pixel.
pub const CLASS_OFFSET: f32 = 7680.0;

/// How to suppress.
#[derive(Clone, Debug, PartialEq)]
pub struct NmsOptions {
    /// Objectness, and objectness times class probability, must exceed this.
    pub confidence: f32,
    /// A box that overlaps a better one by more than this `IoU` is dropped.
    pub iou: f32,
    /// Whether one prediction may become detections of several classes (only with several classes).
    pub labels: LabelsPerBox,
    /// The classes to find; empty for all. Boxes of others take part in nothing.
    pub classes: Vec<u16>,
    /// Which boxes compete.
    pub competition: Competition,
    /// At most this many detections are returned.
    pub max_detections: usize,
    /// At most this many candidates, the most confident ones, take part.
    pub max_candidates: usize,
}

/// How many classes one prediction may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelsPerBox {
    /// The most probable class.
    Best,
    /// Every class above the confidence threshold; v5 does so for validation.
    All,
}

/// Which boxes suppress each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Competition {
    /// Those of the same class.
    WithinClass,
    /// All (v5's `agnostic`).
    AcrossClasses,
}

impl NmsOptions {
    /// What `val.py` of v5 uses: confidence 0.001, `IoU` 0.6, all labels, 300 detections.
    pub const VALIDATION: Self = Self {
        confidence: 0.001,
        iou: 0.6,
        labels: LabelsPerBox::All,
        classes: Vec::new(),
        competition: Competition::WithinClass,
        max_detections: 300,
        max_candidates: 30_000,
    };

    /// What `detect.py` of v5 uses: confidence 0.25, `IoU` 0.45, the best label, 1000 detections.
    pub const DETECTION: Self = Self {
        confidence: 0.25,
        iou: 0.45,
        labels: LabelsPerBox::Best,
        classes: Vec::new(),
        competition: Competition::WithinClass,
        max_detections: 1000,
        max_candidates: 30_000,
    };
}

/// The detections of one image, most confident first.
///
/// `predictions` are rows of `5 + classes` numbers: centre, width and height in pixels, objectness,
/// class probabilities. An incomplete last row does not count. Rows with a NaN are never detections.
/// The cost is candidates times detections, not candidates squared.
pub fn nms(predictions: &[f32], classes: usize, options: &NmsOptions) -> Vec<Detection> {
    let mut candidates = candidates(predictions, classes, options);
    // Stable: equal confidences stay in row order, then class order.
    keep_most_confident(&mut candidates, options.max_candidates);
    candidates.sort_by(|a, b| b.conf.total_cmp(&a.conf));

    let mut kept = Vec::new();
    // Boxes that may suppress, by class. Boxes of different classes never meet.
    let groups = match options.competition {
        Competition::WithinClass => classes,
        Competition::AcrossClasses => 1,
    };
    let mut rivals: Vec<Vec<Xyxy>> = vec![Vec::new(); groups];
    for candidate in candidates {
        if kept.len() >= options.max_detections {
            break;
        }
        let (group, shift) = match options.competition {
            Competition::WithinClass => (
                usize::from(candidate.class),
                f32::from(candidate.class) * CLASS_OFFSET,
            ),
            Competition::AcrossClasses => (0, 0.0),
        };
        let shifted = candidate.xyxy.translate(shift, shift);
        let area = shifted.area();
        let suppressed = rivals[group].iter().any(|rival| {
            let inter = rival.intersection(shifted);
            inter / (rival.area() + area - inter) > options.iou
        });
        if !suppressed {
            rivals[group].push(shifted);
            kept.push(candidate);
        }
    }
    kept
}

fn candidates(predictions: &[f32], classes: usize, options: &NmsOptions) -> Vec<Detection> {
    let all_labels = options.labels == LabelsPerBox::All && classes > 1;
    let mut candidates = Vec::new();
    if classes == 0 {
        return candidates;
    }
    for row in predictions.chunks_exact(5 + classes) {
        let objectness = row[4];
        // NaN compares false, so such rows end here or below.
        let is_object = objectness > options.confidence && row[..4].iter().all(|v| v.is_finite());
        if !is_object {
            continue;
        }
        let xyxy = Xywh::new(row[0], row[1], row[2], row[3]).to_xyxy();
        let scores = row[5..]
            .iter()
            .zip(0_u16..)
            .map(|(p, class)| (p * objectness, class));
        let mut push = |(conf, class): (f32, u16)| {
            let is_wanted = options.classes.is_empty() || options.classes.contains(&class);
            if conf > options.confidence && is_wanted {
                candidates.push(Detection { xyxy, conf, class });
            }
        };
        if all_labels {
            scores.for_each(push);
        } else if let Some(best) = scores.reduce(|a, b| if b.0 > a.0 { b } else { a }) {
            push(best);
        }
    }
    candidates
}

/// What sorting all candidates and cutting the list would leave, without sorting the millions that an
/// untrained model produces.
fn keep_most_confident(candidates: &mut Vec<Detection>, count: usize) {
    if candidates.len() <= count {
        return;
    }
    if count == 0 {
        candidates.clear();
        return;
    }
    let mut confidences: Vec<f32> = candidates.iter().map(|c| c.conf).collect();
    let (_, last, _) = confidences.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a));
    let last = *last;
    let mut equal = count - candidates.iter().filter(|c| c.conf > last).count();
    candidates.retain(|c| {
        let is_equal = c.conf == last && equal > 0;
        equal -= usize::from(is_equal);
        c.conf > last || is_equal
    });
}

#[cfg(test)]
#[path = "nms_tests.rs"]
mod tests;
