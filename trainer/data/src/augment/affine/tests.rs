use super::*;
use crate::testing::{covered, noise};
use image::RgbImage;
use proptest::prelude::*;
use std::sync::Arc;
use trainer_core::affine::{AffineDraw, compose};
use trainer_core::mosaic::tiles;

fn warped(canvas: &Canvas, matrix: &Matrix3, size: (u32, u32)) -> Vec<[u8; 3]> {
    let width = size.0 as usize;
    let mut result = Vec::new();
    warp(canvas, matrix, size, |y, row| {
        assert_eq!(y, result.len() / width);
        result.extend((0..width).map(|x| [row.r[x], row.g[x], row.b[x]]));
    });
    result
}

/// The plain way: ask the canvas for four pixels and mix them in floating point.
fn reference(canvas: &Canvas, matrix: &Matrix3, (width, height): (u32, u32)) -> Vec<[f64; 3]> {
    let inverse = matrix.inverse().unwrap();
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    pixels
        .map(|(x, y)| {
            let [u, v] = inverse.apply([f64::from(x), f64::from(y)]);
            let at = |x: f64, y: f64| canvas.pixel(x as i64, y as i64).map(f64::from);
            let (left, top) = (u.floor(), v.floor());
            let (right, down) = (u - left, v - top);
            let [a, b] = [left, left + 1.0].map(|x| (at(x, top), at(x, top + 1.0)));
            std::array::from_fn(|c| {
                let left = a.0[c] * (1.0 - down) + a.1[c] * down;
                let right_side = b.0[c] * (1.0 - down) + b.1[c] * down;
                left * (1.0 - right) + right_side * right
            })
        })
        .collect()
}

/// A smooth image, on which 1/256 of a pixel is less than a level.
fn smooth(seed: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb(
            [x * 3 + seed, y * 3 + seed, x + y + 2 * seed]
                .map(|v| (v % 512).min(511 - v % 512) as u8),
        )
    })
}

fn mosaic_of(side: u32, centre: (u32, u32), sizes: [(u32, u32); 4]) -> Canvas {
    let images: Vec<_> = (0..4)
        .map(|k| Arc::new(smooth(k * 40, sizes[k as usize].0, sizes[k as usize].1)))
        .collect();
    Canvas {
        size: (2 * side, 2 * side),
        tiles: images
            .into_iter()
            .zip(tiles(side, centre, sizes))
            .map(|(pixels, tile)| CanvasTile {
                pixels,
                covers: tile.canvas,
                offset: tile.offset,
            })
            .collect(),
        ..Canvas::default()
    }
}

#[test]
fn the_identity_keeps_every_pixel() {
    let image = noise(1, (48, 48));
    let matrix = compose(&AffineDraw::IDENTITY, (48, 48), (48, 48));
    let expected: Vec<[u8; 3]> = image.pixels().map(|p| p.0).collect();
    assert_eq!(warped(&covered(image), &matrix, (48, 48)), expected);
}

#[test]
fn a_whole_shift_moves_pixels_and_fills_with_grey() {
    let image = noise(1, (32, 32));
    let draw = AffineDraw {
        translate: [0.75, 0.25],
        ..AffineDraw::IDENTITY
    };
    let got = warped(
        &covered(image.clone()),
        &compose(&draw, (32, 32), (32, 32)),
        (32, 32),
    );
    for (k, pixel) in got.into_iter().enumerate() {
        let (x, y) = (k as u32 % 32, k as u32 / 32);
        let expected = if x < 8 || y + 8 >= 32 {
            [FILL; 3]
        } else {
            image.get_pixel(x - 8, y + 8).0
        };
        assert_eq!(pixel, expected, "{x} {y}");
    }
}

#[test]
fn a_quarter_turn_moves_pixels() {
    let image = noise(2, (32, 32));
    let draw = AffineDraw {
        degrees: 90.0,
        ..AffineDraw::IDENTITY
    };
    let got = warped(
        &covered(image.clone()),
        &compose(&draw, (32, 32), (32, 32)),
        (32, 32),
    );
    // Counter-clockwise: what was right is up. The centre is the corner between pixels 15 and 16, so
    // one line falls outside.
    for (x, y) in [(3_u32, 5_u32), (20, 9), (31, 31)] {
        assert_eq!(got[(y * 32 + x) as usize], image.get_pixel(32 - y, x).0);
    }
}

#[test]
fn what_cannot_be_inverted_is_grey() {
    let draw = AffineDraw {
        scale: 0.0,
        ..AffineDraw::IDENTITY
    };
    let got = warped(
        &covered(noise(1, (32, 32))),
        &compose(&draw, (32, 32), (32, 32)),
        (32, 32),
    );
    assert_eq!(got, vec![[FILL; 3]; 1024]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The straight way, the general way and the plain way see the same picture.
    #[test]
    fn all_ways_agree(
        centre in (16_u32..48, 16_u32..48), sizes in prop::array::uniform4((8_u32..33, 8_u32..33)),
        scale in 0.1_f64..2.0, translate in prop::array::uniform2(0.0_f64..1.0),
        degrees in prop_oneof![Just(0.0), -180.0_f64..180.0],
        shear in prop_oneof![Just(0.0), -30.0_f64..30.0],
        perspective in prop_oneof![Just(0.0), -0.001_f64..0.001],
        size in prop_oneof![Just((32, 32)), (1_u32..50, 1_u32..50)],
    ) {
        let canvas = mosaic_of(32, centre, sizes);
        let draw = AffineDraw { scale, translate, degrees, shear: [shear, -shear], perspective: [perspective; 2] };
        let matrix = compose(&draw, (64, 64), size);
        let got = warped(&canvas, &matrix, size);
        let back = WayBack::new(&matrix).unwrap();
        let mut general = Vec::new();
        let mut row = PlanarRow::new(size.0);
        warp_any(&canvas, &back, size.1, &mut row, &mut |_, row: &mut PlanarRow| {
            general.extend((0..size.0 as usize).map(|x| [row.r[x], row.g[x], row.b[x]]));
        });
        prop_assert!(got == general, "the two ways differ");
        for (k, (got, expected)) in got.iter().zip(reference(&canvas, &matrix, size)).enumerate() {
            for c in 0..3 {
                // Half a level of rounding, and at an edge of up to 255 levels 1/512 pixel each way.
                let error = (f64::from(got[c]) - expected[c]).abs();
                prop_assert!(error <= 0.5 + 2.0 * 255.0 / 512.0 + 1e-6, "pixel {k}: {got:?} {expected:?}");
            }
        }
    }
}
