use super::*;
use crate::boxes::Xyxy;

fn detection(x2: f32, conf: f32, class: u16) -> Detection {
    Detection {
        xyxy: Xyxy::new(0., 0., x2, 10.),
        conf,
        class,
    }
}

fn label(x2: f32, class: u16) -> LabelledBox {
    LabelledBox {
        xyxy: Xyxy::new(0., 0., x2, 10.),
        class,
    }
}

fn levels(rows: &[[bool; 10]]) -> Vec<usize> {
    rows.iter()
        .map(|row| row.iter().filter(|yes| **yes).count())
        .collect()
}

#[test]
fn one_object_has_one_right_detection_at_each_threshold() {
    // IoU .62, .92 and .5 with the only label.
    let detections = [
        detection(6.2, 0.9, 0),
        detection(9.2, 0.8, 0),
        detection(5., 0.7, 0),
    ];
    let first = match_detections(&detections, &[label(10., 0)]);
    assert_eq!(levels(&first), [3, 6, 0]);
    assert!(first[0][2] && first[1][3]);
}

#[test]
fn a_detection_claims_only_its_best_label_of_its_class() {
    let labels = [label(10., 0), label(8., 0), label(6., 1)];
    let detections = [
        detection(9.9, 0.9, 0),
        detection(9.8, 0.8, 0),
        detection(6., 0.7, 1),
    ];
    let rows = match_detections(&detections, &labels);
    // The second overlaps the second label by 0.82, but its best label is taken.
    assert_eq!(levels(&rows), [10, 0, 10]);
    let wrong_class = match_detections(&[detection(10., 0.9, 2)], &labels);
    assert_eq!(levels(&wrong_class), [0]);
    assert!(match_detections(&[], &labels).is_empty());
    assert_eq!(levels(&match_detections(&detections, &[])), [0, 0, 0]);
}

#[test]
fn bits_follow_the_thresholds() {
    let stats = ImageStats::new(3, &[detection(6.2, 0.9, 0)], &[label(10., 0)]);
    assert_eq!(stats.tp, [0b111]);
    let json = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<ImageStats>(&json).unwrap(), stats);
}

/// An image as the Python program was asked about it, and its answer: see `tests/parity/matching.py`.
#[derive(serde::Deserialize)]
struct Case {
    /// x1, y1, x2, y2, confidence, class.
    detections: Vec<[f32; 6]>,
    /// class, x1, y1, x2, y2.
    labels: Vec<[f32; 5]>,
    right: Vec<u16>,
}

#[test]
fn the_python_program_finds_the_same_detections_right() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../testdata/matching.json")).unwrap();
    assert!(cases.len() >= 100);
    for (number, case) in cases.iter().enumerate() {
        let detections: Vec<_> = case
            .detections
            .iter()
            .map(|&[x1, y1, x2, y2, conf, class]| Detection {
                xyxy: Xyxy::new(x1, y1, x2, y2),
                conf,
                class: class as u16,
            })
            .collect();
        let labels: Vec<_> = case
            .labels
            .iter()
            .map(|&[class, x1, y1, x2, y2]| LabelledBox {
                xyxy: Xyxy::new(x1, y1, x2, y2),
                class: class as u16,
            })
            .collect();
        let stats = ImageStats::new(0, &detections, &labels);
        assert_eq!(case.right, stats.tp, "case {number}");
    }
}
