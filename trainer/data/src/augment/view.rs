//! One picture of a sample before anyone has painted it.

use super::canvas::Canvas;
use super::picture::Picture;
use super::planes::PlanarRow;
use super::{affine, labels};
use crate::dataset::SkippedImage;
use crate::source::sample_bytes;
use trainer_core::affine::{AffineDraw, Matrix3, compose};
use trainer_core::detection::LabelledBox;

/// A canvas and how a sample shows it.
#[derive(Debug)]
pub(super) struct View {
    canvas: Canvas,
    matrix: Matrix3,
    size: (u32, u32),
    /// The objects, in pixels of the sample.
    pub(super) boxes: Vec<LabelledBox>,
    /// Images that could not be read.
    pub(super) skipped: Vec<SkippedImage>,
}

impl View {
    /// The canvas as the transform `draw` shows it in a sample of `size` (width and height).
    pub(super) fn new(mut canvas: Canvas, draw: &AffineDraw, size: (u32, u32)) -> Self {
        let matrix = compose(draw, canvas.size, size);
        Self {
            boxes: labels::warp(&canvas.labels, &matrix, draw, size),
            skipped: std::mem::take(&mut canvas.skipped),
            canvas,
            matrix,
            size,
        }
    }

    /// Whether it shows a mosaic: their canvases are larger than the sample.
    pub(super) fn is_mosaic(&self) -> bool {
        self.canvas.size.0 > self.size.0
    }

    /// Computes the sample's rows and gives each to `finish` with its number.
    pub(super) fn rows(&self, finish: impl FnMut(usize, &mut PlanarRow)) {
        affine::warp(&self.canvas, &self.matrix, self.size, finish);
    }

    /// Paints the picture.
    pub(super) fn render(self) -> Picture {
        let size = self.size;
        let mut bytes = Vec::with_capacity(sample_bytes(size));
        self.rows(|_, row| row.append_to(&mut bytes));
        Picture::new(size, bytes, self.boxes)
    }
}
