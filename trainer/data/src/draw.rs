//! Pictures of images with boxes, for people.

mod canvas;
mod text;

use crate::loader::Batch;
use canvas::Painter;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, ResizeOptions, Resizer};
use image::{ImageError, Rgb, RgbImage};
use std::path::{Path, PathBuf};
use trainer_core::detection::{Detection, LabelledBox};

/// An image and what is on it.
#[derive(Clone, Debug)]
pub struct DrawnImage {
    /// The image.
    pub image: RgbImage,
    /// What a model found, in pixels of the image; drawn in the colour of the class, with its name
    /// and confidence.
    pub detections: Vec<Detection>,
    /// What is there, in pixels of the image; drawn as dashed white outlines. May be empty.
    pub labels: Vec<LabelledBox>,
    /// Written above the image.
    pub title: String,
}

impl DrawnImage {
    /// Image `k` of a batch with its labels, and `detections` in pixels of the network's input; none
    /// if the batch has no such image.
    pub fn from_batch(batch: &Batch, k: usize, detections: Vec<Detection>) -> Option<Self> {
        let index = *batch.indices.get(k)?;
        let (width, height) = (batch.width as usize, batch.height as usize);
        let planes = batch.images.chunks_exact(3 * width * height).nth(k)?;
        let image = RgbImage::from_fn(batch.width, batch.height, |x, y| {
            let at = y as usize * width + x as usize;
            Rgb(std::array::from_fn(|c| planes[c * width * height + at]))
        });
        let (across, down) = (width as f32, height as f32);
        let labels = batch.targets.iter().filter(|t| t.image as usize == k);
        Some(Self {
            image,
            detections,
            labels: labels
                .map(|t| LabelledBox {
                    xyxy: t.xywh.scale(across, down).to_xyxy(),
                    class: t.class,
                })
                .collect(),
            title: batch
                .evaluated
                .get(k)
                .map_or_else(|| format!("image {index}"), |e| e.name.clone()),
        })
    }
}

impl DrawnImage {
    /// The same with a long side of at most `side` pixels.
    #[must_use]
    pub fn at_most(self, side: u32) -> Self {
        let (width, height) = self.image.dimensions();
        if width.max(height) <= side || width.min(height) == 0 {
            return self;
        }
        let size = trainer_core::letterbox::resize_to_long_side(width, height, side);
        let (x, y) = (size.0 as f32 / width as f32, size.1 as f32 / height as f32);
        let detections = self.detections.into_iter().map(|found| Detection {
            xyxy: found.xyxy.scale(x, y),
            ..found
        });
        let labels = self.labels.into_iter().map(|label| LabelledBox {
            xyxy: label.xyxy.scale(x, y),
            ..label
        });
        Self {
            image: enlarged(&self.image, size),
            detections: detections.collect(),
            labels: labels.collect(),
            title: self.title,
        }
    }
}

/// Why a picture was not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the picture {}", path.display())]
pub struct DrawError {
    path: PathBuf,
    source: ImageError,
}

/// Pixels of the long side of an image on a sheet.
pub const CELL: u32 = 480;
/// Pixels between images and around them.
const GAP: u32 = 12;
/// Pixels above an image for its title.
const TITLE: u32 = text::HEIGHT + 8;
const PAPER: Rgb<u8> = Rgb([250, 250, 250]);
const INK: Rgb<u8> = Rgb([40, 40, 40]);

/// Lays the images out in rows of `columns` (0 counts as 1), all enlarged or reduced to the same
/// long side. `names` are the classes' names.
pub fn contact_sheet(images: &[DrawnImage], names: &[String], columns: u32) -> RgbImage {
    let legend = if images.iter().any(|image| !image.labels.is_empty()) {
        "coloured: found by the model, with confidence   dashed: label"
    } else {
        "coloured: found by the model, with confidence"
    };
    sheet(images, columns, legend, |picture, image| {
        paint(picture, image, names);
    })
}

/// As [`contact_sheet`], but of labels alone: in the colours of their classes, with their names.
pub fn label_sheet(images: &[DrawnImage], names: &[String], columns: u32) -> RgbImage {
    sheet(images, columns, "labels", |picture, image| {
        paint_labels(picture, image, names);
    })
}

fn sheet(
    images: &[DrawnImage],
    columns: u32,
    legend: &str,
    paint: impl Fn(&mut RgbImage, &DrawnImage),
) -> RgbImage {
    let columns = columns.clamp(1, images.len().max(1) as u32);
    let rows = (images.len() as u32).div_ceil(columns);
    let cells: Vec<(u32, u32)> = images.iter().map(|i| fitted(&i.image)).collect();
    // A row is as high as its highest image.
    let heights: Vec<u32> = cells
        .chunks(columns as usize)
        .map(|row| row.iter().map(|size| size.1).max().unwrap_or(0))
        .collect();
    let width = GAP + columns * (CELL + GAP);
    let height = GAP + rows * (TITLE + GAP) + heights.iter().sum::<u32>() + TITLE;
    let mut sheet = RgbImage::from_pixel(width, height, PAPER);
    let mut top = GAP;
    let rows = images
        .chunks(columns as usize)
        .zip(cells.chunks(columns as usize));
    for ((images, sizes), height) in rows.zip(heights) {
        let mut left = GAP;
        for (image, size) in images.iter().zip(sizes) {
            draw_cell(&mut sheet, (left, top), image, *size, &paint);
            left += CELL + GAP;
        }
        top += TITLE + height + GAP;
    }
    text::write(
        &mut sheet,
        (GAP, top),
        &text::fit(legend, width - 2 * GAP),
        INK,
    );
    sheet
}

/// The image at its own size with its boxes, without the title. `names` are the classes' names.
pub fn annotated(drawn: &DrawnImage, names: &[String]) -> RgbImage {
    let mut picture = drawn.image.clone();
    paint(&mut picture, drawn, names);
    picture
}

/// Writes `picture` as PNG.
pub fn write_png(picture: &RgbImage, path: &Path) -> Result<(), DrawError> {
    picture
        .save_with_format(path, image::ImageFormat::Png)
        .map_err(|source| DrawError {
            path: path.to_owned(),
            source,
        })
}

/// The image's size with its long side at [`CELL`].
fn fitted(image: &RgbImage) -> (u32, u32) {
    trainer_core::letterbox::resize_to_long_side(image.width(), image.height(), CELL)
}

fn draw_cell(
    sheet: &mut RgbImage,
    (left, top): (u32, u32),
    drawn: &DrawnImage,
    size: (u32, u32),
    paint: &impl Fn(&mut RgbImage, &DrawnImage),
) {
    text::write(sheet, (left, top), &text::fit(&drawn.title, CELL), INK);
    let mut cell = enlarged(&drawn.image, size);
    paint(&mut cell, drawn);
    image::imageops::replace(sheet, &cell, left.into(), (top + TITLE).into());
}

/// Draws boxes and names on `picture`, which shows the image at any size.
fn paint(picture: &mut RgbImage, drawn: &DrawnImage, names: &[String]) {
    let ratio = ratio(picture, drawn);
    let mut painter = Painter::new(picture);
    for label in &drawn.labels {
        painter.dashed(label.xyxy.scale(ratio.0, ratio.1));
    }
    // The surest on top.
    let mut detections = drawn.detections.clone();
    detections.sort_by(|a, b| a.conf.total_cmp(&b.conf));
    for found in &detections {
        let area = found.xyxy.scale(ratio.0, ratio.1);
        painter.frame(area, colour(found.class));
    }
    for found in &detections {
        let area = found.xyxy.scale(ratio.0, ratio.1);
        let name = name_of(names, found.class);
        painter.tag(
            area,
            &format!("{name} {:.2}", found.conf),
            colour(found.class),
        );
    }
}

/// Draws labels as frames with names on `picture`, which shows the image at any size.
fn paint_labels(picture: &mut RgbImage, drawn: &DrawnImage, names: &[String]) {
    let ratio = ratio(picture, drawn);
    let mut painter = Painter::new(picture);
    for label in &drawn.labels {
        painter.frame(label.xyxy.scale(ratio.0, ratio.1), colour(label.class));
    }
    for label in &drawn.labels {
        let name = name_of(names, label.class);
        let area = label.xyxy.scale(ratio.0, ratio.1);
        painter.tag(area, &name, colour(label.class));
    }
}

fn name_of(names: &[String], class: u16) -> String {
    let name = names.get(usize::from(class));
    name.map_or_else(|| format!("class {class}"), Clone::clone)
}

/// Pixels of `picture` for one of the image.
fn ratio(picture: &RgbImage, drawn: &DrawnImage) -> (f32, f32) {
    (
        picture.width() as f32 / drawn.image.width().max(1) as f32,
        picture.height() as f32 / drawn.image.height().max(1) as f32,
    )
}

fn enlarged(image: &RgbImage, size: (u32, u32)) -> RgbImage {
    let mut result = RgbImage::new(size.0, size.1);
    let from = ImageRef::new(image.width(), image.height(), image, PixelType::U8x3);
    let to = Image::from_slice_u8(size.0, size.1, &mut result, PixelType::U8x3);
    if let (Ok(from), Ok(mut to)) = (from, to) {
        // Images without pixels cannot be resized; then the cell stays black.
        let _ = Resizer::new().resize(&from, &mut to, &ResizeOptions::new());
    }
    result
}

/// A colour per class: hues a golden section apart, so that neighbouring classes differ most.
fn colour(class: u16) -> Rgb<u8> {
    let hue = (f32::from(class) * 0.618_034).fract() * 6.0;
    let channel = |n: f32| {
        let k = (n + hue) % 6.0;
        let value = 235.0 * (1.0 - 0.85 * k.min(4.0 - k).clamp(0.0, 1.0));
        value.round() as u8
    };
    Rgb([channel(5.0), channel(3.0), channel(1.0)])
}

#[cfg(test)]
mod tests;
