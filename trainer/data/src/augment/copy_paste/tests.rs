use super::*;
use crate::testing::{covered, noise};
use trainer_core::rng::{Purpose, stream};

fn rectangle(x1: f32, y1: f32, x2: f32, y2: f32) -> CanvasLabel {
    CanvasLabel {
        class: 1,
        xyxy: Xyxy::new(x1, y1, x2, y2),
        outline: vec![[x1, y1], [x2, y1], [x2, y2], [x1, y2]],
    }
}

fn pasted(labels: Vec<CanvasLabel>, share: f64) -> Canvas {
    let canvas = Canvas {
        labels,
        ..covered(noise(3, (64, 64)))
    };
    paste(&mut stream(1, Purpose::Test, 0, 0), canvas, share)
}

/// Every pixel of the canvas shows the image, mirrored where `inside` says so.
#[track_caller]
fn check_pixels(canvas: &Canvas, inside: impl Fn(u32, u32) -> bool) {
    let image = noise(3, (64, 64));
    for (x, y, pixel) in image.enumerate_pixels() {
        let expected = if inside(x, y) {
            image.get_pixel(63 - x, y)
        } else {
            pixel
        };
        assert_eq!(canvas.pixel(x.into(), y.into()), expected.0, "{x} {y}");
    }
}

#[test]
fn an_object_appears_again_on_the_other_side() {
    let canvas = pasted(vec![rectangle(10., 10., 20., 30.)], 1.0);
    assert_eq!(canvas.labels.len(), 2);
    let copy = &canvas.labels[1];
    assert_eq!(copy.xyxy, Xyxy::new(44., 10., 54., 30.));
    assert_eq!(copy.class, 1);
    assert_eq!(copy.outline[0], [54., 10.]);
    check_pixels(&canvas, |x, y| {
        (44..54).contains(&x) && (10..30).contains(&y)
    });
}

#[test]
fn only_the_outline_is_cut_out() {
    // An L: the upper right quarter of its box is not part of it.
    let outline = vec![
        [0., 0.],
        [8., 0.],
        [8., 8.],
        [16., 8.],
        [16., 16.],
        [0., 16.],
    ];
    let label = CanvasLabel {
        class: 0,
        xyxy: Xyxy::new(0., 0., 16., 16.),
        outline,
    };
    let canvas = pasted(vec![label], 1.0);
    // Mirrored it lies at the right edge, its upper left quarter missing. The edges of the missing
    // quarter belong to the polygon.
    check_pixels(&canvas, |x, y| x >= 48 && y < 16 && (x >= 56 || y >= 8));
}

#[test]
fn what_would_hide_an_object_is_not_pasted() {
    // Across the middle an object would cover itself.
    let canvas = pasted(vec![rectangle(25., 10., 45., 30.)], 1.0);
    assert_eq!(canvas.labels.len(), 1);
    check_pixels(&canvas, |_, _| false);
    // A copy at 44..54 covers 3.5 or 2.5 of 10 columns of what begins at 50.5 or 51.5.
    for (left, copies) in [(50.5, 0), (51.5, 1)] {
        let mut other = rectangle(left, 10., left + 10., 30.);
        other.outline.clear();
        let canvas = pasted(vec![rectangle(10., 10., 20., 30.), other], 1.0);
        assert_eq!(canvas.labels.len(), 2 + copies, "{left}");
    }
    // Two objects that would be pasted onto each other's place: the second finds the first's copy.
    let twins = vec![rectangle(2., 2., 12., 12.), rectangle(4., 2., 14., 12.)];
    assert_eq!(pasted(twins, 1.0).labels.len(), 3);
}

#[test]
fn the_share_of_outlined_objects_is_kept() {
    let row = |count: u32| -> Vec<CanvasLabel> {
        let top = |k| (k * 6) as f32;
        (0..count)
            .map(|k| rectangle(2., top(k), 12., top(k) + 5.))
            .collect()
    };
    for (count, share, copies) in [
        (4, 0.0, 0),
        (1, 0.5, 0),
        (3, 0.5, 2),
        (5, 0.5, 2),
        (8, 0.25, 2),
        (8, 1.0, 8),
    ] {
        let canvas = pasted(row(count), share);
        assert_eq!(
            canvas.labels.len(),
            count as usize + copies,
            "{count} {share}"
        );
    }
    let boxes: Vec<CanvasLabel> = row(4)
        .into_iter()
        .map(|label| CanvasLabel {
            outline: Vec::new(),
            ..label
        })
        .collect();
    assert_eq!(pasted(boxes, 1.0).labels.len(), 4, "boxes have no outline");
}

#[test]
fn outlines_at_the_edge_and_without_area_do_no_harm() {
    let whole = rectangle(0., 0., 31., 64.);
    let line = CanvasLabel {
        class: 0,
        xyxy: Xyxy::new(0., 0., 10.4, 10.6),
        outline: vec![[0., 0.], [10.4, 10.6]],
    };
    let canvas = pasted(vec![whole, line], 1.0);
    assert!(canvas.labels.len() >= 3);
    assert!(canvas.labels.iter().all(|label| label.xyxy.x2 <= 64.0));
}
