use rand_chacha::ChaCha8Rng;
use trainer_core::rng::shuffle;

/// The scans, one per line; see `assets/README.md`.
const TEXT: &str = include_str!("../../assets/optdigits.txt");

/// Rows and columns of a scan.
pub(super) const CELLS: usize = 8;

/// A scanned digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scan {
    /// Which digit, 0 to 9.
    pub class: u8,
    /// Ink by rows, 0 (paper) to 16.
    pub ink: [[u8; CELLS]; CELLS],
}

/// Scanned digits.
#[derive(Clone, Debug)]
pub(super) struct Scans(pub Vec<Scan>);

/// Of every five scans of a digit, four are for training.
const TRAIN_SHARE: (usize, usize) = (4, 5);

impl Scans {
    /// All scans.
    pub(super) fn load() -> Self {
        Self(TEXT.lines().filter_map(parse).collect())
    }

    /// Training and validation scans: each digit's scans shuffled and divided.
    pub(super) fn split(&self, rng: &mut ChaCha8Rng) -> (Self, Self) {
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for class in 0..10 {
            let mut scans: Vec<Scan> = self
                .0
                .iter()
                .filter(|s| s.class == class)
                .cloned()
                .collect();
            shuffle(rng, &mut scans);
            let rest = scans.split_off(scans.len() * TRAIN_SHARE.0 / TRAIN_SHARE.1);
            train.extend(scans);
            val.extend(rest);
        }
        (Self(train), Self(val))
    }
}

/// A line `digit row row row row row row row row`. The file is part of the program and a test counts
/// its scans, so a line that is not one cannot be there.
fn parse(line: &str) -> Option<Scan> {
    let mut words = line.split(' ');
    let class = words.next()?.parse().ok()?;
    let mut ink = [[0; CELLS]; CELLS];
    for row in &mut ink {
        let word = words.next()?;
        for (cell, character) in row.iter_mut().zip(word.chars()) {
            *cell = character.to_digit(17)? as u8;
        }
    }
    Some(Scan { class, ink })
}

/// A scan enlarged: how much ink covers each pixel, 0 to 1, cut to the pixels that are covered by
/// at least half.
#[derive(Clone, Debug)]
pub(super) struct Stroke {
    pub width: u32,
    pub height: u32,
    /// By rows.
    pub cover: Vec<f32>,
}

/// Where the ink's edge is, in the scan's units. A cell's value is the ink's share of its area; thin
/// strokes fill little more than half of a cell.
const EDGE: f32 = 7.5;
/// Width of the soft edge in pixels.
const SOFT: f32 = 1.5;
/// Paper around the scan in cells, into which the interpolation reaches.
const MARGIN: f32 = 1.0;

impl Stroke {
    /// Enlarges `scan` until the long side of its ink has `side` pixels, give or take one.
    pub(super) fn new(scan: &Scan, side: f64) -> Option<Self> {
        const FINE: f32 = 8.0;
        let fine = Self::enlarge(scan, FINE)?;
        let long = fine.width.max(fine.height);
        Self::enlarge(scan, FINE * side as f32 / long as f32)
    }

    /// `scale` pixels per cell; none if there is no ink.
    fn enlarge(scan: &Scan, scale: f32) -> Option<Self> {
        let side = ((CELLS as f32 + 2.0 * MARGIN) * scale).ceil() as usize;
        let taps: Vec<_> = (0..side).map(|x| Taps::new(x, scale)).collect();
        // How steep the values are at an edge: they fall from 16 to 0 within about a cell.
        let steepness = scale / (16.0 * SOFT);
        let mut cover = Vec::with_capacity(side * side);
        for vertical in &taps {
            let row: [f32; CELLS] =
                std::array::from_fn(|x| vertical.mix(|y| scan.ink[y][x].into()));
            for horizontal in &taps {
                let ink = horizontal.mix(|x| row[x]);
                cover.push(((ink - EDGE) * steepness + 0.5).clamp(0.0, 1.0));
            }
        }
        Self::cut(&cover, side)
    }

    fn cut(cover: &[f32], side: usize) -> Option<Self> {
        let inked = |k: &usize| cover[*k] >= 0.5;
        let pixels = || (0..cover.len()).filter(inked);
        let (top, bottom) = (pixels().next()? / side, pixels().next_back()? / side + 1);
        let left = pixels().map(|k| k % side).min()?;
        let right = pixels().map(|k| k % side).max()? + 1;
        Some(Self {
            width: (right - left) as u32,
            height: (bottom - top) as u32,
            cover: (top..bottom)
                .flat_map(|y| &cover[y * side + left..y * side + right])
                .copied()
                .collect(),
        })
    }
}

/// The four cells around a pixel and their weights: Catmull and Rom's cubic, which keeps the
/// scan's values at the cells' centres.
struct Taps {
    first: i64,
    weights: [f32; 4],
}

impl Taps {
    fn new(pixel: usize, scale: f32) -> Self {
        let at = (pixel as f32 + 0.5) / scale - 0.5 - MARGIN;
        let cell = at.floor();
        let t = at - cell;
        let (t2, t3) = (t * t, t * t * t);
        Self {
            first: cell as i64 - 1,
            weights: [
                0.5 * (-t + 2.0 * t2 - t3),
                0.5 * (2.0 - 5.0 * t2 + 3.0 * t3),
                0.5 * (t + 4.0 * t2 - 3.0 * t3),
                0.5 * (-t2 + t3),
            ],
        }
    }

    /// The weighted sum of `value` at the four cells; outside of the scan is paper.
    fn mix(&self, value: impl Fn(usize) -> f32) -> f32 {
        (self.first..)
            .zip(self.weights)
            .filter(|(cell, _)| (0..CELLS as i64).contains(cell))
            .map(|(cell, weight)| value(cell as usize) * weight)
            .sum()
    }
}
