//! Blur: each pixel becomes the mean of a square around it.

use super::kernel::Kernel;
use image::{GrayImage, Luma, RgbImage};
use imageproc::filter::box_filter;

/// Blurs all channels. Beyond the edge, the edge's pixels go on.
pub fn apply(pixels: &mut RgbImage, kernel: Kernel) {
    let (width, height) = pixels.dimensions();
    for channel in 0..3 {
        let plane = GrayImage::from_fn(width, height, |x, y| {
            Luma([pixels.get_pixel(x, y).0[channel]])
        });
        let blurred = box_filter(&plane, kernel.radius(), kernel.radius());
        for (pixel, value) in pixels.pixels_mut().zip(blurred.pixels()) {
            pixel.0[channel] = value.0[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn a_dot_becomes_a_square_of_the_kernels_size() {
        for (kernel, radius) in [(Kernel::ALL[0], 1_u32), (Kernel::ALL[2], 3)] {
            let mut pixels = RgbImage::new(16, 16);
            pixels.put_pixel(8, 7, Rgb([250, 147, 0]));
            apply(&mut pixels, kernel);
            // The mean of a row first, then of a column, each cut off.
            let side = 2 * radius + 1;
            let mean = [250, 147, 0].map(|v| (v / side / side) as u8);
            for (x, y, pixel) in pixels.enumerate_pixels() {
                let inside = x.abs_diff(8) <= radius && y.abs_diff(7) <= radius;
                assert_eq!(pixel.0, if inside { mean } else { [0; 3] }, "{x} {y}");
            }
        }
    }

    #[test]
    fn what_is_even_stays() {
        let mut pixels = RgbImage::from_pixel(16, 16, Rgb([7, 114, 255]));
        apply(&mut pixels, Kernel::ALL[1]);
        assert!(pixels.pixels().all(|p| p.0 == [7, 114, 255]));
    }
}
