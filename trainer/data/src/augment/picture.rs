//! A whole sample in the making, for what cannot be done row by row.

use super::planes::PlanarRow;
use image::RgbImage;
use trainer_core::detection::LabelledBox;

/// Pixels with their objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The pixels.
    pub pixels: RgbImage,
    /// The objects, in pixels.
    pub boxes: Vec<LabelledBox>,
}

impl Picture {
    /// A picture of this width and height, with three bytes for each pixel.
    pub fn new(size: (u32, u32), bytes: Vec<u8>, boxes: Vec<LabelledBox>) -> Self {
        debug_assert_eq!(bytes.len(), crate::source::sample_bytes(size));
        Self {
            pixels: RgbImage::from_raw(size.0, size.1, bytes).unwrap_or_default(),
            boxes,
        }
    }

    /// Gives each row to `finish` with its number.
    pub fn rows(&self, mut finish: impl FnMut(usize, &mut PlanarRow)) {
        let mut row = PlanarRow::new(self.pixels.width());
        let stride = 3 * self.pixels.width() as usize;
        for (y, bytes) in self.pixels.as_raw().chunks_exact(stride).enumerate() {
            row.read(bytes);
            finish(y, &mut row);
        }
    }
}
