//! A part of another picture in place of a part that shows no object (Yun et al., arXiv:1905.04899,
//! as Ultralytics describes it for detection).

use super::picture::Picture;
use super::streams::Pool;
use image::{GenericImage, GenericImageView};
use rand_chacha::ChaCha8Rng;
use trainer_core::boxes::Xyxy;
use trainer_core::detection::LabelledBox;
use trainer_core::mosaic::PixelRect;
use trainer_core::rng::{beta, chance, unit};

/// Parts that are tried.
const CANDIDATES: usize = 3;
/// How much of its own area an object of the other picture must have in the part to be labelled.
const MIN_SEEN: f32 = 0.10;

/// From which image a part is taken, and which parts may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The image that the second picture belongs to.
    pub partner: u32,
    /// Parts of the sample, by preference.
    pub candidates: [PixelRect; CANDIDATES],
}

/// Draws whether a sample of side `side` gets a part of another picture (with `probability`), of which
/// image of `pool`, and candidates for the part.
pub fn draw(rng: &mut ChaCha8Rng, probability: f64, pool: Pool<'_>, side: u32) -> Option<Cut> {
    chance(rng, probability).then(|| Cut {
        partner: pool.draw(rng),
        candidates: std::array::from_fn(|_| draw_part(rng, side)),
    })
}

/// A square whose area is uniform between nothing and all, anywhere, cut off at the sample's edge.
fn draw_part(rng: &mut ChaCha8Rng, side: u32) -> PixelRect {
    let kept = beta(rng, 1.0, 1.0);
    let length = (f64::from(side) * (1.0 - kept).sqrt()) as u32;
    let mut span = || {
        let centre = (f64::from(side) * unit(rng)) as u32;
        let start = centre.saturating_sub(length / 2);
        (start, (centre + length / 2).min(side))
    };
    let (x1, x2) = span();
    let (y1, y2) = span();
    PixelRect { x1, y1, x2, y2 }
}

impl Cut {
    /// The first candidate that has pixels and touches none of `boxes`.
    pub fn free_part(&self, boxes: &[LabelledBox]) -> Option<PixelRect> {
        let mut candidates = self.candidates.into_iter();
        candidates.find(|part| {
            let (width, height) = part.size();
            let area = to_box(*part);
            width > 0 && height > 0 && boxes.iter().all(|b| b.xyxy.intersection(area) <= 0.0)
        })
    }
}

/// Puts the `part` of `second` into `picture`, with what it shows of objects; nothing if it shows none.
pub fn apply(picture: &mut Picture, second: &Picture, part: PixelRect) {
    let area = to_box(part);
    let before = picture.boxes.len();
    picture
        .boxes
        .extend(second.boxes.iter().filter_map(|object| {
            let seen = object.xyxy.intersection(area);
            (seen > 0.0 && seen >= MIN_SEEN * object.xyxy.area()).then(|| LabelledBox {
                xyxy: clipped(object.xyxy, area),
                class: object.class,
            })
        }));
    if picture.boxes.len() == before {
        return;
    }
    let (width, height) = part.size();
    let view = second.pixels.view(part.x1, part.y1, width, height);
    // Both pictures have the sample's size, so the part is inside of both.
    let copied = picture.pixels.copy_from(&*view, part.x1, part.y1);
    debug_assert!(copied.is_ok(), "{part:?}");
}

fn to_box(part: PixelRect) -> Xyxy {
    Xyxy::new(
        part.x1 as f32,
        part.y1 as f32,
        part.x2 as f32,
        part.y2 as f32,
    )
}

fn clipped(inner: Xyxy, area: Xyxy) -> Xyxy {
    Xyxy::new(
        inner.x1.max(area.x1),
        inner.y1.max(area.y1),
        inner.x2.min(area.x2),
        inner.y2.min(area.y2),
    )
}

#[cfg(test)]
mod tests;
