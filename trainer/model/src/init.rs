//! Initial values.
//!
//! A tensor's values are a function of the seed and of its own name, so that the order in which
//! tensors are made, the device and the rank do not matter, and layers that two networks share
//! begin equal.

use rand_chacha::rand_core::Rng;
use trainer_core::rng::{Purpose, stream};

use crate::architecture::{Initial, Slot};

/// Objects expected in an image of [`PRIOR_IMAGE`] pixels.
const PRIOR_OBJECTS: f64 = 8.0;
/// Side of the image that [`PRIOR_OBJECTS`] refers to.
const PRIOR_IMAGE: f64 = 640.0;
/// Classes expected for an object.
const PRIOR_CLASSES: f64 = 0.6;

/// The initial values of `slot`, row by row, or `None` if a blank network has them already.
pub(crate) fn values(slot: &Slot, seed: u64) -> Option<Vec<f32>> {
    match slot.initial {
        Initial::Blank => None,
        Initial::Constant(value) => Some(vec![value as f32; slot.len() as usize]),
        Initial::Uniform { bound } => Some(uniform(slot, seed, bound)),
        Initial::DetectBias {
            bound,
            stride,
            anchors,
        } => {
            let mut values = uniform(slot, seed, bound);
            add_prior(&mut values, stride, anchors);
            Some(values)
        }
    }
}

/// Values between ± `bound` with 24 random bits each, as many as an `f32` holds.
fn uniform(slot: &Slot, seed: u64, bound: f64) -> Vec<f32> {
    let mut bytes = vec![0; 4 * slot.len() as usize];
    stream(seed, Purpose::Init, 0, name_key(&slot.name)).fill_bytes(&mut bytes);
    let scale = (2.0 * bound) as f32 / (1_u32 << 24) as f32;
    let (words, _) = bytes.as_chunks::<4>();
    words
        .iter()
        .map(|word| (u32::from_le_bytes(*word) >> 8) as f32 * scale - bound as f32)
        .collect()
}

fn name_key(name: &str) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    let (words, _) = hash.as_bytes().as_chunks::<8>();
    u64::from_le_bytes(words[0])
}

/// YOLOv5 v7.0 behaviour: objectness begins at 8 objects in an image of 640 pixels, classes at 0.6
/// of one class.
fn add_prior(bias: &mut [f32], stride: u32, anchors: usize) {
    let outputs = bias.len() / anchors;
    let classes = (outputs - 5) as f64;
    let object = (PRIOR_OBJECTS / (PRIOR_IMAGE / f64::from(stride)).powi(2)).ln() as f32;
    let class = (PRIOR_CLASSES / (classes - 0.99999)).ln() as f32;
    for anchor in bias.chunks_exact_mut(outputs) {
        anchor[4] += object;
        anchor[5..].iter_mut().for_each(|value| *value += class);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Role;

    fn slot(name: &str, initial: Initial, shape: &[i64]) -> Slot {
        Slot {
            name: name.to_owned(),
            role: Role::Weight,
            shape: shape.to_vec(),
            initial,
        }
    }

    fn draw(name: &str, seed: u64) -> Vec<f32> {
        let slot = slot(name, Initial::Uniform { bound: 0.25 }, &[40, 25, 1, 1]);
        values(&slot, seed).expect("not all 0")
    }

    #[test]
    fn seed_and_name_decide() {
        assert_eq!(draw("a", 1), draw("a", 1));
        assert_ne!(draw("a", 1), draw("a", 2));
        assert_ne!(draw("a", 1), draw("b", 1));
    }

    #[test]
    fn values_never_change() {
        let want = [-0.247_122_32, -0.124_983_31, -0.092_020_094];
        assert_eq!(
            want,
            draw("model.0.conv.weight", 0)[..3],
            "old runs could not be repeated"
        );
    }

    #[test]
    fn values_are_even_within_the_bound() {
        let values = draw("a", 3);
        let mean = values.iter().sum::<f32>() / 1000.0;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1000.0;
        assert!(values.iter().all(|v| v.abs() <= 0.25));
        assert!(mean.abs() < 0.015, "{mean}");
        // A uniform distribution over ± b has the variance b²/3.
        assert!((variance * 48.0 - 1.0).abs() < 0.1, "{variance}");
    }

    #[test]
    fn golden_priors_of_detect() {
        for (stride, object) in [(8, -6.684_612), (16, -5.298_317), (32, -3.912_023)] {
            let slot = slot(
                "bias",
                Initial::DetectBias {
                    bound: 0.0,
                    stride,
                    anchors: 3,
                },
                &[3 * 85],
            );
            let bias = values(&slot, 0).expect("not all 0");
            for anchor in bias.chunks_exact(85) {
                assert_eq!([0.0; 4], anchor[..4]);
                assert!((anchor[4] - object).abs() < 1e-5, "{stride}: {}", anchor[4]);
                assert!(anchor[5..].iter().all(|v| (v + 4.880_274).abs() < 1e-5));
            }
        }
    }
}
