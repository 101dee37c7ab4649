//! Median blur: each pixel becomes the median of a square around it. Removes specks, keeps edges.

use super::kernel::Kernel;
use image::RgbImage;
use imageproc::filter::median_filter;

/// Blurs all channels. Beyond the edge, the edge's pixels go on.
pub fn apply(pixels: &mut RgbImage, kernel: Kernel) {
    *pixels = median_filter(pixels, kernel.radius(), kernel.radius());
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn specks_vanish_and_edges_stay() {
        let edge = RgbImage::from_fn(16, 16, |x, _| {
            if x < 8 {
                Rgb([200, 10, 0])
            } else {
                Rgb([20, 10, 90])
            }
        });
        for kernel in Kernel::ALL {
            let mut pixels = edge.clone();
            pixels.put_pixel(3, 5, Rgb([0, 255, 255]));
            apply(&mut pixels, kernel);
            assert_eq!(pixels, edge);
        }
    }
}
