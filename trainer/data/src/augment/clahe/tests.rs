use super::*;
use image::Rgb;

/// A picture with gradients, edges and texture, 128 wide and 256 high.
fn level(x: u32, y: u32) -> u8 {
    ((x * x * 3 + y * 7 + x * y / 5) % 200 + 20) as u8
}

const PLACES: [(usize, usize); 5] = [(0, 0), (9, 5), (32, 31), (63, 40), (1, 63)];

/// Levels at [`PLACES`] (x, y), and the sum of all, as OpenCV 5.0 gives them.
const KNOWN: [(f64, [u8; 5], u64); 4] = [
    (1.0, [11, 127, 126, 130, 85], 4_595_204),
    (2.5, [2, 118, 111, 116, 74], 4_214_146),
    (4.0, [1, 115, 111, 116, 73], 4_208_577),
    (40.0, [1, 115, 111, 116, 73], 4_204_840),
];

#[test]
fn levels_are_those_of_opencv() {
    for (clip_limit, expected, sum) in KNOWN {
        let mut levels: Vec<u8> = (0..256)
            .flat_map(|y| (0..128).map(move |x| level(x, y)))
            .collect();
        equalise(&mut levels, (128, 256), clip_limit);
        let got = PLACES.map(|(x, y)| levels[y * 128 + x]);
        assert_eq!(got, expected, "clip limit {clip_limit}");
        let got: u64 = levels.iter().map(|v| u64::from(*v)).sum();
        // A level that falls between two may round either way.
        assert!(got.abs_diff(sum) == 0, "{got} {sum}");
    }
}

/// The same with OpenCV's conversion to 8-bit L*a*b* and back, whose colours have fewer levels.
#[test]
fn colours_keep_their_hue_as_in_opencv() {
    let mut pixels = RgbImage::from_fn(128, 256, |x, y| {
        Rgb([level(x, y), level(x, (y + 251) % 256), 255 - level(x, y)])
    });
    apply(&mut pixels, 3.0);
    let expected = [
        [59, 195, 253],
        [72, 32, 114],
        [54, 0, 98],
        [162, 255, 194],
        [0, 0, 125],
    ];
    for ((x, y), expected) in PLACES.into_iter().zip(expected) {
        let got = pixels.get_pixel(x as u32, y as u32).0;
        let near = got.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 6);
        assert!(near, "{x} {y}: {got:?} {expected:?}");
    }
}

#[test]
fn contrast_grows_with_the_limit_and_even_areas_stay_even() {
    let faint = RgbImage::from_fn(128, 128, |x, y| {
        Rgb([if (x / 3 + y / 5) % 2 == 0 { 118 } else { 110 }; 3])
    });
    let spread = |limit: f64| {
        let mut pixels = faint.clone();
        apply(&mut pixels, limit);
        let range = pixels.iter().max().unwrap() - pixels.iter().min().unwrap();
        assert!(
            pixels.pixels().all(|p| p.0[0].abs_diff(p.0[2]) <= 1),
            "grey stays grey"
        );
        range
    };
    let (low, high) = (spread(1.0), spread(4.0));
    assert!(high > low && high > 8, "{low} {high}");
    let mut even = RgbImage::from_pixel(64, 64, Rgb([90, 140, 30]));
    apply(&mut even, 2.0);
    let first = *even.get_pixel(0, 0);
    assert!(even.pixels().all(|pixel| *pixel == first));
}

#[test]
fn any_size_will_do() {
    for size in [(1, 1), (7, 3), (9, 65), (100, 31)] {
        let mut pixels = crate::testing::noise(2, size);
        apply(&mut pixels, 2.0);
        assert_eq!(pixels.dimensions(), size);
    }
}
