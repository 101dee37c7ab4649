//! The image size of each step of multi-scale training.

use crate::rng::{Purpose, below, stream};

/// The side of the images of step `step`, a multiple of `multiple`, drawn from `image_size * (1 - range)` to
/// `image_size * (1 + range)`; the same on all ranks. With a range of 1/2 as YOLOv5 v7.0:
/// `randrange(0.5 s, 1.5 s + m) // m * m`.
pub fn side(seed: u64, step: u64, image_size: u32, range: f64, multiple: u32) -> u32 {
    if range == 0.0 {
        return image_size;
    }
    let size = f64::from(image_size);
    let low = (size * (1.0 - range)) as u64;
    let high = (size * (1.0 + range)) as u64 + u64::from(multiple);
    let drawn = low + below(&mut stream(seed, Purpose::MultiScale, 0, step), high - low);
    (drawn as u32 / multiple * multiple).max(multiple)
}

/// The largest side that [`side`] draws.
pub fn largest(image_size: u32, range: f64, multiple: u32) -> u32 {
    if range == 0.0 {
        return image_size;
    }
    let high = (f64::from(image_size) * (1.0 + range)) as u32 + multiple;
    ((high - 1) / multiple * multiple).max(multiple)
}

/// The width and height to which images of `size` are brought so that their longer side is about `side`: a multiple
/// of `multiple` on each axis, rounded up, as YOLOv5 v7.0.
pub fn resized(size: (u32, u32), side: u32, multiple: u32) -> (u32, u32) {
    let factor = f64::from(side) / f64::from(size.0.max(size.1).max(1));
    let axis = |pixels: u32| {
        let multiples = (f64::from(pixels) * factor / f64::from(multiple.max(1))).ceil();
        (multiples as u32).max(1) * multiple
    };
    (axis(size.0), axis(size.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_keep_their_shape() {
        assert_eq!((160, 160), resized((320, 320), 160, 32));
        assert_eq!((480, 288), resized((640, 384), 480, 32));
        assert_eq!((480, 320), resized((640, 386), 480, 32));
        assert_eq!((64, 64), resized((640, 32), 64, 64));
    }

    #[test]
    fn sizes_are_multiples_in_range_and_all_occur() {
        let drawn: Vec<u32> = (0..2000).map(|step| side(1, step, 160, 0.5, 32)).collect();
        let mut sizes = drawn.clone();
        sizes.sort_unstable();
        sizes.dedup();
        // v5's range ends one multiple above 1.5 times the size.
        assert_eq!([64, 96, 128, 160, 192, 224, 256], sizes[..]);
        assert_eq!(256, largest(160, 0.5, 32));
        assert_eq!(160, largest(160, 0.0, 32));
        for (size, range, multiple) in [(64, 0.9, 64), (640, 0.25, 32), (100, 0.1, 32)] {
            let drawn = (0..2000).map(|step| side(3, step, size, range, multiple));
            assert_eq!(drawn.max(), Some(largest(size, range, multiple)), "{size}");
        }
        assert_eq!(drawn[7], side(1, 7, 160, 0.5, 32));
        assert_eq!(160, side(1, 7, 160, 0.0, 32));
        assert!((0..100).all(|step| side(1, step, 64, 0.9, 64) >= 64));
    }
}
