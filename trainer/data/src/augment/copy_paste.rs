//! Objects pasted once more, mirrored (YOLOv5's copy-paste, after Ghiasi et al., arXiv:2012.07177).
//!
//! The canvas is seen in a mirror from left to right, and chosen objects of the mirror image are laid
//! over the canvas, cut out along their outlines. So a pasted object comes with the light and scale of
//! the picture it is in. Boxes alone do not tell which of their pixels are the object: only objects
//! with outlines are pasted.

use super::canvas::{Canvas, CanvasLabel};
use image::{GrayImage, Luma, Rgb, RgbImage};
use imageproc::drawing::draw_polygon_mut;
use imageproc::point::Point;
use rand_chacha::ChaCha8Rng;
use trainer_core::boxes::Xyxy;
use trainer_core::rng::shuffle;

/// No object may lose this part of its box to a pasted one.
const MAX_COVERED: f32 = 0.30;

/// Pastes the share `share` of the objects that have outlines, those of them that find room.
///
/// Draws an order of the objects.
pub fn paste(rng: &mut ChaCha8Rng, mut canvas: Canvas, share: f64) -> Canvas {
    let mut outlined: Vec<usize> = (0..canvas.labels.len())
        .filter(|k| !canvas.labels[*k].outline.is_empty())
        .collect();
    // As Python rounds: a half to the even number.
    let count = (share * outlined.len() as f64).round_ties_even() as usize;
    shuffle(rng, &mut outlined);
    let before = canvas.labels.len();
    for k in outlined.into_iter().take(count) {
        let mirrored = canvas.labels[k].mirrored(canvas.size.0);
        // Those already pasted count, too.
        if canvas
            .labels
            .iter()
            .all(|other| has_room(mirrored.xyxy, other.xyxy))
        {
            canvas.labels.push(mirrored);
        }
    }
    if canvas.labels.len() == before {
        return canvas;
    }
    let mut picture = canvas.paint();
    for label in &canvas.labels[before..] {
        paste_one(&canvas, label, &mut picture);
    }
    canvas.covered_by(picture)
}

fn has_room(pasted: Xyxy, other: Xyxy) -> bool {
    pasted.intersection(other) < MAX_COVERED * other.area()
}

/// Copies what the mirror shows inside of the label's outline.
fn paste_one(canvas: &Canvas, label: &CanvasLabel, picture: &mut RgbImage) {
    let Xyxy { x1, y1, x2, y2 } = label.xyxy;
    let (left, top) = (x1.floor() as u32, y1.floor() as u32);
    let (width, height) = (x2.ceil() as u32 - left, y2.ceil() as u32 - top);
    // The filled polygon holds the pixels of its right and lower edge, too; they are cut off, being
    // outside of the box.
    let mut inside = GrayImage::new(width, height);
    let points: Vec<Point<i32>> = label
        .outline
        .iter()
        .map(|[x, y]| Point::new(*x as i32 - left as i32, *y as i32 - top as i32))
        .collect();
    draw_polygon_mut(&mut inside, &points, Luma([255]));
    for (x, y, value) in inside.enumerate_pixels() {
        let (x, y) = (left + x, top + y);
        if value.0[0] > 0 {
            let from = i64::from(canvas.size.0 - 1 - x);
            picture.put_pixel(x, y, Rgb(canvas.pixel(from, y.into())));
        }
    }
}

#[cfg(test)]
mod tests;
