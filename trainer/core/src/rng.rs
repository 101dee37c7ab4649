//! Counter-based random numbers.
//!
//! A stream is a function of (seed, purpose, epoch, index) and of nothing else, so that no random
//! state is ever stored, and threads, ranks, resumed runs and world sizes do not change it. The
//! helpers below are part of that promise: they consume a fixed, documented number of draws or
//! documented loop of draws, so that an upgrade of a distribution crate cannot alter a training run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is for; streams of different purposes are independent.
///
/// The numbers are part of the stream's key: never change or reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Purpose {
    /// The order of the data set in one epoch; index 0.
    Order = 1,
    /// The geometric transform, colours and flips of one picture; index = [`picture_key`].
    Augment = 2,
    /// Whether a picture is a mosaic, partners and centre of it; index as for `Augment`.
    Mosaic = 3,
    /// Whether, how far and with which image a sample is mixed; index = the image's index in the data
    /// set.
    Mixup = 4,
    /// Initial weights; epoch 0, index = the first eight bytes of BLAKE3 of the tensor's name as a
    /// little-endian number.
    Init = 5,
    /// Generated example scenes; index = the scene.
    Scenes = 6,
    /// The image size of one step of multi-scale training; index = the step.
    MultiScale = 7,
    /// Anything a test needs.
    Test = 8,
    /// Whether a mosaic is laid from nine images, their order and place; index as for `Augment`.
    Mosaic9 = 9,
    /// Which objects of a picture are pasted mirrored; index as for `Augment`.
    CopyPaste = 10,
    /// Whether, where and from which image a part is put into a sample; index as for `Mixup`.
    Cutmix = 11,
    /// Whether and where a sample is cropped; index as for `Mixup`.
    Crop = 12,
    /// Blur, grey, contrast and the like of a sample; index as for `Mixup`.
    Effects = 13,
    /// Masks over a sample; index as for `Mixup`.
    Cutout = 14,
    /// Anchors fitted to a data set; epoch and index count its parts.
    Anchors = 15,
    /// The images of one epoch that image weights choose; index 0.
    ImageWeights = 16,
    /// What a quad shows; index = its first image's index in the data set.
    Quad = 17,
}

/// The index of a picture's streams. A sample shows one picture, and may show parts of others: `layer`
/// 0 is its own, 1 is what it is mixed with, 2 is what is put into it. `image` is the index in the data
/// set of the image the sample belongs to, also where the picture shows others.
pub fn picture_key(image: u32, layer: u32) -> u64 {
    u64::from(layer) << 32 | u64::from(image)
}

/// The stream of (seed, purpose, epoch, index): `ChaCha8` keyed with BLAKE3 of the four numbers.
pub fn stream(seed: u64, purpose: Purpose, epoch: u64, index: u64) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("yolo-operator trainer random stream v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose as u32).to_le_bytes());
    hasher.update(&epoch.to_le_bytes());
    hasher.update(&index.to_le_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// The seed after `recovery` rollbacks from a non-finite loss; the seed itself when there were none.
pub fn recovery_seed(seed: u64, recovery: u32) -> u64 {
    if recovery == 0 {
        return seed;
    }
    let mut hasher = blake3::Hasher::new_derive_key("yolo-operator trainer recovery seed v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&recovery.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A number in 0..1 with 53 random bits; one `u64` draw.
pub fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number in `low..high` (`low` itself if they are equal); one `u64` draw.
pub fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + (high - low) * unit(rng)
}

/// True with probability `p`; one `u64` draw, also when `p` is 0 or 1.
pub fn chance(rng: &mut ChaCha8Rng, p: f64) -> bool {
    unit(rng) < p
}

/// A whole number in `0..bound` without bias (0 if `bound` is 0); draws `u64` until one is in the
/// largest multiple of `bound`.
pub fn below(rng: &mut ChaCha8Rng, bound: u64) -> u64 {
    if bound <= 1 {
        return 0;
    }
    let rejected = (u64::MAX % bound + 1) % bound;
    loop {
        let drawn = rng.next_u64();
        if drawn <= u64::MAX - rejected {
            return drawn % bound;
        }
    }
}

/// Shuffles in place (Fisher-Yates, from the end); one [`below`] per element but the first.
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last as u64 + 1) as usize);
    }
}

/// A standard normal number (Box-Muller, cosine branch); two `u64` draws.
pub fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(rng)).cos()
}

/// A number in 0..=1 from Beta(`a`, `b`), as mixup needs it. `a` and `b` must be at least 1.
pub fn beta(rng: &mut ChaCha8Rng, a: f64, b: f64) -> f64 {
    let x = gamma(rng, a);
    let y = gamma(rng, b);
    x / (x + y)
}

/// Gamma(`shape`, 1) for `shape` >= 1 (Marsaglia and Tsang 2000); loops until one is accepted.
fn gamma(rng: &mut ChaCha8Rng, shape: f64) -> f64 {
    let d = shape.max(1.0) - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_never_change() {
        let first = |seed, purpose, epoch, index| stream(seed, purpose, epoch, index).next_u64();
        let got = [
            first(0, Purpose::Order, 0, 0),
            first(0, Purpose::Augment, 0, 0),
            first(42, Purpose::Mosaic, 7, 123_456),
            recovery_seed(42, 1),
        ];
        let want = [
            16_336_539_189_966_616_101,
            12_342_936_077_372_465_365,
            16_191_480_459_038_419_328,
            13_556_987_240_917_077_117,
        ];
        assert_eq!(got, want, "old runs could no longer be continued");
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let base = stream(1, Purpose::Order, 2, 3).next_u64();
        assert_eq!(base, stream(1, Purpose::Order, 2, 3).next_u64());
        assert_ne!(base, stream(2, Purpose::Order, 2, 3).next_u64());
        assert_ne!(base, stream(1, Purpose::Test, 2, 3).next_u64());
        assert_ne!(base, stream(1, Purpose::Order, 3, 2).next_u64());
        assert_eq!(recovery_seed(9, 0), 9);
        assert_ne!(recovery_seed(9, 1), recovery_seed(9, 2));
    }

    #[test]
    fn helpers_have_the_right_moments() {
        let mut rng = stream(5, Purpose::Test, 0, 0);
        let n = 20_000;
        let mean_and_var = |draw: &mut dyn FnMut() -> f64| {
            let all: Vec<f64> = (0..n).map(|_| draw()).collect();
            let mean = all.iter().sum::<f64>() / f64::from(n);
            (
                mean,
                all.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / f64::from(n),
            )
        };
        let (mean, var) = mean_and_var(&mut || normal(&mut rng));
        assert!(
            mean.abs() < 0.03 && (var - 1.0).abs() < 0.05,
            "normal: {mean} {var}"
        );
        let (mean, var) = mean_and_var(&mut || beta(&mut rng, 32.0, 32.0));
        // Var of Beta(32, 32) is 1/260.
        assert!(
            (mean - 0.5).abs() < 0.003 && (var * 260.0 - 1.0).abs() < 0.05,
            "beta: {mean} {var}"
        );
        let (mean, _) = mean_and_var(&mut || f64::from(u8::from(chance(&mut rng, 0.3))));
        assert!((mean - 0.3).abs() < 0.02, "chance: {mean}");
        let (mean, _) = mean_and_var(&mut || below(&mut rng, 7) as f64);
        assert!((mean - 3.0).abs() < 0.06, "below: {mean}");
        let (mean, _) = mean_and_var(&mut || uniform(&mut rng, -2.0, 4.0));
        assert!((mean - 1.0).abs() < 0.06, "uniform: {mean}");
    }

    #[test]
    fn pictures_of_one_sample_have_streams_of_their_own() {
        // Layer 0 is the image's index itself: the streams of runs begun before there were layers.
        assert_eq!(picture_key(123_456, 0), 123_456);
        let keys = [
            picture_key(1, 0),
            picture_key(1, 1),
            picture_key(1, 2),
            picture_key(u32::MAX, 1),
        ];
        assert_eq!(
            keys,
            [1, 0x1_0000_0001, 0x2_0000_0001, 0x1_ffff_ffff],
            "old runs could no longer be continued"
        );
    }

    #[test]
    fn below_is_in_range_for_extreme_bounds() {
        let mut rng = stream(5, Purpose::Test, 0, 1);
        assert_eq!(below(&mut rng, 0), 0);
        assert_eq!(below(&mut rng, 1), 0);
        assert!((0..100).all(|_| below(&mut rng, u64::MAX) < u64::MAX));
        assert!((0..100).all(|_| below(&mut rng, (1 << 63) + 1) <= 1 << 63));
    }
}
