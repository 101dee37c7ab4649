use super::text;
use image::{Rgb, RgbImage};
use trainer_core::boxes::Xyxy;

/// Draws boxes on an image; what lies outside is cut off.
pub(super) struct Painter<'a> {
    image: &'a mut RgbImage,
}

/// Width of a detection's frame in pixels.
const FRAME: i64 = 3;
/// Length of a dash and of the gap after it, in pixels.
const DASH: i64 = 6;
const WHITE: Rgb<u8> = Rgb([255, 255, 255]);
const BLACK: Rgb<u8> = Rgb([0, 0, 0]);

/// Whole pixels: left, top, right, bottom, the last two exclusive.
#[derive(Clone, Copy)]
struct Area {
    left: i64,
    top: i64,
    right: i64,
    bottom: i64,
}

impl Area {
    /// A model may put a box anywhere, also at infinity; beyond these bounds nothing is seen of it.
    fn new(area: Xyxy, image: &RgbImage) -> Self {
        const BEYOND: f32 = 100.0;
        let pixel = |v: f32, side: u32| v.round().clamp(-BEYOND, side as f32 + BEYOND) as i64;
        let (width, height) = image.dimensions();
        Self {
            left: pixel(area.x1, width),
            top: pixel(area.y1, height),
            right: pixel(area.x2, width),
            bottom: pixel(area.y2, height),
        }
    }
}

impl<'a> Painter<'a> {
    pub(super) fn new(image: &'a mut RgbImage) -> Self {
        Self { image }
    }

    /// A solid frame just outside of the box, so that it hides nothing of the object.
    pub(super) fn frame(&mut self, area: Xyxy, colour: Rgb<u8>) {
        let Area {
            left,
            top,
            right,
            bottom,
        } = Area::new(area, self.image);
        let outer = (left - FRAME, right + FRAME);
        self.fill(outer, (top - FRAME, top), colour);
        self.fill(outer, (bottom, bottom + FRAME), colour);
        self.fill((left - FRAME, left), (top, bottom), colour);
        self.fill((right, right + FRAME), (top, bottom), colour);
    }

    /// A thin outline in white and black dashes, visible on any background.
    pub(super) fn dashed(&mut self, area: Xyxy) {
        let Area {
            left,
            top,
            right,
            bottom,
        } = Area::new(area, self.image);
        let dash = |at: i64| {
            if at.rem_euclid(2 * DASH) < DASH {
                WHITE
            } else {
                BLACK
            }
        };
        for x in left..right {
            self.set(x, top, dash(x - left));
            self.set(x, bottom - 1, dash(x - left));
        }
        for y in top..bottom {
            self.set(left, y, dash(y - top));
            self.set(right - 1, y, dash(y - top));
        }
    }

    /// A filled tag with text, above the box if there is room, else below it, else inside.
    pub(super) fn tag(&mut self, area: Xyxy, text: &str, colour: Rgb<u8>) {
        const AROUND: i64 = 2;
        let area = Area::new(area, self.image);
        let (image_width, image_height) = (
            i64::from(self.image.width()),
            i64::from(self.image.height()),
        );
        let text = text::fit(text, self.image.width().saturating_sub(2 * AROUND as u32));
        let width = i64::from(text::width(&text)) + 2 * AROUND;
        let height = i64::from(text::HEIGHT) + 2 * AROUND;
        let left = (area.left - FRAME).min(image_width - width).max(0);
        let top = if area.top - FRAME >= height {
            area.top - FRAME - height
        } else if area.bottom + FRAME + height <= image_height {
            area.bottom + FRAME
        } else {
            area.top.max(0)
        };
        self.fill((left, left + width), (top, top + height), colour);
        let [r, g, b] = colour.0.map(u32::from);
        let ink = if 299 * r + 587 * g + 114 * b > 140_000 {
            BLACK
        } else {
            WHITE
        };
        let at = ((left + AROUND) as u32, (top + AROUND) as u32);
        text::write(self.image, at, &text, ink);
    }

    fn fill(&mut self, columns: (i64, i64), rows: (i64, i64), colour: Rgb<u8>) {
        let (width, height) = (
            i64::from(self.image.width()),
            i64::from(self.image.height()),
        );
        for y in rows.0.max(0)..rows.1.min(height) {
            for x in columns.0.max(0)..columns.1.min(width) {
                self.set(x, y, colour);
            }
        }
    }

    fn set(&mut self, x: i64, y: i64, colour: Rgb<u8>) {
        if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
            && let Some(pixel) = self.image.get_pixel_mut_checked(x, y)
        {
            *pixel = colour;
        }
    }
}
