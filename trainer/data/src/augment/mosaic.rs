//! Four images around a random point (YOLOv5's mosaic).

use super::canvas::Canvas;
use super::streams::Pool;
use crate::store::ImageStore;
use rand_chacha::ChaCha8Rng;
use trainer_core::mosaic::{PixelRect, draw_centre, tiles};
use trainer_core::rng::shuffle;

/// Lays image `index` and three random ones of `pool`, which may repeat, on a canvas of twice the sample's
/// side, in random order. Of the images only what lies in `seen` is sure to be there.
///
/// Draws the centre, the three partners, the order.
pub fn lay_four(
    rng: &mut ChaCha8Rng,
    store: &ImageStore,
    (index, pool): (u32, Pool<'_>),
    seen: PixelRect,
) -> Canvas {
    let side = store.image_size();
    let centre = draw_centre(rng, side);
    let mut indices = [index; 4];
    for partner in &mut indices[1..] {
        *partner = pool.draw(rng);
    }
    shuffle(rng, &mut indices);
    let sizes = indices.map(|index| store.size(index));
    let mut canvas = Canvas {
        size: (2 * side, 2 * side),
        ..Canvas::default()
    };
    for (index, tile) in indices.into_iter().zip(tiles(side, centre, sizes)) {
        canvas.lay(store, index, &tile, seen);
    }
    canvas
}
