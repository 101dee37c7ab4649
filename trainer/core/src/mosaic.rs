//! Where the four images of a mosaic go: geometry only.
//!
//! YOLOv5 v7.0 behaviour. The canvas has twice the image size s; a random centre lies in its middle
//! half; each image touches the centre with one corner and is cut off at the canvas' edge. The
//! rest of the canvas is filled with 114.

use crate::boxes::{Xywh, Xyxy};
use crate::rng::uniform;
use rand_chacha::ChaCha8Rng;

/// A rectangle of whole pixels: `x1 <= x < x2`, `y1 <= y < y2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelRect {
    /// Left edge.
    pub x1: u32,
    /// Top edge.
    pub y1: u32,
    /// Right edge, exclusive.
    pub x2: u32,
    /// Bottom edge, exclusive.
    pub y2: u32,
}

impl PixelRect {
    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.x2 - self.x1, self.y2 - self.y1)
    }
}

/// One image of a mosaic. `canvas` and `source` have the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Where on the canvas.
    pub canvas: PixelRect,
    /// Which part of the resized image.
    pub source: PixelRect,
    /// Where the resized image's top left corner would be on the canvas; may be negative.
    pub offset: (i64, i64),
    /// Width and height of the resized image.
    pub size: (u32, u32),
}

impl Tile {
    /// A box given as fractions of the image, in canvas pixels, not clipped.
    pub fn to_canvas(&self, label: Xywh) -> Xyxy {
        label
            .to_xyxy()
            .scale(self.size.0 as f32, self.size.1 as f32)
            .translate(self.offset.0 as f32, self.offset.1 as f32)
    }

    /// A point given as fractions of the image, in canvas pixels, not clipped.
    pub fn point_to_canvas(&self, point: [f32; 2]) -> [f32; 2] {
        [
            point[0] * self.size.0 as f32 + self.offset.0 as f32,
            point[1] * self.size.1 as f32 + self.offset.1 as f32,
        ]
    }
}

/// Draws the centre for image size `s`: each coordinate uniform in s/2..3s/2, cut to whole pixels.
/// Vertical first, then horizontal; two draws.
pub fn draw_centre(rng: &mut ChaCha8Rng, s: u32) -> (u32, u32) {
    let mut coordinate = || uniform(rng, f64::from(s) / 2.0, 1.5 * f64::from(s)) as u32;
    let y = coordinate();
    let x = coordinate();
    (x, y)
}

/// Places four images of the given (width, height) around `centre` on a canvas of `2s` by `2s`:
/// top left, top right, bottom left, bottom right.
pub fn tiles(s: u32, centre: (u32, u32), sizes: [(u32, u32); 4]) -> [Tile; 4] {
    std::array::from_fn(|corner| {
        let (w, h) = sizes[corner];
        let x = span(s * 2, centre.0, w, corner % 2 == 0);
        let y = span(s * 2, centre.1, h, corner < 2);
        Tile {
            canvas: PixelRect {
                x1: x.canvas.0,
                x2: x.canvas.1,
                y1: y.canvas.0,
                y2: y.canvas.1,
            },
            source: PixelRect {
                x1: x.source.0,
                x2: x.source.1,
                y1: y.source.0,
                y2: y.source.1,
            },
            offset: (x.offset(), y.offset()),
            size: (w, h),
        }
    })
}

/// One axis of a tile.
struct Span {
    canvas: (u32, u32),
    source: (u32, u32),
}

impl Span {
    fn offset(&self) -> i64 {
        i64::from(self.canvas.0) - i64::from(self.source.0)
    }
}

/// An image of `length` pixels that ends at `centre` or begins there.
fn span(canvas: u32, centre: u32, length: u32, ends: bool) -> Span {
    let centre = centre.min(canvas);
    if ends {
        let shown = length.min(centre);
        Span {
            canvas: (centre - shown, centre),
            source: (length - shown, length),
        }
    } else {
        let shown = length.min(canvas - centre);
        Span {
            canvas: (centre, centre + shown),
            source: (0, shown),
        }
    }
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
    fn four_images_around_an_off_centre_point() {
        let t = tiles(
            100,
            (60, 130),
            [(100, 80), (100, 50), (40, 100), (100, 100)],
        );
        assert_eq!(t[0].canvas, rect(0, 50, 60, 130));
        assert_eq!(
            (t[0].source, t[0].offset),
            (rect(40, 0, 100, 80), (-40, 50))
        );
        assert_eq!(t[1].canvas, rect(60, 80, 160, 130));
        assert_eq!((t[1].source, t[1].offset), (rect(0, 0, 100, 50), (60, 80)));
        assert_eq!(t[2].canvas, rect(20, 130, 60, 200));
        assert_eq!((t[2].source, t[2].offset), (rect(0, 0, 40, 70), (20, 130)));
        assert_eq!(t[3].canvas, rect(60, 130, 160, 200));
        assert_eq!((t[3].source, t[3].offset), (rect(0, 0, 100, 70), (60, 130)));
    }

    #[test]
    fn labels_move_with_their_pixels() {
        let t = tiles(100, (60, 130), [(100, 80); 4])[0];
        // The image's centre is its pixel (50, 40), which the canvas shows at (10, 90).
        let b = t.to_canvas(Xywh::new(0.5, 0.5, 0.25, 0.5));
        assert_eq!(b, Xyxy::new(-2.5, 70., 22.5, 110.));
        assert_eq!(t.point_to_canvas([0.5, 0.5]), [10., 90.]);
    }

    #[test]
    fn centres_fill_the_middle_half() {
        let mut rng = stream(1, Purpose::Test, 0, 0);
        let centres: Vec<_> = (0..2000).map(|_| draw_centre(&mut rng, 64)).collect();
        assert_eq!(centres.iter().map(|c| c.0).min(), Some(32));
        assert_eq!(centres.iter().map(|c| c.1).max(), Some(95));
    }

    proptest! {
        #[test]
        fn tiles_meet_at_the_centre_and_never_overlap(
            s in 2_u32..400, at in (0f64..1., 0f64..1.),
            sizes in prop::array::uniform4((1_u32..500, 1_u32..500)),
        ) {
            let centre = ((f64::from(s) * (0.5 + at.0)) as u32, (f64::from(s) * (0.5 + at.1)) as u32);
            for (corner, tile) in tiles(s, centre, sizes).iter().enumerate() {
                prop_assert_eq!(tile.canvas.size(), tile.source.size());
                prop_assert!(tile.canvas.x2 <= 2 * s && tile.canvas.y2 <= 2 * s);
                prop_assert!(tile.source.x2 <= sizes[corner].0 && tile.source.y2 <= sizes[corner].1);
                let touches = (
                    if corner % 2 == 0 { tile.canvas.x2 } else { tile.canvas.x1 },
                    if corner < 2 { tile.canvas.y2 } else { tile.canvas.y1 },
                );
                prop_assert_eq!(touches, centre);
                prop_assert_eq!(i64::from(tile.canvas.x1) - i64::from(tile.source.x1), tile.offset.0);
                prop_assert_eq!(i64::from(tile.canvas.y1) - i64::from(tile.source.y1), tile.offset.1);
            }
        }
    }
}
