use super::*;
use crate::rng::{Purpose, stream};
use proptest::prelude::*;

#[track_caller]
fn close(got: [f64; 2], want: [f64; 2]) {
    let near = |k: usize| (got[k] - want[k]).abs() < 1e-9;
    assert!(near(0) && near(1), "{got:?} is not {want:?}");
}

#[test]
fn identity_cuts_the_middle_out_of_a_mosaic() {
    let m = compose(&AffineDraw::IDENTITY, (1280, 1280), (640, 640));
    close(m.apply([640., 640.]), [320., 320.]);
    close(m.apply([320., 960.]), [0., 640.]);
}

#[test]
fn each_parameter_moves_points_as_documented() {
    let at = |draw: AffineDraw, point| compose(&draw, (100, 100), (100, 100)).apply(point);
    let base = AffineDraw::IDENTITY;
    // Counter-clockwise as seen: what was right of the centre is now above it.
    close(
        at(
            AffineDraw {
                degrees: 90.,
                ..base
            },
            [80., 50.],
        ),
        [50., 20.],
    );
    close(
        at(AffineDraw { scale: 2., ..base }, [80., 50.]),
        [110., 50.],
    );
    close(
        at(
            AffineDraw {
                shear: [45., 0.],
                ..base
            },
            [50., 60.],
        ),
        [60., 60.],
    );
    close(
        at(
            AffineDraw {
                shear: [0., 45.],
                ..base
            },
            [60., 50.],
        ),
        [60., 60.],
    );
    close(
        at(
            AffineDraw {
                translate: [0.6, 0.3],
                ..base
            },
            [50., 50.],
        ),
        [60., 30.],
    );
    close(
        at(
            AffineDraw {
                perspective: [0.01, 0.],
                ..base
            },
            [100., 50.],
        ),
        [50. + 50. / 1.5, 50.],
    );
}

#[test]
fn the_order_is_scale_then_shear_then_translate() {
    let draw = AffineDraw {
        scale: 2.,
        shear: [45., 0.],
        translate: [0., 0.],
        ..AffineDraw::IDENTITY
    };
    let m = compose(&draw, (10, 10), (10, 10));
    // (1, 1) from the centre, scaled (2, 2), sheared (4, 2).
    close(m.apply([6., 6.]), [4., 2.]);
}

#[test]
fn boxes_become_the_box_around_their_corners() {
    let turn = AffineDraw {
        degrees: 45.,
        ..AffineDraw::IDENTITY
    };
    let m = compose(&turn, (100, 100), (100, 100));
    let b = warp_box(&m, Xyxy::new(40., 40., 60., 60.));
    let half = 200_f32.sqrt();
    for (got, want) in [
        (b.x1, 50. - half),
        (b.y1, 50. - half),
        (b.x2, 50. + half),
        (b.y2, 50. + half),
    ] {
        assert!((got - want).abs() < 1e-4, "{b:?}");
    }
    // The circle in that box keeps its extent: polygons give tighter boxes.
    let circle: Vec<[f32; 2]> = (0..360)
        .map(|d| (d as f32).to_radians().sin_cos())
        .map(|(s, c)| [50. + 10. * c, 50. + 10. * s])
        .collect();
    let tight = warp_segment(&m, &circle, 100, 100).unwrap();
    assert!((tight.width() - 20.).abs() < 1e-3);
    assert_eq!(warp_segment(&m, &[[500., 500.]], 100, 100), None);
}

#[test]
fn candidates_are_large_whole_and_compact() {
    let before = Xyxy::new(0., 0., 100., 10.);
    let keeps =
        |w: f32, h: f32| is_candidate(before, Xyxy::new(0., 0., w, h), MIN_AREA_RATIO_OF_BOXES);
    assert!(keeps(100., 10.) && keeps(11., 10.));
    assert!(!keeps(10., 10.), "a tenth of the area is too little");
    assert!(is_candidate(
        before,
        Xyxy::new(0., 0., 10., 10.),
        MIN_AREA_RATIO_OF_SEGMENTS
    ));
    assert!(!keeps(2., 60.) && !keeps(60., 2.), "2 pixels are too few");
    assert!(keeps(297., 3.) && !keeps(300., 3.), "100 to 1 is too long");
}

#[test]
fn boxes_outside_are_dropped() {
    let draw = AffineDraw {
        translate: [1.5, 0.5],
        ..AffineDraw::IDENTITY
    };
    let m = compose(&draw, (100, 100), (100, 100));
    assert_eq!(
        transform_box(&m, &draw, Xyxy::new(40., 40., 60., 60.), (100, 100)),
        None
    );
    let half_way = AffineDraw {
        translate: [1.0, 0.5],
        ..AffineDraw::IDENTITY
    };
    let m = compose(&half_way, (100, 100), (100, 100));
    let b = transform_box(&m, &half_way, Xyxy::new(40., 40., 60., 60.), (100, 100));
    assert_eq!(b, Some(Xyxy::new(90., 40., 100., 60.)));
}

proptest! {
    #[test]
    fn drawn_transforms_are_in_range_and_invertible(seed: u64, point in (0f64..640., 0f64..640.)) {
        let ranges = AffineRanges {
            degrees: 10., translate: 0.1, scale: 0.5, shear: 2., perspective: 0.0003,
        };
        let draw = ranges.draw(&mut stream(seed, Purpose::Augment, 0, 0));
        prop_assert!(draw.degrees.abs() <= 10. && (0.5..=1.5).contains(&draw.scale));
        prop_assert!(draw.translate.iter().all(|t| (0.4..=0.6).contains(t)));
        let m = compose(&draw, (640, 480), (320, 320));
        let there = m.apply([point.0, point.1]);
        let back = m.inverse().unwrap().apply(there);
        prop_assert!((back[0] - point.0).abs() < 1e-6 && (back[1] - point.1).abs() < 1e-6);
        let same = compose(&AffineRanges::default().draw(&mut stream(seed, Purpose::Test, 0, 0)),
                           (640, 480), (640, 480));
        prop_assert_eq!(same, Matrix3([[1., 0., 0.], [0., 1., 0.], [0., 0., 1.]]));
    }

    #[test]
    fn a_warped_box_holds_every_point_of_the_box(
        seed: u64, b in (0f32..300., 0f32..300., 5f32..100., 5f32..100.), at in (0f32..1., 0f32..1.),
    ) {
        let ranges = AffineRanges {
            degrees: 180., translate: 0.5, scale: 0.9, shear: 20., perspective: 0.0005,
        };
        let draw = ranges.draw(&mut stream(seed, Purpose::Augment, 0, 1));
        let m = compose(&draw, (400, 400), (400, 400));
        let source = Xyxy::new(b.0, b.1, b.0 + b.2, b.1 + b.3);
        let warped = warp_box(&m, source);
        let inside = [b.0 + at.0 * b.2, b.1 + at.1 * b.3].map(f64::from);
        let [x, y] = m.apply(inside).map(|v| v as f32);
        prop_assert!(x >= warped.x1 - 0.01 && x <= warped.x2 + 0.01);
        prop_assert!(y >= warped.y1 - 0.01 && y <= warped.y2 + 0.01);
        if let Some(kept) = transform_box(&m, &draw, source, (400, 400)) {
            prop_assert!(kept.x1 >= 0. && kept.y2 <= 400. && kept.width() > 2.);
        }
    }
}
