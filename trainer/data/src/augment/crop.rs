//! A random part of a sample, enlarged to the whole (as `RandomResizedCrop`).

use super::picture::Picture;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use trainer_core::boxes::Xyxy;
use trainer_core::detection::LabelledBox;
use trainer_core::mosaic::PixelRect;
use trainer_core::rng::{below, chance, uniform};

/// The part's area as a fraction of the sample's.
const AREA: (f64, f64) = (0.8, 1.0);
/// The part's width divided by its height.
const ASPECT: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// How many shapes are tried; then the sample stays whole.
const TRIES: usize = 10;
/// How much of its area an object must keep.
const MIN_KEPT: f32 = 0.10;
/// How wide and high it must be afterwards, in pixels.
const MIN_SIDE: f32 = 2.0;

/// Draws whether a sample of `size` is cropped (with `probability`) and to which part.
pub fn draw(rng: &mut ChaCha8Rng, probability: f64, size: (u32, u32)) -> Option<PixelRect> {
    if !chance(rng, probability) {
        return None;
    }
    let whole = f64::from(size.0) * f64::from(size.1);
    let (low, high) = (ASPECT.0.ln(), ASPECT.1.ln());
    for _ in 0..TRIES {
        let area = whole * uniform(rng, AREA.0, AREA.1);
        let aspect = uniform(rng, low, high).exp();
        let width = (area * aspect).sqrt().round() as u32;
        let height = (area / aspect).sqrt().round() as u32;
        if (1..=size.0).contains(&width) && (1..=size.1).contains(&height) {
            let x1 = below(rng, u64::from(size.0 - width) + 1) as u32;
            let y1 = below(rng, u64::from(size.1 - height) + 1) as u32;
            return Some(PixelRect {
                x1,
                y1,
                x2: x1 + width,
                y2: y1 + height,
            });
        }
    }
    None
}

/// Enlarges the `part` of the picture to its size, with what is left of the objects.
pub fn apply(picture: &mut Picture, part: PixelRect) {
    let (width, height) = picture.pixels.dimensions();
    if let Some(pixels) = enlarge(&picture.pixels, part) {
        picture.pixels = pixels;
        let objects = picture.boxes.iter();
        picture.boxes = objects
            .filter_map(|object| crop_box(object, part, (width, height)))
            .collect();
    }
}

/// None only if the part is not inside of the image, which `draw` makes sure of.
fn enlarge(pixels: &RgbImage, part: PixelRect) -> Option<RgbImage> {
    let (width, height) = pixels.dimensions();
    let (part_width, part_height) = part.size();
    let mut result = RgbImage::new(width, height);
    let from = ImageRef::new(width, height, pixels.as_raw(), PixelType::U8x3).ok()?;
    let mut to = Image::from_slice_u8(width, height, &mut result, PixelType::U8x3).ok()?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear))
        .crop(
            part.x1.into(),
            part.y1.into(),
            part_width.into(),
            part_height.into(),
        );
    Resizer::new().resize(&from, &mut to, &options).ok()?;
    drop(to);
    Some(result)
}

fn crop_box(object: &LabelledBox, part: PixelRect, size: (u32, u32)) -> Option<LabelledBox> {
    let (width, height) = part.size();
    let Xyxy { x1, y1, .. } = Xyxy::new(part.x1 as f32, part.y1 as f32, 0.0, 0.0);
    let left = object
        .xyxy
        .translate(-x1, -y1)
        .clip(width as f32, height as f32);
    let xyxy = left.scale(size.0 as f32 / width as f32, size.1 as f32 / height as f32);
    let keep = left.area() >= MIN_KEPT * object.xyxy.area()
        && xyxy.width() >= MIN_SIDE
        && xyxy.height() >= MIN_SIDE;
    keep.then_some(LabelledBox {
        xyxy,
        class: object.class,
    })
}

#[cfg(test)]
mod tests;
