//! Which classes a model takes for which.

use crate::detection::{Detection, LabelledBox};
use std::collections::BTreeMap;

/// Detections at or below this confidence do not count.
pub const CONFIDENCE: f32 = 0.25;
/// A detection and a label that overlap by no more than this `IoU` have nothing to do with each other.
pub const IOU: f32 = 0.45;
/// Bytes of one entry that ranks exchange.
const ENTRY: usize = 12;

/// How often what is there (columns) was found as what (rows): `(classes + 1)²` counts, of which the last row
/// and column are the background. Only counts above 0 take memory.
///
/// YOLOv5 v7.0 behaviour: boxes are paired by overlap whatever their classes; each detection claims the label
/// it overlaps most, each label takes the claim that overlaps most. A label without a detection counts as found
/// as background, a detection without a label as background found as its class; but the latter only on images
/// on which at least one pair was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: u16,
    counts: BTreeMap<(u16, u16), u64>,
}

impl ConfusionMatrix {
    /// No counts yet of so many classes.
    pub fn new(classes: u16) -> Self {
        Self {
            classes,
            counts: BTreeMap::new(),
        }
    }

    /// Counts one image.
    pub fn add(&mut self, detections: &[Detection], labels: &[LabelledBox]) {
        let background = self.classes;
        let sure: Vec<&Detection> = detections.iter().filter(|d| d.conf > CONFIDENCE).collect();
        let mut taken: Vec<Option<(usize, f32)>> = vec![None; labels.len()];
        for (index, detection) in sure.iter().enumerate() {
            let overlaps = labels.iter().map(|label| label.xyxy.iou(detection.xyxy));
            let claim = overlaps
                .enumerate()
                .reduce(|a, b| if b.1 > a.1 { b } else { a });
            if let Some((label, iou)) = claim.filter(|(_, iou)| *iou > IOU)
                && taken[label].is_none_or(|(_, best)| iou > best)
            {
                taken[label] = Some((index, iou));
            }
        }
        for (label, taken) in labels.iter().zip(&taken) {
            let found = taken.map_or(background, |(index, _)| sure[index].class);
            self.count(found, label.class, 1);
        }
        let mut paired = vec![false; sure.len()];
        for (index, _) in taken.iter().flatten() {
            paired[*index] = true;
        }
        if paired.contains(&true) {
            for (detection, _) in sure.iter().zip(&paired).filter(|(_, paired)| !**paired) {
                self.count(detection.class, background, 1);
            }
        }
    }

    fn count(&mut self, found: u16, real: u16, times: u64) {
        *self.counts.entry((found, real)).or_default() += times;
    }

    /// Number of classes; the index of the background.
    pub fn classes(&self) -> u16 {
        self.classes
    }

    /// How often `real` was found as `found`.
    pub fn get(&self, found: u16, real: u16) -> u64 {
        self.counts.get(&(found, real)).copied().unwrap_or(0)
    }

    /// What was found as something of `real`, background included.
    pub fn total_of(&self, real: u16) -> u64 {
        let of_real = self
            .counts
            .iter()
            .filter(|((_, column), _)| *column == real);
        of_real.map(|(_, count)| count).sum()
    }

    /// Counts above 0 as (found, real, count), by rows.
    pub fn entries(&self) -> impl Iterator<Item = (u16, u16, u64)> {
        self.counts.iter().map(|((f, r), count)| (*f, *r, *count))
    }

    /// The counts as bytes, for another rank.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY * self.counts.len());
        for (found, real, count) in self.entries() {
            bytes.extend(found.to_le_bytes());
            bytes.extend(real.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes
    }

    /// Adds the counts that another rank wrote as bytes; an incomplete last entry does not count.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        for [f0, f1, r0, r1, count @ ..] in bytes.as_chunks::<ENTRY>().0 {
            let (found, real) = (
                u16::from_le_bytes([*f0, *f1]),
                u16::from_le_bytes([*r0, *r1]),
            );
            self.count(found, real, u64::from_le_bytes(*count));
        }
    }
}

#[cfg(test)]
#[path = "confusion_tests.rs"]
mod tests;
