//! Image weights: images with classes that are rare or found badly are shown more often.
//!
//! YOLOv5 v7.0 behaviour: the weight of a class is its share of the inverse label counts, times
//! `(1 - AP)^2` of the last evaluation; that of an image is the sum over its labels. An epoch draws as many
//! images as there are, with replacement.

use crate::rng::{Purpose, stream, unit};

/// The weight of each class: `counts` labels of it in the data set (none count as one), average precision `aps`
/// over `IoU` 0.5 to 0.95 in the last evaluation; classes without one count as 0.
pub fn class_weights(counts: &[u64], aps: &[f64]) -> Vec<f64> {
    let inverse: Vec<f64> = counts
        .iter()
        .map(|count| 1.0 / (*count).max(1) as f64)
        .collect();
    let sum: f64 = inverse.iter().sum();
    let ap = |class: usize| aps.get(class).copied().unwrap_or_default();
    let weight = |(class, inverse)| inverse / sum * (1.0 - ap(class)).powi(2);
    inverse.into_iter().enumerate().map(weight).collect()
}

/// The weight of an image with labels of these classes.
pub fn image_weight(classes: impl Iterator<Item = u16>, weights: &[f64]) -> f64 {
    classes
        .filter_map(|class| weights.get(usize::from(class)))
        .sum()
}

/// Draws the images of `epoch`, as many as there are `weights`, with replacement. If no image has a weight,
/// all have the same.
pub fn draw(seed: u64, epoch: u64, weights: &[f64]) -> Vec<u32> {
    let up_to: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let total = up_to.last().copied().unwrap_or_default();
    let mut rng = stream(seed, Purpose::ImageWeights, epoch, 0);
    let mut one = || {
        let drawn = unit(&mut rng);
        if total > 0.0 {
            // Rounding may make the product the total itself.
            let place = up_to.partition_point(|sum| *sum <= drawn * total);
            let last = || up_to.partition_point(|sum| *sum < total);
            if place < up_to.len() { place } else { last() }
        } else {
            (drawn * weights.len() as f64) as usize
        }
    };
    weights.iter().map(|_| one() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the Python package's `labels_to_class_weights` and `labels_to_image_weights` answer.
    #[test]
    fn weights_are_those_of_the_python_package() {
        let labels: [&[u16]; 4] = [&[0, 0, 2], &[1], &[], &[0]];
        let close = |got: Vec<f64>, expected: [f64; 4]| {
            let far = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-7;
            assert!(!got.iter().zip(&expected).any(far), "{got:?}");
        };
        close(class_weights(&[3, 1, 1, 0], &[]), [0.1, 0.3, 0.3, 0.3]);
        let weights = class_weights(&[3, 1, 1, 0], &[0.5, 0.1, 0.0, 0.9]);
        close(weights.clone(), [0.025, 0.243, 0.3, 0.003]);
        let images = labels.map(|classes| image_weight(classes.iter().copied(), &weights));
        close(images.to_vec(), [0.35, 0.243, 0.0, 0.025]);
    }

    #[test]
    fn images_are_drawn_by_their_weights() {
        let mut weights = vec![0.0; 1000];
        (weights[3], weights[500], weights[999]) = (1.0, 2.0, 1.0);
        let drawn = draw(1, 2, &weights);
        assert_eq!(1000, drawn.len());
        let count = |image: u32| drawn.iter().filter(|drawn| **drawn == image).count();
        let counts = [3, 500, 999].map(count);
        assert_eq!(1000, counts.iter().sum::<usize>());
        // Three standard deviations of the binomial distribution are 41 and 47.
        assert!(
            counts[0].abs_diff(250) < 42 && counts[1].abs_diff(500) < 48,
            "{counts:?}"
        );
        assert_eq!(drawn, draw(1, 2, &weights));
        assert_ne!(drawn, draw(1, 3, &weights));
    }

    #[test]
    fn without_any_weight_all_images_are_drawn() {
        let drawn = draw(0, 0, &[0.0; 64]);
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert!(distinct.len() > 30 && drawn.iter().all(|image| *image < 64));
        assert!(draw(0, 0, &[]).is_empty());
    }
}
