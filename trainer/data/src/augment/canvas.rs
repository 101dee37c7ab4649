//! Images laid side by side, without painting them anywhere.

use crate::dataset::{ImageRecord, SkippedImage};
use crate::store::{FILL, ImageStore, LoadedImage};
use image::{Rgb, RgbImage};
use std::sync::Arc;
use trainer_core::boxes::{Xywh, Xyxy};
use trainer_core::letterbox::{Border, Enlarge, Letterbox, LetterboxOptions};
use trainer_core::mosaic::{PixelRect, Tile};

/// Pixels that images cover in part; the rest is grey ([`FILL`]).
#[derive(Clone, Debug, Default)]
pub struct Canvas {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// The images; they do not overlap.
    pub tiles: Vec<CanvasTile>,
    /// The objects on them.
    pub labels: Vec<CanvasLabel>,
    /// Images that could not be read.
    pub skipped: Vec<SkippedImage>,
}

/// An image on a canvas, cut off at the canvas' edge.
#[derive(Clone, Debug)]
pub struct CanvasTile {
    /// The image.
    pub pixels: Arc<RgbImage>,
    /// The part of the canvas that it covers.
    pub covers: PixelRect,
    /// Where the image's own top left corner would be on the canvas; may be negative.
    pub offset: (i64, i64),
}

/// An object on a canvas.
#[derive(Clone, Debug, PartialEq)]
pub struct CanvasLabel {
    /// Class index.
    pub class: u16,
    /// Its box in pixels of the canvas, clipped to it.
    pub xyxy: Xyxy,
    /// Its outline in pixels of the canvas, clipped to it; empty if only the box is known.
    pub outline: Vec<[f32; 2]>,
}

impl Canvas {
    /// Adds an image with its labels. `box_to_canvas` and `point_to_canvas` map fractions of the
    /// image to pixels of the canvas.
    pub fn add(
        &mut self,
        loaded: LoadedImage<'_>,
        covers: PixelRect,
        offset: (i64, i64),
        box_to_canvas: impl Fn(Xywh) -> Xyxy,
        point_to_canvas: impl Fn([f32; 2]) -> [f32; 2],
    ) {
        self.tiles.push(CanvasTile {
            pixels: loaded.pixels,
            covers,
            offset,
        });
        match loaded.record {
            Ok(record) => self.add_labels(record, box_to_canvas, point_to_canvas),
            Err(skipped) => self.skipped.push(skipped),
        }
    }

    /// Adds the image of this number as `tile` places it. Pixels outside of `seen` may be wrong or not
    /// be decoded at all; labels are always added.
    pub fn lay(&mut self, store: &ImageStore, index: u32, tile: &Tile, seen: PixelRect) {
        let to_canvas = |label| tile.to_canvas(label);
        let point_to_canvas = |point| tile.point_to_canvas(point);
        let PixelRect { x1, y1, x2, y2 } = tile.canvas;
        let bottom = y2.min(seen.y2);
        if x1.max(seen.x1) < x2.min(seen.x2) && y1.max(seen.y1) < bottom {
            let rows = (i64::from(bottom) - tile.offset.1) as u32;
            let loaded = store.load_rows(index, rows);
            self.add(loaded, tile.canvas, tile.offset, to_canvas, point_to_canvas);
        } else if let Some(record) = store.dataset().image(index) {
            self.add_labels(record, to_canvas, point_to_canvas);
        }
    }

    fn add_labels(
        &mut self,
        record: &ImageRecord,
        box_to_canvas: impl Fn(Xywh) -> Xyxy,
        point_to_canvas: impl Fn([f32; 2]) -> [f32; 2],
    ) {
        let (width, height) = (self.size.0 as f32, self.size.1 as f32);
        let clip = |[x, y]: [f32; 2]| [x.clamp(0.0, width), y.clamp(0.0, height)];
        for (k, label) in record.labels.iter().enumerate() {
            let xyxy = box_to_canvas(label.xywh).clip(width, height);
            // Turned, what is cut down to a line would enclose an area again.
            if xyxy.area() <= 0.0 {
                continue;
            }
            let outline = record.segments.get(k).map_or(Vec::new(), |points| {
                points.iter().map(|p| clip(point_to_canvas(*p))).collect()
            });
            self.labels.push(CanvasLabel {
                class: label.class,
                xyxy,
                outline,
            });
        }
    }

    /// The canvas as a picture.
    pub fn paint(&self) -> RgbImage {
        let mut picture = RgbImage::from_pixel(self.size.0, self.size.1, Rgb([FILL; 3]));
        let stride = 3 * self.size.0 as usize;
        for tile in &self.tiles {
            let PixelRect { x1, y1, x2, y2 } = tile.covers;
            let columns = 3 * x1 as usize..3 * x2 as usize;
            for (y, row) in (y1..y2).zip(picture.chunks_exact_mut(stride).skip(y1 as usize)) {
                row[columns.clone()].copy_from_slice(tile.row(y, x1, x2));
            }
        }
        picture
    }

    /// The canvas with a picture of its size over all images.
    #[must_use]
    pub fn covered_by(mut self, picture: RgbImage) -> Self {
        self.tiles = vec![CanvasTile {
            covers: whole(picture.dimensions()),
            pixels: Arc::new(picture),
            offset: (0, 0),
        }];
        self
    }

    /// The colour at (`x`, `y`), which may lie outside.
    pub fn pixel(&self, x: i64, y: i64) -> [u8; 3] {
        self.tiles
            .iter()
            .find(|tile| tile.has(x, y))
            .map_or([FILL; 3], |tile| tile.pixel(x, y))
    }
}

impl CanvasLabel {
    /// The object as a mirror shows it that swaps left and right of a canvas of this width.
    #[must_use]
    pub fn mirrored(&self, width: u32) -> Self {
        let width = width as f32;
        let Xyxy { x1, y1, x2, y2 } = self.xyxy;
        Self {
            class: self.class,
            xyxy: Xyxy::new(width - x2, y1, width - x1, y2),
            outline: self.outline.iter().map(|[x, y]| [width - x, *y]).collect(),
        }
    }
}

impl CanvasTile {
    /// Whether the image covers this pixel of the canvas.
    pub fn has(&self, x: i64, y: i64) -> bool {
        let PixelRect { x1, y1, x2, y2 } = self.covers;
        (i64::from(x1)..i64::from(x2)).contains(&x) && (i64::from(y1)..i64::from(y2)).contains(&y)
    }

    fn pixel(&self, x: i64, y: i64) -> [u8; 3] {
        let (dx, dy) = self.offset;
        self.pixels.get_pixel((x - dx) as u32, (y - dy) as u32).0
    }

    /// The bytes of the image's pixels in row `y` of the canvas from `x1` to `x2`, all of which it
    /// covers.
    pub fn row(&self, y: u32, x1: u32, x2: u32) -> &[u8] {
        let (dx, dy) = self.offset;
        let start = (i64::from(y) - dy) * i64::from(self.pixels.width()) + i64::from(x1) - dx;
        let start = start as usize * 3;
        &self.pixels.as_raw()[start..start + (x2 - x1) as usize * 3]
    }
}

/// All of a canvas of this width and height.
pub fn whole((width, height): (u32, u32)) -> PixelRect {
    PixelRect {
        x1: 0,
        y1: 0,
        x2: width,
        y2: height,
    }
}

/// One image in the middle of a canvas of the sample's `size`, into which it fits; what rounding made a
/// pixel too wide or high is cut off.
pub fn lay_one(store: &ImageStore, index: u32, size: (u32, u32)) -> Canvas {
    let loaded = store.load(index);
    let (width, height) = loaded.pixels.dimensions();
    let letterbox = Letterbox::new(
        width,
        height,
        LetterboxOptions {
            target: size,
            enlarge: Enlarge::Yes,
            border: Border::Full,
        },
    );
    let (left, top) = letterbox.offset;
    let covers = PixelRect {
        x1: left,
        y1: top,
        x2: (left + width).min(size.0),
        y2: (top + height).min(size.1),
    };
    let (w, h) = (width as f32, height as f32);
    let (pad_x, pad_y) = (letterbox.pad.0 as f32, letterbox.pad.1 as f32);
    let mut canvas = Canvas {
        size,
        ..Canvas::default()
    };
    canvas.add(
        loaded,
        covers,
        (i64::from(left), i64::from(top)),
        |label| label.to_xyxy().scale(w, h).translate(pad_x, pad_y),
        |[x, y]| [x * w + pad_x, y * h + pad_y],
    );
    canvas
}

#[cfg(test)]
mod tests;
