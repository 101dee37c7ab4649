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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_multiples_in_range_and_all_occur() {
        let drawn: Vec<u32> = (0..2000).map(|step| side(1, step, 160, 0.5, 32)).collect();
        let mut sizes = drawn.clone();
        sizes.sort_unstable();
        sizes.dedup();
        // v5's range ends one multiple above 1.5 times the size.
        assert_eq!([64, 96, 128, 160, 192, 224, 256], sizes[..]);
        assert_eq!(drawn[7], side(1, 7, 160, 0.5, 32));
        assert_eq!(160, side(1, 7, 160, 0.0, 32));
        assert!((0..100).all(|step| side(1, step, 64, 0.9, 64) >= 64));
    }
}
