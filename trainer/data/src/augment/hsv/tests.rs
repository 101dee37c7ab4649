use super::*;
use trainer_core::rng::{Purpose, stream};

fn row(pixels: &[[u8; 3]]) -> PlanarRow {
    PlanarRow {
        r: pixels.iter().map(|p| p[0]).collect(),
        g: pixels.iter().map(|p| p[1]).collect(),
        b: pixels.iter().map(|p| p[2]).collect(),
    }
}

fn to_hsv(row: &mut PlanarRow) {
    for k in 0..row.r.len() {
        [row.r[k], row.g[k], row.b[k]] =
            super::to_hsv(pixel(row, k).map(f32::from)).map(|x| x as u8);
    }
}

fn to_rgb(row: &mut PlanarRow) {
    for k in 0..row.r.len() {
        [row.r[k], row.g[k], row.b[k]] = super::to_rgb(pixel(row, k).map(f32::from));
    }
}

fn pixel(row: &PlanarRow, k: usize) -> [u8; 3] {
    [row.r[k], row.g[k], row.b[k]]
}

/// Colours and their OpenCV 8-bit HSV.
const KNOWN: [([u8; 3], [u8; 3]); 9] = [
    ([0, 0, 0], [0, 0, 0]),
    ([255, 255, 255], [0, 0, 255]),
    ([255, 0, 0], [0, 255, 255]),
    ([0, 255, 0], [60, 255, 255]),
    ([0, 0, 255], [120, 255, 255]),
    ([255, 255, 0], [30, 255, 255]),
    ([255, 0, 255], [150, 255, 255]),
    ([128, 64, 32], [10, 191, 128]),
    ([100, 150, 200], [105, 128, 200]),
];

#[test]
fn known_colours_convert_both_ways() {
    let (rgb, hsv): (Vec<_>, Vec<_>) = KNOWN.into_iter().unzip();
    let mut r = row(&rgb);
    to_hsv(&mut r);
    assert_eq!(r, row(&hsv));
    to_rgb(&mut r);
    for (k, expected) in rgb.iter().enumerate() {
        let got = pixel(&r, k);
        assert!(
            got.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1),
            "{got:?} {expected:?}"
        );
    }
}

/// Every channel value on a grid: hue below 180, and the way back within what 8 bits allow.
#[test]
fn all_colours_survive_both_ways() {
    let levels: Vec<u8> = (0..=255).step_by(5).collect();
    let all: Vec<[u8; 3]> = levels
        .iter()
        .flat_map(|r| levels.iter().map(move |g| (*r, *g)))
        .flat_map(|(r, g)| levels.iter().map(move |b| [r, g, *b]))
        .collect();
    let mut r = row(&all);
    to_hsv(&mut r);
    assert!(r.r.iter().all(|hue| *hue < 180));
    to_rgb(&mut r);
    let worst = all.iter().enumerate().map(|(k, p)| {
        let got = pixel(&r, k);
        (0..3).map(|c| got[c].abs_diff(p[c])).max().unwrap()
    });
    // Half a step of hue is 255 / 60 levels of a channel.
    assert!(worst.max().unwrap() <= 5);
}

#[test]
fn factors_do_what_they_say() {
    let colours = [[100, 150, 200], [10, 20, 30], [250, 240, 10]];
    let changed = |factors| {
        let mut r = row(&colours);
        HsvChange::new(factors).apply(&mut r);
        to_hsv(&mut r);
        r
    };
    let mut plain = row(&colours);
    to_hsv(&mut plain);
    let brighter = changed([1.0, 1.0, 1.2]);
    for k in 0..3 {
        let expected = (f64::from(plain.b[k]) * 1.2).min(255.0) as u8;
        assert_eq!(brighter.b[k], expected);
    }
    assert_eq!(changed([1.0, 0.0, 1.0]).g, [0, 0, 0], "grey");
    let turned = changed([0.9, 1.0, 1.0]);
    for k in [0, 2] {
        let expected = f64::from(plain.r[k]) * 0.9;
        assert!((f64::from(turned.r[k]) - expected).abs() <= 2.0);
    }
    let around = change([170.0, 0.0, 0.0], [1.5, 1.0, 1.0]);
    assert_eq!(around[0], 75.0, "hue goes round: 255 - 180");
}

#[test]
fn no_range_changes_nothing() {
    let mut rng = stream(1, Purpose::Test, 0, 0);
    let colours = [[13, 17, 19], [200, 100, 50]];
    let mut r = row(&colours);
    HsvRanges::default().draw(&mut rng).apply(&mut r);
    assert_eq!(r, row(&colours));
    // The number of draws does not depend on the ranges.
    let mut other = stream(1, Purpose::Test, 0, 0);
    let ranges = HsvRanges {
        hue: 0.015,
        saturation: 0.7,
        value: 0.4,
    };
    let tables = ranges.draw(&mut other);
    assert_eq!(uniform(&mut rng, 0.0, 1.0), uniform(&mut other, 0.0, 1.0));
    tables.apply(&mut r);
    assert_ne!(r, row(&colours));
}
