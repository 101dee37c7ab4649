//! Mirroring.

use super::planes::PlanarRow;
use trainer_core::boxes::Xywh;

/// Which ways a sample is mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flip {
    /// Upside down.
    pub vertical: bool,
    /// Left to right.
    pub horizontal: bool,
}

impl Flip {
    /// Stores row `y` of a sample into its planes.
    pub fn store(self, row: &PlanarRow, y: usize, pixels: &mut [u8]) {
        let width = row.r.len();
        let height = pixels.len() / 3 / width;
        let y = if self.vertical { height - 1 - y } else { y };
        let planes = pixels.chunks_exact_mut(width * height);
        for (plane, source) in planes.zip(row.planes()) {
            let target = &mut plane[y * width..(y + 1) * width];
            target.copy_from_slice(source);
            if self.horizontal {
                target.reverse();
            }
        }
    }

    /// The same for a box in fractions of the sample.
    pub fn apply(self, label: Xywh) -> Xywh {
        Xywh {
            x: if self.horizontal {
                1.0 - label.x
            } else {
                label.x
            },
            y: if self.vertical {
                1.0 - label.y
            } else {
                label.y
            },
            ..label
        }
    }
}
