use super::*;
use crate::testing::noise;
use image::{Rgb, RgbImage};
use trainer_core::rng::{Purpose, stream};

fn rect(x1: u32, y1: u32, x2: u32, y2: u32) -> PixelRect {
    PixelRect { x1, y1, x2, y2 }
}

fn object(x1: f32, y1: f32, x2: f32, y2: f32, class: u16) -> LabelledBox {
    LabelledBox {
        xyxy: Xyxy::new(x1, y1, x2, y2),
        class,
    }
}

fn picture(seed: u64, boxes: Vec<LabelledBox>) -> Picture {
    Picture {
        pixels: noise(seed, (64, 64)),
        boxes,
    }
}

#[test]
fn the_part_shows_the_other_picture_and_its_objects() {
    let first = picture(1, vec![object(0., 0., 9., 9., 0)]);
    let second = picture(
        2,
        vec![
            // Inside; half of it inside; a tenth inside; just less; outside.
            object(24., 24., 30., 30., 1),
            object(10., 20., 30., 30., 2),
            object(31., 50., 41., 60., 3),
            object(31.1, 50., 41.1, 60., 4),
            object(50., 0., 60., 10., 5),
        ],
    );
    let part = rect(20, 20, 32, 60);
    let mut mixed = first.clone();
    apply(&mut mixed, &second, part);
    for (x, y, pixel) in mixed.pixels.enumerate_pixels() {
        let from = if (20..32).contains(&x) && (20..60).contains(&y) {
            &second
        } else {
            &first
        };
        assert_eq!(pixel, from.pixels.get_pixel(x, y), "{x} {y}");
    }
    let expected = [
        object(0., 0., 9., 9., 0),
        object(24., 24., 30., 30., 1),
        object(20., 20., 30., 30., 2),
        object(31., 50., 32., 60., 3),
    ];
    assert_eq!(mixed.boxes, expected);
}

#[test]
fn a_part_without_objects_changes_nothing() {
    let first = picture(1, vec![object(0., 0., 9., 9., 0)]);
    let second = picture(2, vec![object(0., 40., 20., 60., 1)]);
    let mut mixed = first.clone();
    apply(&mut mixed, &second, rect(30, 30, 64, 64));
    assert_eq!(mixed, first);
}

#[test]
fn the_first_free_candidate_with_pixels_is_taken() {
    let cut = Cut {
        partner: 0,
        candidates: [rect(5, 5, 5, 20), rect(0, 0, 20, 20), rect(30, 30, 50, 50)],
    };
    let free = |boxes: &[LabelledBox]| cut.free_part(boxes);
    assert_eq!(free(&[]), Some(rect(0, 0, 20, 20)));
    assert_eq!(
        free(&[object(19.5, 0., 29., 9., 0)]),
        Some(rect(30, 30, 50, 50))
    );
    // Edge to edge is free.
    assert_eq!(
        free(&[object(20., 0., 29., 9., 0)]),
        Some(rect(0, 0, 20, 20))
    );
    assert_eq!(free(&[object(10., 10., 40., 40., 0)]), None);
}

#[test]
fn areas_are_uniform_between_nothing_and_all() {
    let side = 1000;
    let draws: Vec<Cut> = (0..1000)
        .filter_map(|k| draw(&mut stream(1, Purpose::Test, k, 0), 0.5, Pool::All(3), side))
        .collect();
    assert!((430..570).contains(&draws.len()), "{}", draws.len());
    let parts: Vec<PixelRect> = draws.iter().flat_map(|cut| cut.candidates).collect();
    // What the edge does not cut off is a square; in the middle nearly all are whole.
    let inner = parts
        .iter()
        .filter(|part| part.x1 > 0 && part.x2 < side && part.y1 > 0 && part.y2 < side);
    assert!(inner.clone().count() > 200);
    assert!(inner.clone().all(|part| part.size().0 == part.size().1));
    assert!(parts.iter().all(|part| part.x2 <= side && part.y2 <= side));
    // The share of the area replaced is at most uniform: its mean is below a half, and a square of
    // more than a quarter comes three times of four.
    let large = parts
        .iter()
        .filter(|part| part.size().0.max(part.size().1) >= side / 2);
    let share = large.count() as f64 / parts.len() as f64;
    assert!((0.5..0.76).contains(&share), "{share}");
    for partner in 0..3 {
        assert!(draws.iter().any(|cut| cut.partner == partner));
    }
}

#[test]
fn a_part_at_the_corner_is_copied() {
    let mut mixed = Picture {
        pixels: RgbImage::from_pixel(16, 16, Rgb([1; 3])),
        boxes: Vec::new(),
    };
    let second = Picture {
        pixels: RgbImage::from_pixel(16, 16, Rgb([9; 3])),
        boxes: vec![object(0., 0., 16., 16., 7)],
    };
    apply(&mut mixed, &second, rect(12, 8, 16, 16));
    // 4 * 8 pixels, an eighth of the sample and of the object.
    let changed = mixed.pixels.pixels().filter(|p| p.0 == [9; 3]).count();
    assert_eq!(changed, 32);
    assert_eq!(mixed.boxes, [object(12., 8., 16., 16., 7)]);
}
