//! Two pictures, mixed pixel by pixel (Zhang et al., arXiv:1710.09412, as YOLOv5 uses it).

use super::picture::Picture;
use super::streams::Pool;
use rand_chacha::ChaCha8Rng;
use trainer_core::rng::{beta, chance};

/// Both parameters of the beta distribution: the parts are close to a half.
const CONCENTRATION: f64 = 32.0;

/// With what a sample is mixed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The image that the second picture belongs to.
    pub partner: u32,
    /// The first picture's part, 0 to 1.
    pub part: f32,
}

/// Draws whether a sample is mixed (with `probability`), with which image of `pool`, how far.
pub fn draw(rng: &mut ChaCha8Rng, probability: f64, pool: Pool<'_>) -> Option<Mix> {
    chance(rng, probability).then(|| Mix {
        partner: pool.draw(rng),
        part: beta(rng, CONCENTRATION, CONCENTRATION) as f32,
    })
}

/// Mixes `second` into `picture`. All objects of both count in full.
pub fn apply(picture: &mut Picture, second: Picture, part: f32) {
    let pixels = picture.pixels.iter_mut().zip(second.pixels.iter());
    for (a, b) in pixels {
        let mixed = f32::from(*a) * part + f32::from(*b) * (1.0 - part);
        *a = (mixed + 0.5) as u8;
    }
    picture.boxes.extend(second.boxes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgb, RgbImage};
    use trainer_core::boxes::Xyxy;
    use trainer_core::detection::LabelledBox;
    use trainer_core::rng::{Purpose, stream};

    fn plain(colour: [u8; 3], class: u16) -> Picture {
        Picture {
            pixels: RgbImage::from_pixel(8, 8, Rgb(colour)),
            boxes: vec![LabelledBox {
                xyxy: Xyxy::new(1., 2., 5., 6.),
                class,
            }],
        }
    }

    #[test]
    fn colours_are_weighted_and_labels_add_up() {
        let mut picture = plain([200, 0, 255], 3);
        apply(&mut picture, plain([100, 10, 255], 4), 0.25);
        // 200 / 4 + 100 * 3 / 4 = 125; 7.5 rounds up.
        assert!(picture.pixels.pixels().all(|p| p.0 == [125, 8, 255]));
        let classes: Vec<u16> = picture.boxes.iter().map(|b| b.class).collect();
        assert_eq!(classes, [3, 4]);
        assert_eq!(picture.boxes[0].xyxy, picture.boxes[1].xyxy);
    }

    #[test]
    fn the_ends_are_the_two_pictures() {
        for (part, expected) in [(1.0, [9, 200, 30]), (0.0, [70, 5, 250])] {
            let mut picture = plain([9, 200, 30], 0);
            apply(&mut picture, plain([70, 5, 250], 0), part);
            assert!(picture.pixels.pixels().all(|p| p.0 == expected));
        }
    }

    #[test]
    fn parts_are_near_a_half_and_partners_are_all_images() {
        let draws: Vec<Mix> = (0..2000)
            .filter_map(|epoch| draw(&mut stream(1, Purpose::Test, epoch, 0), 0.5, Pool::All(5)))
            .collect();
        assert!((900..1100).contains(&draws.len()), "{}", draws.len());
        let parts = draws.iter().map(|mix| f64::from(mix.part));
        let mean = parts.clone().sum::<f64>() / draws.len() as f64;
        let variance = parts.map(|p| (p - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        // Beta(32, 32) has variance 1 / 260.
        assert!((mean - 0.5).abs() < 0.01, "{mean}");
        assert!((variance * 260.0 - 1.0).abs() < 0.2, "{variance}");
        for partner in 0..5 {
            let count = draws.iter().filter(|mix| mix.partner == partner).count();
            assert!(count > 100, "partner {partner}: {count}");
        }
    }
}
