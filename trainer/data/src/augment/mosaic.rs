//! Four images around a random point (YOLOv5's mosaic).

use super::canvas::Canvas;
use crate::store::ImageStore;
use rand_chacha::ChaCha8Rng;
use trainer_core::mosaic::{PixelRect, draw_centre, tiles};
use trainer_core::rng::{below, shuffle};

/// Lays image `index` and three random ones, which may repeat, on a canvas of twice the sample's
/// side, in random order. Of the images only what lies in `seen` is sure to be there.
///
/// Draws the centre, the three partners, the order.
pub fn lay_four(rng: &mut ChaCha8Rng, store: &ImageStore, index: u32, seen: PixelRect) -> Canvas {
    let side = store.image_size();
    let centre = draw_centre(rng, side);
    let mut indices = [index; 4];
    for partner in &mut indices[1..] {
        *partner = below(rng, store.dataset().len() as u64) as u32;
    }
    shuffle(rng, &mut indices);
    let sizes = indices.map(|index| store.size(index));
    let mut canvas = Canvas {
        side: 2 * side,
        ..Canvas::default()
    };
    for (index, tile) in indices.into_iter().zip(tiles(side, centre, sizes)) {
        canvas.lay(store, index, &tile, seen);
    }
    canvas
}
