//! Where the nine images of a large mosaic go: geometry only.
//!
//! One image lies in the middle. The other eight go around it like the sails of a windmill: each
//! begins where the one before it ends, so that none overlaps another, whatever their shapes. All have
//! their long side at the image size s, so the whole spans up to three s; the canvas shows two s of it,
//! from a random place. The rest of the canvas is filled with 114.

use crate::mosaic::{PixelRect, Tile};
use crate::rng::uniform;
use rand_chacha::ChaCha8Rng;

/// Draws where the canvas begins for image size `s`: each coordinate uniform in 0..s, cut to whole
/// pixels. Vertical first, then horizontal; two draws.
///
/// The middle of the canvas then lies anywhere in the square that a square image in the middle fills.
pub fn draw_view(rng: &mut ChaCha8Rng, s: u32) -> (u32, u32) {
    let mut coordinate = || uniform(rng, 0.0, f64::from(s)) as u32;
    let y = coordinate();
    let x = coordinate();
    (x, y)
}

/// Places nine images of the given (width, height) on the canvas of `2s` by `2s` that begins at `view`:
/// the middle, then clockwise from above it. None where an image lies outside of the canvas.
pub fn nine_tiles(s: u32, view: (u32, u32), sizes: [(u32, u32); 9]) -> [Option<Tile>; 9] {
    let places = places(sizes);
    // The middle image begins at (s, s), counted from the same corner as the view.
    let origin = (
        i64::from(s) - i64::from(view.0),
        i64::from(s) - i64::from(view.1),
    );
    std::array::from_fn(|k| {
        let (x, y) = places[k];
        let (w, h) = sizes[k];
        let x = seen(2 * s, origin.0 + x, w)?;
        let y = seen(2 * s, origin.1 + y, h)?;
        Some(Tile {
            canvas: PixelRect {
                x1: x.canvas.0,
                y1: y.canvas.0,
                x2: x.canvas.1,
                y2: y.canvas.1,
            },
            source: PixelRect {
                x1: x.source.0,
                y1: y.source.0,
                x2: x.source.1,
                y2: y.source.1,
            },
            offset: (x.offset, y.offset),
            size: (w, h),
        })
    })
}

/// The top left corners of the nine, relative to that of the middle one.
fn places(sizes: [(u32, u32); 9]) -> [(i64, i64); 9] {
    let w = sizes.map(|size| i64::from(size.0));
    let h = sizes.map(|size| i64::from(size.1));
    [
        (0, 0),
        // Above, and on to the right along the same line.
        (0, -h[1]),
        (w[1], -h[2]),
        // To the right, and on downwards.
        (w[0], 0),
        (w[0], h[3]),
        // Below, and on to the left.
        (w[0] - w[5], h[0]),
        (w[0] - w[5] - w[6], h[0]),
        // To the left, and on upwards.
        (-w[7], h[0] - h[7]),
        (-w[8], h[0] - h[7] - h[8]),
    ]
}

/// One axis of a tile.
struct Seen {
    canvas: (u32, u32),
    source: (u32, u32),
    offset: i64,
}

/// What a canvas of `canvas` pixels shows of an image of `length` pixels that begins at `start`.
fn seen(canvas: u32, start: i64, length: u32) -> Option<Seen> {
    let from = start.max(0);
    let to = (start + i64::from(length)).min(i64::from(canvas));
    (from < to).then(|| Seen {
        canvas: (from as u32, to as u32),
        source: ((from - start) as u32, (to - start) as u32),
        offset: start,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, stream};
    use proptest::prelude::*;

    fn rect(x1: u32, y1: u32, x2: u32, y2: u32) -> PixelRect {
        PixelRect { x1, y1, x2, y2 }
    }

    #[test]
    fn square_images_are_a_grid() {
        let tiles = nine_tiles(100, (50, 50), [(100, 100); 9]).map(|tile| tile.unwrap().canvas);
        let expected = [
            rect(50, 50, 150, 150),
            rect(50, 0, 150, 50),
            rect(150, 0, 200, 50),
            rect(150, 50, 200, 150),
            rect(150, 150, 200, 200),
            rect(50, 150, 150, 200),
            rect(0, 150, 50, 200),
            rect(0, 50, 50, 150),
            rect(0, 0, 50, 50),
        ];
        assert_eq!(tiles, expected);
    }

    #[test]
    fn what_the_view_does_not_show_is_not_there() {
        let tiles = nine_tiles(100, (0, 0), [(100, 100); 9]);
        let shown: Vec<usize> = (0..9).filter(|k| tiles[*k].is_some()).collect();
        // The view ends where the middle image ends.
        assert_eq!(shown, [0, 1, 7, 8]);
        let above = tiles[1].unwrap();
        assert_eq!(
            (above.canvas, above.source, above.offset),
            (rect(100, 0, 200, 100), rect(0, 0, 100, 100), (100, 0))
        );
    }

    #[test]
    fn views_begin_anywhere_in_the_first_third() {
        let mut rng = stream(1, Purpose::Test, 0, 0);
        let views: Vec<_> = (0..2000).map(|_| draw_view(&mut rng, 64)).collect();
        assert_eq!(views.iter().map(|v| v.0).min(), Some(0));
        assert_eq!(views.iter().map(|v| v.1).max(), Some(63));
    }

    proptest! {
        #[test]
        fn tiles_never_overlap_and_show_the_right_part(
            s in 2_u32..300, at in (0f64..1., 0f64..1.),
            sizes in prop::array::uniform9((0f64..1., 0f64..1.)),
        ) {
            let side = |part: f64| 1 + (part * f64::from(s - 1)) as u32;
            let sizes = sizes.map(|(w, h)| (side(w), side(h)));
            let view = ((f64::from(s) * at.0) as u32, (f64::from(s) * at.1) as u32);
            let tiles: Vec<Tile> = nine_tiles(s, view, sizes).into_iter().flatten().collect();
            for (k, tile) in tiles.iter().enumerate() {
                prop_assert_eq!(tile.canvas.size(), tile.source.size());
                prop_assert!(tile.canvas.x2 <= 2 * s && tile.canvas.y2 <= 2 * s);
                prop_assert!(tile.source.x2 <= tile.size.0 && tile.source.y2 <= tile.size.1);
                prop_assert_eq!(i64::from(tile.canvas.x1) - i64::from(tile.source.x1), tile.offset.0);
                prop_assert_eq!(i64::from(tile.canvas.y1) - i64::from(tile.source.y1), tile.offset.1);
                for other in &tiles[k + 1..] {
                    let (a, b) = (tile.canvas, other.canvas);
                    let apart = a.x2 <= b.x1 || b.x2 <= a.x1 || a.y2 <= b.y1 || b.y2 <= a.y1;
                    prop_assert!(apart, "{a:?} {b:?}");
                }
            }
        }
    }
}
