//! Random hue, saturation and brightness.
//!
//! YOLOv5 v7.0 behaviour in OpenCV's 8-bit HSV: hue in 0..180 (two degrees each), saturation and value
//! in 0..256; each channel goes through a table of whole numbers, cut off, not rounded.

use super::planes::PlanarRow;
use rand_chacha::ChaCha8Rng;
use trainer_core::rng::uniform;

/// The largest changes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HsvRanges {
    /// Of the hue, as a factor 1 - x to 1 + x.
    pub hue: f64,
    /// Of the saturation, likewise.
    pub saturation: f64,
    /// Of the brightness, likewise.
    pub value: f64,
}

/// One change: what each hue, saturation and value becomes.
#[derive(Clone, Debug)]
pub struct HsvTables(Option<Box<[[u8; 256]; 3]>>);

impl HsvRanges {
    /// Draws a change; three draws.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> HsvTables {
        let factors = [self.hue, self.saturation, self.value]
            .map(|range| uniform(rng, 1.0 - range, 1.0 + range));
        if *self == Self::default() {
            return HsvTables::UNCHANGED;
        }
        HsvTables::new(factors)
    }
}

impl HsvTables {
    /// Leaves every pixel as it is. (Factors of 1 do not: 8-bit HSV has fewer colours than RGB.)
    pub const UNCHANGED: Self = Self(None);

    /// Multiplies hue, saturation and value by these factors.
    pub fn new(factors: [f64; 3]) -> Self {
        let [hue, saturation, value] = factors;
        let table = |f: &dyn Fn(f64) -> f64| std::array::from_fn(|x| f(x as f64) as u8);
        Self(Some(Box::new([
            table(&|x| (x * hue).rem_euclid(180.0)),
            table(&|x| (x * saturation).min(255.0)),
            table(&|x| (x * value).min(255.0)),
        ])))
    }

    /// Changes the colours of a row.
    pub fn apply(&self, row: &mut PlanarRow) {
        let Some(tables) = &self.0 else {
            return;
        };
        to_hsv(row);
        let [hue, saturation, value] = &**tables;
        for (plane, table) in [
            (&mut row.r, hue),
            (&mut row.g, saturation),
            (&mut row.b, value),
        ] {
            for x in plane {
                *x = table[usize::from(*x)];
            }
        }
        to_rgb(row);
    }
}

/// Adding this to a small number leaves the number, rounded, in the lowest bits (1.5 * 2^23). Plain
/// casts saturate, which compiles to several instructions more per pixel.
const ROUND: f32 = 12_582_912.0;

/// A number from 0 to 255, rounded.
fn round(x: f32) -> u8 {
    (x + ROUND).to_bits() as u8
}

/// RGB becomes hue, saturation, value in the same planes. Free of branches, so that it vectorises.
fn to_hsv(row: &mut PlanarRow) {
    let planes = row.r.iter_mut().zip(&mut row.g).zip(&mut row.b);
    for ((r, g), b) in planes {
        let high = (*r).max(*g).max(*b);
        let low = (*r).min(*g).min(*b);
        let (red, green, blue) = (f32::from(*r), f32::from(*g), f32::from(*b));
        let (value, range) = (f32::from(high), f32::from(high - low));
        // Where the divisor is 0, so is the dividend.
        let saturation = range * 255.0 / value.max(1.0);
        let (difference, sector) = if high == *r {
            (green - blue, 0.0)
        } else if high == *g {
            (blue - red, 60.0)
        } else {
            (red - green, 120.0)
        };
        let hue = difference * 30.0 / range.max(1.0) + sector;
        // -0.5 rounds to 0, not to 180.
        let hue = if hue < -0.5 { hue + 180.0 } else { hue };
        *r = round(hue);
        *g = round(saturation);
        *b = high;
    }
}

/// The way back. With the hue h in sixths of the circle, red, green and blue fall below the value by
/// the chroma times 2 - |h - 3|, |h - 2| - 1 and |h - 4| - 1, each clamped to 0..1.
fn to_rgb(row: &mut PlanarRow) {
    let planes = row.r.iter_mut().zip(&mut row.g).zip(&mut row.b);
    for ((r, g), b) in planes {
        let hue = f32::from(*r) * (1.0 / 30.0);
        let value = f32::from(*b);
        let chroma = f32::from(*g) * (1.0 / 255.0) * value;
        let below = |part: f32| {
            // `clamp` treats NaN specially, which costs time and cannot happen here.
            let part = if part > 0.0 { part } else { 0.0 };
            let part = if part < 1.0 { part } else { 1.0 };
            round(value - chroma * part)
        };
        *r = below(2.0 - (hue - 3.0).abs());
        *g = below((hue - 2.0).abs() - 1.0);
        *b = below((hue - 4.0).abs() - 1.0);
    }
}

#[cfg(test)]
mod tests;
