//! Contrast limited adaptive histogram equalisation (Zuiderveld 1994), with OpenCV's rules for limit
//! and interpolation.
//!
//! The picture is cut into tiles. In each, levels are spread so that all are equally frequent, but no
//! level counts for more than a limit, or noise in even areas would be blown up. Each pixel's level is
//! interpolated between what the four nearest tiles would make of it. Only lightness (CIE L*) changes;
//! the colour stays.
//!
//! Own code, since the crates for it either first stretch each tile to the full range, which the limit
//! is there to prevent, or start threads of their own within the loader's.

use image::RgbImage;
use palette::{FromColor, IntoColor, Lab, Srgb};

/// Tiles along each axis.
const TILES: usize = 8;
const LEVELS: usize = 256;

/// Evens out the lightness. `clip_limit` is how often a level may count, as a multiple of the mean.
pub fn apply(pixels: &mut RgbImage, clip_limit: f64) {
    let size = (pixels.width() as usize, pixels.height() as usize);
    let colours: Vec<Lab> = pixels
        .pixels()
        .map(|pixel| Lab::from_color(Srgb::from(pixel.0).into_linear::<f32>()))
        .collect();
    let mut levels: Vec<u8> = colours
        .iter()
        .map(|colour| (colour.l * 2.55).round() as u8)
        .collect();
    equalise(&mut levels, size, clip_limit);
    for ((pixel, colour), level) in pixels.pixels_mut().zip(colours).zip(levels) {
        let changed = Lab {
            l: f32::from(level) / 2.55,
            ..colour
        };
        let linear: palette::LinSrgb = changed.into_color();
        pixel.0 = Srgb::<u8>::from_linear(linear).into();
    }
}

/// Spreads the levels of an image of this (width, height).
fn equalise(levels: &mut [u8], (width, height): (usize, usize), clip_limit: f64) {
    let (across, down) = (Axis::new(width), Axis::new(height));
    let tables: Vec<[u8; LEVELS]> = (0..down.tiles * across.tiles)
        .map(|tile| {
            let (row, column) = (tile / across.tiles, tile % across.tiles);
            let rows = levels.chunks_exact(width).take(down.end(row));
            let pixels = rows
                .skip(row * down.tile)
                .flat_map(|row| &row[column * across.tile..across.end(column)]);
            table(pixels, clip_limit)
        })
        .collect();
    let columns: Vec<Between> = (0..width).map(|x| across.between(x)).collect();
    for (y, row) in levels.chunks_exact_mut(width).enumerate() {
        let v = down.between(y);
        let [above, below] = [v.before, v.after].map(|row| &tables[row * across.tiles..]);
        for (level, u) in row.iter_mut().zip(&columns) {
            let value = usize::from(*level);
            let mix = |tables: &[[u8; LEVELS]]| {
                let [left, right] =
                    [u.before, u.after].map(|column| f32::from(tables[column][value]));
                left * (1.0 - u.part) + right * u.part
            };
            *level = (mix(above) * (1.0 - v.part) + mix(below) * v.part).round_ties_even() as u8;
        }
    }
}

/// What each level of a tile becomes.
fn table<'a>(pixels: impl Iterator<Item = &'a u8>, clip_limit: f64) -> [u8; LEVELS] {
    let mut counts = [0_usize; LEVELS];
    pixels.for_each(|level| counts[usize::from(*level)] += 1);
    let area: usize = counts.iter().sum();
    let limit = ((clip_limit * area as f64 / LEVELS as f64) as usize).max(1);
    // What is above the limit is given to all levels equally.
    let excess: usize = counts.iter().map(|count| count.saturating_sub(limit)).sum();
    let rest = excess % LEVELS;
    let step = LEVELS.checked_div(rest).unwrap_or(LEVELS).max(1);
    for (level, count) in counts.iter_mut().enumerate() {
        let extra = level % step == 0 && level / step < rest;
        *count = (*count).min(limit) + excess / LEVELS + usize::from(extra);
    }
    let scale = 255.0 / area.max(1) as f32;
    let mut sum = 0;
    counts.map(|count| {
        sum += count;
        (sum as f32 * scale).round_ties_even().min(255.0) as u8
    })
}

/// How one axis is cut into tiles.
struct Axis {
    length: usize,
    /// Pixels of a tile; the last one may have fewer.
    tile: usize,
    tiles: usize,
}

/// The two tiles that a pixel lies between.
struct Between {
    before: usize,
    after: usize,
    /// How much of `after`, 0 to 1.
    part: f32,
}

impl Axis {
    fn new(length: usize) -> Self {
        let tile = length.div_ceil(TILES).max(1);
        Self {
            length,
            tile,
            tiles: length.div_ceil(tile),
        }
    }

    /// Where a tile ends.
    fn end(&self, tile: usize) -> usize {
        ((tile + 1) * self.tile).min(self.length)
    }

    fn between(&self, at: usize) -> Between {
        let place = at as f32 / self.tile as f32 - 0.5;
        let before = place.floor();
        let last = self.tiles.saturating_sub(1);
        Between {
            before: before.max(0.0) as usize,
            after: ((before + 1.0) as usize).min(last),
            part: place - before,
        }
    }
}

#[cfg(test)]
mod tests;
