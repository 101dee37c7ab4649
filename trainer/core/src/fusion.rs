//! Detections of several models made one.

use crate::boxes::Xyxy;
use crate::detection::Detection;
use std::collections::BTreeSet;

/// Boxes of one class that overlap by more than this `IoU` are of one object.
pub const FUSION_IOU: f32 = 0.55;

/// Weighted boxes fusion (Solovyev, Wang, Gabruseva 2021) of what each of several models found on one image, all
/// models weighing the same; most confident first.
///
/// Boxes of one class are gathered from the most confident to the least: each joins the group whose mean box it
/// overlaps most, if by more than `iou`, else it founds a group. A group's box is the mean of its boxes weighted by
/// their confidences; its confidence the mean of theirs, times the share of models it has boxes for.
pub fn weighted_boxes_fusion(models: &[Vec<Detection>], iou: f32) -> Vec<Detection> {
    let mut all: Vec<Detection> = models.iter().flatten().copied().collect();
    // Stable: equal confidences stay in the order of the models.
    all.sort_by(|a, b| b.conf.total_cmp(&a.conf));
    let classes: BTreeSet<u16> = all.iter().map(|d| d.class).collect();
    let mut fused = Vec::new();
    for class in classes {
        let mut groups: Vec<Group> = Vec::new();
        for detection in all.iter().filter(|d| d.class == class) {
            let overlaps = groups.iter().map(|group| group.mean.iou(detection.xyxy));
            let best = overlaps
                .enumerate()
                .filter(|(_, overlap)| *overlap > iou)
                .reduce(|a, b| if b.1 > a.1 { b } else { a });
            match best {
                Some((index, _)) => groups[index].add(detection),
                None => groups.push(Group::of(detection)),
            }
        }
        fused.extend(groups.iter().map(|group| {
            let share = group.count.min(models.len()) as f32 / models.len() as f32;
            Detection {
                xyxy: group.mean,
                conf: group.weight / group.count as f32 * share,
                class,
            }
        }));
    }
    fused.sort_by(|a, b| b.conf.total_cmp(&a.conf));
    fused
}

struct Group {
    /// The sum of the boxes' corners, each times its confidence.
    sums: [f32; 4],
    /// The sum of the confidences.
    weight: f32,
    count: usize,
    mean: Xyxy,
}

impl Group {
    fn of(first: &Detection) -> Self {
        let mut group = Self {
            sums: [0.0; 4],
            weight: 0.0,
            count: 0,
            mean: first.xyxy,
        };
        group.add(first);
        group
    }

    fn add(&mut self, detection: &Detection) {
        let Xyxy { x1, y1, x2, y2 } = detection.xyxy;
        for (sum, value) in self.sums.iter_mut().zip([x1, y1, x2, y2]) {
            *sum += detection.conf * value;
        }
        self.weight += detection.conf;
        self.count += 1;
        if self.weight > 0.0 {
            let [x1, y1, x2, y2] = self.sums.map(|sum| sum / self.weight);
            self.mean = Xyxy::new(x1, y1, x2, y2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        /// Of each model, rows of corners, confidence and class.
        models: Vec<Vec<[f32; 6]>>,
        fused: Vec<[f32; 6]>,
    }

    fn read(rows: &[[f32; 6]]) -> Vec<Detection> {
        let read = |r: &[f32; 6]| Detection {
            xyxy: Xyxy::new(r[0], r[1], r[2], r[3]),
            conf: r[4],
            class: r[5] as u16,
        };
        rows.iter().map(read).collect()
    }

    #[test]
    fn the_boxes_are_those_of_ensemble_boxes() {
        let text = include_str!("../testdata/fusion.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 40);
        for (number, case) in cases.iter().enumerate() {
            let models: Vec<_> = case.models.iter().map(|rows| read(rows)).collect();
            let got = weighted_boxes_fusion(&models, FUSION_IOU);
            let want = read(&case.fused);
            assert_eq!(got.len(), want.len(), "case {number}");
            for (got, want) in got.iter().zip(&want) {
                let corners = |b: Xyxy| [b.x1, b.y1, b.x2, b.y2];
                let boxes = corners(got.xyxy).into_iter().zip(corners(want.xyxy));
                let close = boxes.fold(true, |all, (a, b)| all && (a - b).abs() < 1e-5);
                assert!(
                    close && got.class == want.class && (got.conf - want.conf).abs() < 1e-5,
                    "case {number}: {got:?} is not {want:?}"
                );
            }
        }
    }

    #[test]
    fn one_model_keeps_its_lone_boxes() {
        let found = read(&[[0., 0., 5., 5., 0.5, 1.], [10., 10., 15., 15., 0.25, 0.]]);
        assert_eq!(
            weighted_boxes_fusion(std::slice::from_ref(&found), FUSION_IOU),
            found
        );
        let halved = weighted_boxes_fusion(&[found, Vec::new()], FUSION_IOU);
        assert_eq!([0.25, 0.125], [halved[0].conf, halved[1].conf]);
        assert!(weighted_boxes_fusion(&[], FUSION_IOU).is_empty());
    }
}
