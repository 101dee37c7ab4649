//! Rectangles that cover parts of a sample (arXiv:1708.04552, in several sizes as YOLOv5 has it).

use rand_chacha::ChaCha8Rng;
use trainer_core::boxes::Xyxy;
use trainer_core::mosaic::PixelRect;
use trainer_core::rng::{below, chance};

/// How many masks, and the largest side of each as a fraction of the sample's.
const SIZES: [(usize, f64); 5] = [
    (1, 1.0 / 2.0),
    (2, 1.0 / 4.0),
    (4, 1.0 / 8.0),
    (8, 1.0 / 16.0),
    (16, 1.0 / 32.0),
];
/// An object of which more than this part is covered loses its label.
const MAX_COVERED: f32 = 0.60;

/// A rectangle of one colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Where.
    pub area: PixelRect,
    /// Red, green, blue.
    pub colour: [u8; 3],
}

/// Draws whether a sample of `size` is covered (with `probability`) and by what; else nothing.
pub fn draw(rng: &mut ChaCha8Rng, probability: f64, size: (u32, u32)) -> Vec<Mask> {
    if !chance(rng, probability) {
        return Vec::new();
    }
    let sizes = SIZES
        .into_iter()
        .flat_map(|(count, part)| std::iter::repeat_n(part, count));
    sizes
        .map(|part| {
            let mut span = |side: u32| {
                let largest = ((f64::from(side) * part) as u64).max(1);
                let length = 1 + below(rng, largest) as u32;
                let centre = below(rng, side.into()) as u32;
                let start = centre.saturating_sub(length / 2);
                (start, (centre + length.div_ceil(2)).min(side))
            };
            let (x1, x2) = span(size.0);
            let (y1, y2) = span(size.1);
            Mask {
                area: PixelRect { x1, y1, x2, y2 },
                colour: draw_colour(rng),
            }
        })
        .collect()
}

/// A grey or any colour, both equally likely.
fn draw_colour(rng: &mut ChaCha8Rng) -> [u8; 3] {
    let is_grey = chance(rng, 0.5);
    let [r, g, b] = std::array::from_fn(|_| below(rng, 256) as u8);
    if is_grey { [r; 3] } else { [r, g, b] }
}

/// Covers the planes of a finished sample of this width.
pub fn paint(masks: &[Mask], width: u32, pixels: &mut [u8]) {
    let (width, plane) = (width as usize, pixels.len() / 3);
    for Mask { area, colour } in masks {
        for (plane, value) in pixels.chunks_exact_mut(plane).zip(colour) {
            for row in plane
                .chunks_exact_mut(width)
                .take(area.y2 as usize)
                .skip(area.y1 as usize)
            {
                row[area.x1 as usize..area.x2 as usize].fill(*value);
            }
        }
    }
}

/// Whether too little is left to be seen of an object.
pub fn hides(masks: &[Mask], object: Xyxy) -> bool {
    let parts: Vec<Xyxy> = masks
        .iter()
        .map(|mask| common(mask.area, object))
        .filter(|part| part.width() > 0.0 && part.height() > 0.0)
        .collect();
    area_of_union(&parts) > MAX_COVERED * object.area()
}

fn common(area: PixelRect, object: Xyxy) -> Xyxy {
    Xyxy::new(
        object.x1.max(area.x1 as f32),
        object.y1.max(area.y1 as f32),
        object.x2.min(area.x2 as f32),
        object.y2.min(area.y2 as f32),
    )
}

/// The area that the rectangles cover together, each part once: upright strips between all left and
/// right edges, in each of which the rectangles' heights are joined.
fn area_of_union(parts: &[Xyxy]) -> f32 {
    let mut edges: Vec<f32> = parts.iter().flat_map(|part| [part.x1, part.x2]).collect();
    edges.sort_by(f32::total_cmp);
    let mut by_top = parts.to_vec();
    by_top.sort_by(|a, b| a.y1.total_cmp(&b.y1));
    edges
        .windows(2)
        .map(|strip| {
            let across = by_top
                .iter()
                .filter(|part| part.x1 <= strip[0] && strip[1] <= part.x2);
            let mut height = 0.0;
            let mut reached = f32::NEG_INFINITY;
            for part in across {
                height += (part.y2 - part.y1.max(reached)).max(0.0);
                reached = reached.max(part.y2);
            }
            height * (strip[1] - strip[0])
        })
        .sum()
}

#[cfg(test)]
mod tests;
