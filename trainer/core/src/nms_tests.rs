use super::*;
use proptest::prelude::*;

const GOLDEN: [[f32; 7]; 6] = [
    [50., 50., 40., 40., 0.9, 0.9, 0.1],
    [52., 50., 40., 40., 0.8, 0.8, 0.3],
    [120., 120., 30., 60., 0.7, 0.2, 0.9],
    [50., 52., 40., 42., 0.6, 0.1, 0.95],
    [200., 200., 10., 10., 0.0005, 0.9, 0.9],
    [121., 120., 30., 60., 0.65, 0.3, 0.85],
];
const FIRST: [f32; 6] = [30., 30., 70., 70., 0.81, 0.];
const SECOND: [f32; 6] = [105., 90., 135., 150., 0.63, 1.];
const THIRD: [f32; 6] = [30., 31., 70., 73., 0.57, 1.];

#[track_caller]
fn check(options: &NmsOptions, want: &[[f32; 6]]) {
    let got: Vec<[f32; 6]> = nms(GOLDEN.as_flattened(), 2, options)
        .iter()
        .map(|d| {
            let Xyxy { x1, y1, x2, y2 } = d.xyxy;
            [x1, y1, x2, y2, d.conf, f32::from(d.class)]
        })
        .collect();
    for row in want {
        let close = |g: &[f32; 6]| g.iter().zip(row).all(|(g, w)| (g - w).abs() < 1e-5);
        assert!(got.iter().any(close), "{row:?} is not in {got:?}");
    }
}

#[test]
fn golden_best_label() {
    check(&NmsOptions::DETECTION, &[FIRST, SECOND, THIRD]);
    assert_eq!(
        nms(GOLDEN.as_flattened(), 2, &NmsOptions::DETECTION).len(),
        3
    );
}

#[test]
fn golden_agnostic() {
    let options = NmsOptions {
        competition: Competition::AcrossClasses,
        ..NmsOptions::DETECTION
    };
    check(&options, &[FIRST, SECOND]);
    assert_eq!(nms(GOLDEN.as_flattened(), 2, &options).len(), 2);
}

#[test]
fn golden_all_labels() {
    let added = [106., 90., 136., 150., 0.195, 0.];
    check(&NmsOptions::VALIDATION, &[FIRST, SECOND, THIRD, added]);
    assert_eq!(
        nms(GOLDEN.as_flattened(), 2, &NmsOptions::VALIDATION).len(),
        4
    );
}

#[test]
fn limits_and_nonsense() {
    let run = |options: NmsOptions| nms(GOLDEN.as_flattened(), 2, &options);
    assert_eq!(
        run(NmsOptions {
            max_detections: 1,
            ..NmsOptions::VALIDATION
        })
        .len(),
        1
    );
    assert_eq!(
        run(NmsOptions {
            max_candidates: 2,
            ..NmsOptions::DETECTION
        })
        .len(),
        1
    );
    let nan = [
        f32::NAN,
        1.,
        1.,
        1.,
        0.9,
        0.9,
        1.,
        1.,
        1.,
        1.,
        f32::NAN,
        0.9,
        1.,
        1.,
        1.,
        1.,
        0.9,
        f32::NAN,
    ];
    assert!(nms(&nan, 1, &NmsOptions::VALIDATION).is_empty());
    assert!(nms(&[1.0; 12], 0, &NmsOptions::VALIDATION).is_empty());
    assert!(nms(&[], 3, &NmsOptions::VALIDATION).is_empty());
}

#[test]
fn classes_are_chosen_before_anything_competes() {
    let of_second = |options: NmsOptions| {
        let options = NmsOptions {
            classes: vec![1],
            max_detections: 2,
            ..options
        };
        check(&options, &[SECOND, THIRD]);
        assert_eq!(nms(GOLDEN.as_flattened(), 2, &options).len(), 2);
    };
    of_second(NmsOptions::DETECTION);
    of_second(NmsOptions::VALIDATION);
    of_second(NmsOptions {
        competition: Competition::AcrossClasses,
        max_candidates: 3,
        ..NmsOptions::DETECTION
    });
}

proptest! {
    #[test]
    fn cutting_before_sorting_changes_nothing(
        confs in prop::collection::vec(0_u8..6, 0..40), count in 0_usize..45,
    ) {
        let all: Vec<Detection> = confs
            .iter()
            .zip(0..)
            .map(|(conf, class)| Detection {
                xyxy: Xyxy::default(),
                conf: f32::from(*conf),
                class,
            })
            .collect();
        let mut cut = all.clone();
        keep_most_confident(&mut cut, count);
        cut.sort_by(|a, b| b.conf.total_cmp(&a.conf));
        let mut sorted = all;
        sorted.sort_by(|a, b| b.conf.total_cmp(&a.conf));
        sorted.truncate(count);
        prop_assert_eq!(cut, sorted);
    }

    #[test]
    fn survivors_are_sorted_apart_and_stable(
        rows in prop::collection::vec(
            (0f32..200., 0f32..200., 1f32..60., 1f32..60., 0f32..1., 0f32..1., 0f32..1.), 0..60),
    ) {
        let flat: Vec<f32> =
            rows.iter().flat_map(|r| [r.0, r.1, r.2, r.3, r.4, r.5, r.6]).collect();
        let kept = nms(&flat, 2, &NmsOptions::DETECTION);
        prop_assert!(kept.is_sorted_by(|a, b| a.conf >= b.conf));
        for (k, a) in kept.iter().enumerate() {
            for b in kept[..k].iter().filter(|b| b.class == a.class) {
                prop_assert!(a.xyxy.iou(b.xyxy) < NmsOptions::DETECTION.iou + 1e-2);
            }
        }
        // Suppressing the survivors again drops none of them.
        let again: Vec<f32> = kept
            .iter()
            .flat_map(|d| {
                let b = d.xyxy.to_xywh();
                let p = |class| f32::from(u8::from(d.class == class));
                [b.x, b.y, b.w, b.h, d.conf, p(0), p(1)]
            })
            .collect();
        let options = NmsOptions { iou: NmsOptions::DETECTION.iou + 1e-2, ..NmsOptions::DETECTION };
        prop_assert_eq!(nms(&again, 2, &options).len(), kept.len());
    }
}
