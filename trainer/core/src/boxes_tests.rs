use super::*;
use proptest::prelude::*;

#[test]
fn golden_overlap_measures() {
    let pairs = [
        (
            Xywh::new(0.5, 0.5, 0.4, 0.3),
            Xywh::new(0.55, 0.45, 0.5, 0.25),
        ),
        (Xywh::new(10., 10., 5., 8.), Xywh::new(12., 9., 6., 6.)),
        (Xywh::new(3., 3., 1., 1.), Xywh::new(9., 9., 2., 4.)),
    ];
    let expected = [
        [0.580_644_6, 0.534_490_9, 0.566_584_8, 0.566_187_4],
        [0.381_818_2, 0.298_484_8, 0.340_238_1, 0.339_558_1],
        [0.0, -0.858_823_5, -0.560_311_3, -0.562_000_7],
    ];
    for ((a, b), want) in pairs.into_iter().zip(expected) {
        let got = [a.iou(b), a.giou(b), a.diou(b), a.ciou(b)];
        for (g, w) in got.into_iter().zip(want) {
            assert!((g - w).abs() < 5e-7, "{a:?} {b:?}: {got:?} is not {want:?}");
        }
    }
}

#[test]
fn clipping_keeps_the_inside() {
    let b = Xyxy::new(-5., 2., 30., 90.).clip(20., 40.);
    assert_eq!(b, Xyxy::new(0., 2., 20., 40.));
    assert_eq!(Xyxy::new(50., 50., 60., 60.).clip(20., 40.).area(), 0.0);
}

prop_compose! {
    fn any_box()(x in 0f32..500., y in 0f32..500., w in 1f32..200., h in 1f32..200.) -> Xywh {
        Xywh::new(x, y, w, h)
    }
}

proptest! {
    #[test]
    fn measures_are_symmetric_and_in_range(a in any_box(), b in any_box()) {
        for f in [Xywh::iou, Xywh::giou, Xywh::diou, Xywh::ciou] {
            prop_assert!((f(a, b) - f(b, a)).abs() < 1e-5);
        }
        prop_assert!((0.0..=1.0).contains(&a.iou(b)));
        prop_assert!((-1.0..=1.0).contains(&a.giou(b)));
        prop_assert!(a.giou(b) <= a.iou(b) + 1e-6);
        prop_assert!(a.ciou(b) <= a.diou(b) && a.diou(b) <= a.iou(b));
        prop_assert!(a.ciou(b) > -2.0);
        prop_assert!((a.to_xyxy().iou(b.to_xyxy()) - a.iou(b)).abs() < 1e-3);
        prop_assert!((a.ciou(a) - 1.0).abs() < 1e-3);
    }

    #[test]
    fn measures_ignore_shift_and_scale(a in any_box(), b in any_box(),
                                       d in -100f32..100., k in 0.5f32..4.) {
        let shift = |v: Xywh| Xywh::new(v.x + d, v.y - d, v.w, v.h);
        for f in [Xywh::iou, Xywh::giou, Xywh::diou, Xywh::ciou] {
            prop_assert!((f(a, b) - f(shift(a), shift(b))).abs() < 2e-3);
            prop_assert!((f(a, b) - f(a.scale(k, k), b.scale(k, k))).abs() < 2e-3);
        }
    }

    #[test]
    fn conversion_round_trips(a in any_box()) {
        let back = a.to_xyxy().to_xywh();
        for (p, q) in [(a.x, back.x), (a.y, back.y), (a.w, back.w), (a.h, back.h)] {
            prop_assert!((p - q).abs() < 1e-3);
        }
    }
}
