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
    let count = |rule| levels(&match_detections(&detections, &[label(10., 0)], rule));
    assert_eq!(count(MatchRule::HighestIou), [0, 9, 0]);
    let first = match_detections(&detections, &[label(10., 0)], MatchRule::FirstDetection);
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
    let rows = match_detections(&detections, &labels, MatchRule::HighestIou);
    // The second overlaps the second label by 0.82, but its best label is taken.
    assert_eq!(levels(&rows), [10, 0, 10]);
    let wrong_class = match_detections(&[detection(10., 0.9, 2)], &labels, MatchRule::HighestIou);
    assert_eq!(levels(&wrong_class), [0]);
    assert!(match_detections(&[], &labels, MatchRule::HighestIou).is_empty());
    assert_eq!(
        levels(&match_detections(&detections, &[], MatchRule::HighestIou)),
        [0, 0, 0]
    );
}

#[test]
fn bits_follow_the_thresholds() {
    let stats = ImageStats::new(
        3,
        &[detection(6.2, 0.9, 0)],
        &[label(10., 0)],
        MatchRule::HighestIou,
    );
    assert_eq!(stats.tp, [0b111]);
    let json = serde_json::to_string(&stats).unwrap();
    assert_eq!(serde_json::from_str::<ImageStats>(&json).unwrap(), stats);
}
