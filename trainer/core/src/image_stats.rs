//! Which detections of one image are right, in a form that ranks can exchange.

use crate::detection::{Detection, LabelledBox};
use serde::{Deserialize, Serialize};

/// The `IoU` thresholds of `mAP50_95`: 0.50, 0.55, ..., 0.95.
pub const IOU_THRESHOLDS: [f32; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];

/// Marks, for each detection of an image and each of [`IOU_THRESHOLDS`], whether it is right.
///
/// YOLOv5 v7.0's rule, as its own function answers (`testdata/matching.json`): each detection claims the
/// label of its class that it overlaps most; it is right at a threshold if that overlap reaches it and no
/// detection before it is right for the same label. A detection whose label is taken does not fall back on
/// another one. `detections` are in the order of NMS, by confidence; of equal overlaps the first label's
/// counts.
pub fn match_detections(detections: &[Detection], labels: &[LabelledBox]) -> Vec<[bool; 10]> {
    let mut taken = vec![[false; 10]; labels.len()];
    let right = |detection| {
        let mut row = [false; 10];
        if let Some((label, iou)) = best_label(detection, labels) {
            for (level, threshold) in IOU_THRESHOLDS.into_iter().enumerate() {
                row[level] = iou >= threshold && !taken[label][level];
                taken[label][level] |= row[level];
            }
        }
        row
    };
    detections.iter().map(right).collect()
}

fn best_label(detection: &Detection, labels: &[LabelledBox]) -> Option<(usize, f32)> {
    labels
        .iter()
        .enumerate()
        .filter(|(_, label)| label.class == detection.class)
        .map(|(index, label)| (index, label.xyxy.iou(detection.xyxy)))
        .reduce(|a, b| if b.1 > a.1 { b } else { a })
}

/// What average precision needs to know about one image: about 8 bytes per detection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageStats {
    /// The image's place in the data set; statistics are merged in this order.
    pub image_index: u32,
    /// Per detection: bit k set if it is right at `IOU_THRESHOLDS[k]`.
    pub tp: Vec<u16>,
    /// Per detection: its confidence.
    pub conf: Vec<f32>,
    /// Per detection: its class.
    pub pred_class: Vec<u16>,
    /// Per label: its class.
    pub target_class: Vec<u16>,
}

impl ImageStats {
    /// Matches the detections of an image with its labels.
    pub fn new(image_index: u32, detections: &[Detection], labels: &[LabelledBox]) -> Self {
        let bits = |row: [bool; 10]| {
            row.into_iter()
                .enumerate()
                .fold(0, |bits, (k, yes)| bits | u16::from(yes) << k)
        };
        Self {
            image_index,
            tp: match_detections(detections, labels)
                .into_iter()
                .map(bits)
                .collect(),
            conf: detections.iter().map(|d| d.conf).collect(),
            pred_class: detections.iter().map(|d| d.class).collect(),
            target_class: labels.iter().map(|l| l.class).collect(),
        }
    }
}

#[cfg(test)]
#[path = "image_stats_tests.rs"]
mod tests;
