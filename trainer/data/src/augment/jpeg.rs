//! The loss of JPEG compression.

use image::codecs::jpeg::{JpegDecoder, JpegEncoder};
use image::{DynamicImage, ExtendedColorType, ImageResult, RgbImage};
use std::io::Cursor;

/// Compresses the pixels at `quality` (1 to 100) and takes what comes back.
pub fn apply(pixels: &mut RgbImage, quality: u8) {
    // Encoders fail on writing, which memory does not, and on sides above 65535 pixels, which no
    // training image has.
    if let Ok(changed) = recode(pixels, quality) {
        *pixels = changed;
    }
}

fn recode(pixels: &RgbImage, quality: u8) -> ImageResult<RgbImage> {
    let (width, height) = pixels.dimensions();
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).encode(
        pixels.as_raw(),
        width,
        height,
        ExtendedColorType::Rgb8,
    )?;
    let decoder = JpegDecoder::new(Cursor::new(bytes))?;
    Ok(DynamicImage::from_decoder(decoder)?.into_rgb8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::noise;
    use image::Rgb;

    fn mean_error(quality: u8) -> f64 {
        let image = noise(1, (64, 64));
        let mut changed = image.clone();
        apply(&mut changed, quality);
        assert_eq!(changed.dimensions(), (64, 64));
        let errors = changed.iter().zip(image.iter());
        let sum: u32 = errors.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
        f64::from(sum) / f64::from(64 * 64 * 3)
    }

    #[test]
    fn lower_quality_loses_more() {
        let (best, worse) = (mean_error(100), mean_error(75));
        // Noise is the hardest picture there is.
        assert!(best < 2.0 && worse > 5.0, "{best} {worse}");
    }

    #[test]
    fn what_is_even_stays() {
        let mut pixels = RgbImage::from_pixel(32, 32, Rgb([114; 3]));
        apply(&mut pixels, 75);
        assert!(pixels.iter().all(|v| v.abs_diff(114) <= 1));
    }
}
