use super::*;
use crate::detection::{Detection, LabelledBox};
use proptest::prelude::*;

#[track_caller]
fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 1e-6, "{got} is not {want}");
}

#[test]
fn golden_average_precision() {
    let recall = [0.1, 0.1, 0.3, 0.3, 0.5, 0.6];
    let precision = [1., 0.5, 0.66, 0.5, 0.6, 0.55];
    close(average_precision(&recall, &precision), 0.5175);
}

/// The golden evaluation, its six detections dealt to three images.
fn golden_stats() -> Vec<ImageStats> {
    let image =
        |image_index, tp: &[u16], conf: &[f32], pred_class: &[u16], target: &[u16]| ImageStats {
            image_index,
            tp: tp.to_vec(),
            conf: conf.to_vec(),
            pred_class: pred_class.to_vec(),
            target_class: target.to_vec(),
        };
    vec![
        image(0, &[0b11, 0b11_1111_1111], &[0.9, 0.6], &[0, 1], &[0, 0, 1]),
        image(
            1,
            &[0b1, 0b1_1111, 0],
            &[0.8, 0.5, 0.3],
            &[0, 1, 1],
            &[0, 1, 1, 2],
        ),
        image(2, &[0], &[0.7], &[0], &[]),
    ]
}

#[test]
fn golden_evaluation() {
    let e = ap_per_class(&golden_stats());
    let ap50 = [0.7772, 0.7772, 0.];
    let ap = [0.122_275, 0.611_375, 0.];
    let precision = [0.666_667, 0.947_447, 0.];
    let recall = [0.666_667, 0.666_667, 0.];
    for (k, class) in e.classes.iter().enumerate() {
        close(class.ap50(), ap50[k]);
        close(class.ap50_95(), ap[k]);
        close(class.precision, precision[k]);
        close(class.recall, recall[k]);
    }
    assert_eq!(
        e.classes.iter().map(|c| c.labels).collect::<Vec<_>>(),
        [3, 3, 1]
    );
    close(e.map50, 0.518_133);
    close(e.map50_95, 0.24455);
}

#[test]
fn nothing_to_evaluate_is_zero() {
    assert_eq!(ap_per_class(&[]).map50, 0.0);
    let only_detections = ImageStats {
        tp: vec![0],
        conf: vec![0.5],
        pred_class: vec![0],
        ..ImageStats::default()
    };
    let e = ap_per_class(&[only_detections]);
    assert!(e.classes.is_empty() && e.map50_95 == 0.0 && e.precision == 0.0);
    // -0 would be 0, too, but looks like a fault.
    assert!(e.map50.is_sign_positive() && e.recall.is_sign_positive());
}

#[test]
fn perfect_detections_score_one() {
    let xyxy = crate::boxes::Xyxy::new(0., 0., 10., 10.);
    let stats: Vec<_> = (0..5)
        .map(|k| {
            let detection = Detection {
                xyxy,
                conf: 0.9,
                class: k as u16,
            };
            let label = LabelledBox {
                xyxy,
                class: k as u16,
            };
            ImageStats::new(k, &[detection], &[label])
        })
        .collect();
    let e = ap_per_class(&stats);
    // The trapezoid from recall 0.99 to 1 falls to the precision 0 of the sentinel at recall 1.
    close(e.map50, 0.995);
    close(e.map50_95, 0.995);
    close(e.precision, 1.0);
    close(e.recall, 1.0);
}

#[test]
fn merging_ignores_the_order_of_ranks_and_refuses_duplicates() {
    let stats = golden_stats();
    let shuffled = vec![stats[2].clone(), stats[0].clone(), stats[1].clone()];
    assert_eq!(merge(shuffled).unwrap(), stats);
    let twice = [stats.clone(), stats].concat();
    assert_eq!(merge(twice), Err(DuplicateImageError { image_index: 0 }));
}

proptest! {
    #[test]
    fn results_are_in_range_and_independent_of_ranks(
        rows in prop::collection::vec((0_u16..1024, 0_u8..20, 0_u16..3, 0_u16..3), 1..60),
        world in 1_usize..5,
    ) {
        let stats: Vec<ImageStats> = rows.iter().zip(0..).map(|((tp, conf, pred, target), k)| ImageStats {
            image_index: k,
            tp: vec![*tp, *tp],
            // Few distinct values: ties must not matter.
            conf: vec![f32::from(*conf) / 20.0, 0.5],
            pred_class: vec![*pred, *target],
            target_class: vec![*target, *target],
        }).collect();
        let one = ap_per_class(&merge(stats.clone()).unwrap());
        let by_rank: Vec<ImageStats> = (0..world)
            .flat_map(|rank| stats.iter().skip(rank).step_by(world).cloned().collect::<Vec<_>>())
            .collect();
        prop_assert_eq!(&ap_per_class(&merge(by_rank).unwrap()), &one);
        for value in [one.precision, one.map50, one.map50_95, one.best_confidence] {
            prop_assert!((0.0..=1.0).contains(&value), "{:?}", one);
        }
    }
}
