//! Quads: four images make one of twice the width and height.
//!
//! YOLOv5 v7.0 behaviour: with probability 1/2 it is the first of them enlarged, else they lie side by side. A
//! group that the end of an epoch leaves with fewer images has grey in place of the others; v5 drops it.

use crate::boxes::Xywh;
use crate::rng::{Purpose, chance, stream};

/// Images of one quad.
pub const IMAGES: usize = 4;

/// What a quad shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quad {
    /// Its first image, twice as wide and high.
    Enlarged,
    /// All its images, each in a [`corner`] of its own.
    Joined,
}

/// What the quad shows whose first image is `first`, in `epoch`.
pub fn draw(seed: u64, epoch: u64, first: u32) -> Quad {
    let mut rng = stream(seed, Purpose::Quad, epoch, first.into());
    if chance(&mut rng, 0.5) {
        Quad::Enlarged
    } else {
        Quad::Joined
    }
}

/// Column and row of the `k`-th image of a quad: top left, bottom left, top right, bottom right.
pub fn corner(k: usize) -> (u8, u8) {
    let k = (k % IMAGES) as u8;
    (k / 2, k % 2)
}

/// A box of the `k`-th image in a quad of all, both as fractions.
pub fn joined(k: usize, label: Xywh) -> Xywh {
    let (column, row) = corner(k);
    Xywh {
        x: f32::midpoint(label.x, column.into()),
        y: f32::midpoint(label.y, row.into()),
        w: label.w / 2.0,
        h: label.h / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_quads_are_one_image() {
        let enlarged = (0..1000).filter(|first| draw(3, 1, *first) == Quad::Enlarged);
        let enlarged = enlarged.count();
        assert!((450..550).contains(&enlarged), "{enlarged}");
        assert_eq!(draw(3, 1, 7), draw(3, 1, 7));
        assert!((0..64).any(|epoch| draw(3, epoch, 7) != draw(3, 0, 7)));
    }

    #[test]
    fn boxes_move_into_their_corner() {
        let whole = Xywh::new(0.5, 0.5, 1.0, 1.0);
        let corners = [0, 1, 2, 3].map(|k| {
            let Xywh { x, y, w, h } = joined(k, whole);
            assert_eq!((0.5, 0.5), (w, h));
            (x, y)
        });
        assert_eq!(
            [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)],
            corners
        );
    }
}
