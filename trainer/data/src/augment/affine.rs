//! The pixels' way through the geometric transform.
//!
//! For each pixel of the sample the inverse transform tells where on the canvas it comes from;
//! the four pixels around that place are mixed with weights of 1/256 (OpenCV's `warpAffine` uses
//! 1/32). Without rotation, shear and perspective, which is the default, columns and rows separate:
//! two rows of the canvas are mixed at once, then pairs of columns. Both ways give the same bytes,
//! because the mixed rows keep all their bits.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector unit that pulp found"
)]

use super::canvas::{Canvas, CanvasTile, whole};
use super::planes::PlanarRow;
use crate::store::FILL;
use std::ops::Range;
use trainer_core::affine::Matrix3;
use trainer_core::mosaic::PixelRect;

/// Bits of a coordinate after the point.
const BITS: u32 = 8;
/// One pixel.
const ONE: i64 = 1 << BITS;

/// A place on one axis: the pixel at or before it, and how much of the next pixel mixes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    pixel: i64,
    /// 0..256.
    next: u32,
}

impl Place {
    /// The place, moved to at most one pixel outside of an axis of `length` pixels: all is grey
    /// there.
    fn new(at: f64, length: u32) -> Self {
        // A cast cuts off, which rounds down what is positive; this is further than any pixel is
        // left of the canvas. (`round` and `floor` are slow calls on plain x86-64.)
        const POSITIVE: i64 = 1 << 40;
        let fixed = (at * ONE as f64 + POSITIVE as f64 + 0.5) as i64 - POSITIVE;
        let pixel = fixed >> BITS;
        let clamped = pixel.clamp(-1, i64::from(length));
        Self {
            pixel: clamped,
            next: if clamped == pixel {
                (fixed & (ONE - 1)) as u32
            } else {
                0
            },
        }
    }
}

/// The way from the sample's pixels back to the canvas.
struct WayBack {
    matrix: Matrix3,
    straight: bool,
    perspective: bool,
}

impl WayBack {
    fn new(matrix: &Matrix3) -> Option<Self> {
        let mut inverse = matrix.inverse()?;
        let m = &mut inverse.0;
        let perspective = m[2][0] != 0.0 || m[2][1] != 0.0;
        if !perspective {
            // Then no pixel needs a division.
            let depth = m[2][2];
            for value in m.as_flattened_mut() {
                *value /= depth;
            }
        }
        Some(Self {
            straight: !perspective && m[0][1] == 0.0 && m[1][0] == 0.0,
            perspective,
            matrix: inverse,
        })
    }

    /// Where on the canvas the pixel (`x`, `y`) of the sample comes from.
    fn apply(&self, x: f64, y: f64) -> [f64; 2] {
        if self.perspective {
            return self.matrix.apply([x, y]);
        }
        let [u, v, _] = self.matrix.0;
        [u[0] * x + u[1] * y + u[2], v[0] * x + v[1] * y + v[2]]
    }
}

/// Computes the rows of the sample of `size` that `matrix` makes of the canvas, and gives each
/// to `finish` with its number.
pub fn warp(
    canvas: &Canvas,
    matrix: &Matrix3,
    size: (u32, u32),
    mut finish: impl FnMut(usize, &mut PlanarRow),
) {
    let mut row = PlanarRow::new(size.0);
    let Some(back) = WayBack::new(matrix) else {
        // Everything shrank to nothing.
        for y in 0..size.1 as usize {
            for plane in [&mut row.r, &mut row.g, &mut row.b] {
                plane.fill(FILL);
            }
            finish(y, &mut row);
        }
        return;
    };
    if back.straight {
        warp_straight(canvas, &back, size.1, &mut row, &mut finish);
    } else {
        warp_any(canvas, &back, size.1, &mut row, &mut finish);
    }
}

/// The part of a canvas of size `canvas` that a sample of `size` shows through `matrix`: all of it,
/// unless columns and rows separate.
pub fn seen(matrix: &Matrix3, canvas: (u32, u32), size: (u32, u32)) -> PixelRect {
    let Some(back) = WayBack::new(matrix).filter(|back| back.straight) else {
        return whole(canvas);
    };
    let [right, bottom] = [size.0, size.1].map(|end| f64::from(end.saturating_sub(1)));
    let (first, last) = (back.apply(0.0, 0.0), back.apply(right, bottom));
    let span = |axis: usize, length: u32| {
        let place = |at: f64| Place::new(at, length).pixel;
        let (a, b) = (place(first[axis]), place(last[axis]));
        // Each pixel is mixed with the next one.
        let clamp = |pixel: i64| pixel.clamp(0, i64::from(length)) as u32;
        (clamp(a.min(b)), clamp(a.max(b) + 2))
    };
    let ((x1, x2), (y1, y2)) = (span(0, canvas.0), span(1, canvas.1));
    PixelRect { x1, y1, x2, y2 }
}

/// The general way, pixel by pixel.
fn warp_any(
    canvas: &Canvas,
    back: &WayBack,
    height: u32,
    row: &mut PlanarRow,
    finish: &mut impl FnMut(usize, &mut PlanarRow),
) {
    let width = row.r.len();
    let interiors: Vec<Interior> = canvas.tiles.iter().map(Interior::new).collect();
    // The image that the last pixel came from: mostly the next one does, too.
    let mut last = 0;
    for y in 0..height as usize {
        for x in 0..width {
            let [u, v] = back.apply(x as f64, y as f64);
            let (u, v) = (Place::new(u, canvas.size.0), Place::new(v, canvas.size.1));
            if !interiors.get(last).is_some_and(|tile| tile.has(u, v)) {
                last = interiors
                    .iter()
                    .position(|tile| tile.has(u, v))
                    .unwrap_or(usize::MAX);
            }
            let [r, g, b] = match interiors.get(last) {
                Some(tile) => tile.mix(u, v),
                None => mix_any(canvas, u, v),
            };
            (row.r[x], row.g[x], row.b[x]) = (r, g, b);
        }
        finish(y, row);
    }
}

/// The part of an image on a canvas whose pixels have their right and lower neighbours in the same
/// image.
struct Interior<'a> {
    left: i64,
    top: i64,
    /// Exclusive, like `bottom`.
    right: i64,
    bottom: i64,
    /// The image's bytes, and how many a row has.
    bytes: &'a [u8],
    stride: usize,
    /// Column and row of the image at `left` and `top`.
    start: (i64, i64),
}

impl<'a> Interior<'a> {
    fn new(tile: &'a CanvasTile) -> Self {
        let (left, top) = (i64::from(tile.covers.x1), i64::from(tile.covers.y1));
        Self {
            left,
            top,
            right: i64::from(tile.covers.x2) - 1,
            bottom: i64::from(tile.covers.y2) - 1,
            bytes: tile.pixels.as_raw(),
            stride: 3 * tile.pixels.width() as usize,
            start: (left - tile.offset.0, top - tile.offset.1),
        }
    }

    fn has(&self, u: Place, v: Place) -> bool {
        let (x, y) = (u.pixel, v.pixel);
        self.left <= x && x < self.right && self.top <= y && y < self.bottom
    }

    /// The colour at a place that it has.
    fn mix(&self, u: Place, v: Place) -> [u8; 3] {
        let column = (u.pixel - self.left + self.start.0) as usize;
        let row = (v.pixel - self.top + self.start.1) as usize;
        let at = row * self.stride + column * 3;
        let above: &[u8] = &self.bytes[at..at + 6];
        let below: &[u8] = &self.bytes[at + self.stride..at + self.stride + 6];
        let channel = |c: usize| {
            let left = mix_rows(above[c], below[c], v.next);
            let right = mix_rows(above[c + 3], below[c + 3], v.next);
            mix_columns(left, right, u.next)
        };
        // Written out, since `array::from_fn` is a function call per channel.
        [channel(0), channel(1), channel(2)]
    }
}

/// The colour at any place, also between images and at the canvas' edge.
fn mix_any(canvas: &Canvas, u: Place, v: Place) -> [u8; 3] {
    let (x, y) = (u.pixel, v.pixel);
    let near = |tile: &CanvasTile| {
        let PixelRect { x1, y1, x2, y2 } = tile.covers;
        i64::from(x1) <= x + 1 && x < i64::from(x2) && i64::from(y1) <= y + 1 && y < i64::from(y2)
    };
    // Of a turned mosaic, much is grey.
    if !canvas.tiles.iter().any(near) {
        return [FILL; 3];
    }
    let [left, right] = [x, x + 1].map(|x| (canvas.pixel(x, y), canvas.pixel(x, y + 1)));
    std::array::from_fn(|c| {
        mix_columns(
            mix_rows(left.0[c], left.1[c], v.next),
            mix_rows(right.0[c], right.1[c], v.next),
            u.next,
        )
    })
}

/// 256 times the mix; fits exactly.
#[inline(always)]
fn mix_rows(above: u8, below: u8, next: u32) -> u16 {
    let next = next as u16;
    u16::from(above) * (ONE as u16 - next) + u16::from(below) * next
}

/// The mix of two such numbers, rounded.
#[inline(always)]
fn mix_columns(left: u16, right: u16, next: u32) -> u8 {
    let sum = u32::from(left) * (ONE as u32 - next) + u32::from(right) * next;
    ((sum + (1 << (2 * BITS - 1))) >> (2 * BITS)) as u8
}

/// The way for transforms that only scale and move.
fn warp_straight(
    canvas: &Canvas,
    back: &WayBack,
    height: u32,
    row: &mut PlanarRow,
    finish: &mut impl FnMut(usize, &mut PlanarRow),
) {
    let columns: Vec<Place> = (0..row.r.len())
        .map(|x| Place::new(back.apply(x as f64, 0.0)[0], canvas.size.0))
        .collect();
    let pixels = columns.iter().map(|place| place.pixel);
    let first = pixels.clone().min().unwrap_or(0);
    let count = (pixels.max().unwrap_or(0) + 2 - first) as usize;
    // Where each column's left pixel starts in the mixed row.
    let columns: Vec<(u32, i32)> = columns
        .iter()
        .map(|place| ((place.pixel - first) as u32 * 3, place.next as i32))
        .collect();
    let mut mixed = MixedRow::new(canvas, first, count);
    let mut quads = vec![[0; 4]; columns.len()];
    for y in 0..height as usize {
        let v = Place::new(back.apply(0.0, y as f64)[1], canvas.size.1);
        mixed.mix(v);
        mixed.arch.dispatch(MixColumns {
            mixed: &mixed.values,
            columns: &columns,
            quads: &mut quads,
            row,
        });
        finish(y, row);
    }
}

/// What is added to a mix of rows, so that a mix of columns only has to be cut off to be rounded.
const HALF: u16 = 1 << (BITS - 1);

/// Two rows of the canvas, mixed, as far as a sample needs them.
struct MixedRow<'a> {
    arch: pulp::Arch,
    /// The images that lie in these columns of the canvas.
    parts: Vec<Part<'a>>,
    /// 256 times the colours, and [`HALF`]. One number more than pixels have.
    values: Vec<u16>,
    /// Whether `values` are grey where no image of `parts` is `shown`.
    tidy: bool,
    /// Room for two rows that different images cover.
    rows: [Vec<u8>; 2],
}

/// A part of an image on the canvas.
struct Part<'a> {
    tile: &'a CanvasTile,
    /// Columns of the canvas, the second exclusive.
    x: (u32, u32),
    /// The same in numbers of a row that [`MixedRow`] holds.
    range: Range<usize>,
    /// Whether such a row has colours of it.
    shown: bool,
}

impl<'a> Part<'a> {
    /// The image's part in `count` columns of the canvas from `first`, which may be -1.
    fn new(tile: &'a CanvasTile, first: i64, count: usize) -> Option<Self> {
        let x1 = i64::from(tile.covers.x1).max(first);
        let x2 = i64::from(tile.covers.x2).min(first + count as i64);
        (x1 < x2).then(|| Self {
            tile,
            x: (x1 as u32, x2 as u32),
            range: (x1 - first) as usize * 3..(x2 - first) as usize * 3,
            shown: false,
        })
    }

    /// Its bytes in row `y` of the canvas, if it covers any.
    fn row(&self, y: i64) -> Option<&'a [u8]> {
        let PixelRect { y1, y2, .. } = self.tile.covers;
        let covered = i64::from(y1) <= y && y < i64::from(y2);
        covered.then(|| self.tile.row(y as u32, self.x.0, self.x.1))
    }
}

impl<'a> MixedRow<'a> {
    fn new(canvas: &'a Canvas, first: i64, count: usize) -> Self {
        let parts = canvas.tiles.iter();
        Self {
            arch: pulp::Arch::new(),
            parts: parts
                .filter_map(|tile| Part::new(tile, first, count))
                .collect(),
            values: vec![0; count * 3 + 1],
            tidy: false,
            rows: [vec![FILL; count * 3], vec![FILL; count * 3]],
        }
    }

    /// Mixes the rows at and after `v`.
    fn mix(&mut self, v: Place) {
        let parts = &mut self.parts;
        let same = |part: &Part<'_>| part.row(v.pixel).is_some() == part.row(v.pixel + 1).is_some();
        if !parts.iter().all(same) {
            return self.mix_across(v);
        }
        let shown = |part: &Part<'_>| part.shown == part.row(v.pixel).is_some();
        if !self.tidy || !parts.iter().all(shown) {
            self.values.fill(mix_rows(FILL, FILL, 0) + HALF);
            self.tidy = true;
        }
        for part in parts {
            let rows = part.row(v.pixel).zip(part.row(v.pixel + 1));
            part.shown = rows.is_some();
            if let Some((above, below)) = rows {
                self.arch.dispatch(MixRows {
                    above,
                    below,
                    next: v.next,
                    mixed: &mut self.values[part.range.clone()],
                });
            }
        }
    }

    /// The same at an image's upper or lower edge.
    fn mix_across(&mut self, v: Place) {
        for (y, row) in (v.pixel..).zip(&mut self.rows) {
            row.fill(FILL);
            for part in &self.parts {
                if let Some(bytes) = part.row(y) {
                    row[part.range.clone()].copy_from_slice(bytes);
                }
            }
        }
        self.tidy = false;
        self.arch.dispatch(MixRows {
            above: &self.rows[0],
            below: &self.rows[1],
            next: v.next,
            mixed: &mut self.values,
        });
    }
}

/// Mixes two rows. Compiled, like [`MixColumns`], for each kind of vector unit; which is chosen when it
/// runs.
struct MixRows<'a> {
    above: &'a [u8],
    below: &'a [u8],
    /// How much of the row below mixes in.
    next: u32,
    mixed: &'a mut [u16],
}

impl pulp::WithSimd for MixRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let rows = self.above.iter().zip(self.below);
        for (mixed, (above, below)) in self.mixed.iter_mut().zip(rows) {
            *mixed = mix_rows(*above, *below, self.next) + HALF;
        }
    }
}

/// Mixes pairs of columns of a mixed row.
struct MixColumns<'a> {
    mixed: &'a [u16],
    /// Where each column's left pixel starts, and how much of the next one mixes in.
    columns: &'a [(u32, i32)],
    /// Room for a row of pixels.
    quads: &'a mut [[u8; 4]],
    row: &'a mut PlanarRow,
}

impl pulp::WithSimd for MixColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { quads, row, .. } = self;
        for (quad, (start, next)) in quads.iter_mut().zip(self.columns) {
            // Four colours fill a vector; the fourth is the next pixel's red, and nobody reads it.
            let Some(near) = self.mixed[*start as usize..].first_chunk::<7>() else {
                break;
            };
            let mut sums = [0; 4];
            for c in 0..4 {
                let (left, right) = (i32::from(near[c]), i32::from(near[c + 3]));
                sums[c] = left * ONE as i32 + (right - left) * next;
            }
            // Written out, since `map` is a function call per pixel.
            *quad = [
                (sums[0] >> (2 * BITS)) as u8,
                (sums[1] >> (2 * BITS)) as u8,
                (sums[2] >> (2 * BITS)) as u8,
                (sums[3] >> (2 * BITS)) as u8,
            ];
        }
        let planes = row.r.iter_mut().zip(&mut row.g).zip(&mut row.b);
        for (((r, g), b), quad) in planes.zip(quads.iter()) {
            (*r, *g, *b) = (quad[0], quad[1], quad[2]);
        }
    }
}

#[cfg(test)]
mod tests;
