//! One picture of a sample before anyone has painted it.

use super::canvas::Canvas;
use super::picture::Picture;
use super::planes::PlanarRow;
use super::{affine, labels};
use crate::dataset::SkippedImage;
use trainer_core::affine::{AffineDraw, Matrix3, compose};
use trainer_core::detection::LabelledBox;

/// A canvas and how a sample shows it.
#[derive(Debug)]
pub(super) struct View {
    canvas: Canvas,
    matrix: Matrix3,
    side: u32,
    /// The objects, in pixels of the sample.
    pub(super) boxes: Vec<LabelledBox>,
    /// Images that could not be read.
    pub(super) skipped: Vec<SkippedImage>,
}

impl View {
    /// The canvas as the transform `draw` shows it in a sample of side `side`.
    pub(super) fn new(mut canvas: Canvas, draw: &AffineDraw, side: u32) -> Self {
        let matrix = compose(draw, (canvas.side, canvas.side), (side, side));
        Self {
            boxes: labels::warp(&canvas.labels, &matrix, draw, side),
            skipped: std::mem::take(&mut canvas.skipped),
            canvas,
            matrix,
            side,
        }
    }

    /// Whether it shows a mosaic: their canvases are larger than the sample.
    pub(super) fn is_mosaic(&self) -> bool {
        self.canvas.side > self.side
    }

    /// Computes the sample's rows and gives each to `finish` with its number.
    pub(super) fn rows(&self, finish: impl FnMut(usize, &mut PlanarRow)) {
        affine::warp(&self.canvas, &self.matrix, self.side, finish);
    }

    /// Paints the picture.
    pub(super) fn render(self) -> Picture {
        let side = self.side;
        let mut bytes = Vec::with_capacity(3 * (side as usize).pow(2));
        self.rows(|_, row| row.append_to(&mut bytes));
        Picture::new(side, bytes, self.boxes)
    }
}
