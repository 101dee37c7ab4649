//! Nine images around one in the middle (YOLOv5's large mosaic).

use super::canvas::Canvas;
use super::streams::Pool;
use crate::store::ImageStore;
use rand_chacha::ChaCha8Rng;
use trainer_core::mosaic::PixelRect;
use trainer_core::mosaic9::{draw_view, nine_tiles};
use trainer_core::rng::shuffle;

/// Lays image `index` and eight random ones of `pool`, which may repeat, on a canvas of twice the sample's side,
/// in random order. The canvas shows a random part of them, of some images perhaps nothing.
/// Of the images only what lies in `seen` is sure to be there.
///
/// Draws the place of the canvas, the eight partners, the order.
pub fn lay_nine(
    rng: &mut ChaCha8Rng,
    store: &ImageStore,
    (index, pool): (u32, Pool<'_>),
    seen: PixelRect,
) -> Canvas {
    let side = store.image_size();
    let view = draw_view(rng, side);
    let mut indices = [index; 9];
    for partner in &mut indices[1..] {
        *partner = pool.draw(rng);
    }
    shuffle(rng, &mut indices);
    let sizes = indices.map(|index| store.size(index));
    let mut canvas = Canvas {
        size: (2 * side, 2 * side),
        ..Canvas::default()
    };
    for (index, tile) in indices.into_iter().zip(nine_tiles(side, view, sizes)) {
        if let Some(tile) = tile {
            canvas.lay(store, index, &tile, seen);
        }
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::canvas::whole;
    use crate::dataset::Split;
    use crate::store::Sizing;
    use crate::testing::TestSet;
    use std::collections::HashSet;
    use std::sync::Arc;
    use trainer_core::rng::{Purpose, stream};

    #[test]
    fn the_own_image_is_one_of_nine_in_every_place() {
        let set = TestSet::with_images(40);
        let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 1 << 24);
        let own = store.load(3).pixels;
        let (mut most, mut own_seen) = (0, 0);
        let mut places = HashSet::new();
        for epoch in 0..200 {
            let mut rng = stream(5, Purpose::Test, epoch, 0);
            let canvas = lay_nine(&mut rng, &store, (3, Pool::All(40)), whole((128, 128)));
            assert_eq!(canvas.size, (128, 128));
            assert!(canvas.tiles.len() <= 9);
            most = most.max(canvas.tiles.len());
            if let Some(k) = canvas
                .tiles
                .iter()
                .position(|tile| Arc::ptr_eq(&tile.pixels, &own))
            {
                own_seen += 1;
                places.insert(k);
            }
            // Labels of what is not seen are not there either.
            assert!(canvas.labels.len() <= canvas.tiles.len());
            assert!(canvas.labels.iter().all(|label| label.xyxy.area() > 0.0));
        }
        assert!(most >= 7, "only {most} images at once");
        assert!(own_seen > 80, "the own image was seen {own_seen} times");
        assert!(places.len() >= 7, "always in the same places: {places:?}");
    }

    #[test]
    fn pixels_and_boxes_lie_where_the_geometry_says() {
        let set = TestSet::with_images(9);
        let store = ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 1 << 24);
        let canvas = lay_nine(
            &mut stream(1, Purpose::Test, 0, 0),
            &store,
            (0, Pool::All(9)),
            whole((128, 128)),
        );
        for tile in &canvas.tiles {
            let (x, y) = (i64::from(tile.covers.x1), i64::from(tile.covers.y1));
            let from = tile
                .pixels
                .get_pixel((x - tile.offset.0) as u32, (y - tile.offset.1) as u32);
            assert_eq!(canvas.pixel(x, y), from.0);
        }
        // Each image of the set has one box around (0.5, 0.4) of it.
        for label in &canvas.labels {
            let inside = canvas.tiles.iter().any(|tile| {
                let (w, h) = tile.pixels.dimensions();
                let x = tile.offset.0 as f32 + 0.5 * w as f32;
                let left = (x - 0.25 * w as f32).max(0.0);
                let right = (x + 0.25 * w as f32).min(128.0);
                let top = tile.offset.1 as f32;
                (label.xyxy.x1 - left).abs() < 1e-3
                    && (label.xyxy.x2 - right).abs() < 1e-3
                    && label.xyxy.y2 <= top + h as f32
            });
            assert!(inside, "{label:?} belongs to no image");
        }
    }
}
