//! Random hue, saturation and brightness.
//!
//! YOLOv5 v7.0 behaviour in OpenCV's 8-bit HSV: hue in 0..180 (two degrees each), saturation and value
//! in 0..256; each is multiplied and cut off, not rounded.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the vector unit that pulp found"
)]

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

/// One change: the factors of hue, saturation and value, or none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HsvChange(Option<[f32; 3]>);

impl HsvRanges {
    /// Draws a change; three draws.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> HsvChange {
        let factors = [self.hue, self.saturation, self.value]
            .map(|range| uniform(rng, 1.0 - range, 1.0 + range));
        if *self == Self::default() {
            return HsvChange::UNCHANGED;
        }
        HsvChange::new(factors)
    }
}

impl HsvChange {
    /// Leaves every pixel as it is. (Factors of 1 do not: 8-bit HSV has fewer colours than RGB.)
    pub const UNCHANGED: Self = Self(None);

    /// Multiplies hue, saturation and value by these factors, 0 to 2.
    pub fn new(factors: [f64; 3]) -> Self {
        Self(Some(factors.map(|factor| factor as f32)))
    }

    /// Changes the colours of a row.
    pub fn apply(&self, row: &mut PlanarRow) {
        let Some(factors) = self.0 else {
            return;
        };
        pulp::Arch::new().dispatch(ChangeRow { row, factors });
    }
}

/// The work on a row, compiled for each kind of vector unit; which is chosen when it runs. The
/// arithmetic is the same for all of them.
struct ChangeRow<'a> {
    row: &'a mut PlanarRow,
    factors: [f32; 3],
}

impl pulp::WithSimd for ChangeRow<'_> {
    type Output = ();

    /// Free of branches and calls, so that it vectorises.
    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { row, factors } = self;
        let planes = row.r.iter_mut().zip(&mut row.g).zip(&mut row.b);
        for ((r, g), b) in planes {
            [*r, *g, *b] = to_rgb(change(to_hsv([*r, *g, *b].map(f32::from)), factors));
        }
    }
}

/// Adding this to a small number leaves the number, rounded, in the lowest bits (1.5 * 2^23). Plain
/// casts saturate, which compiles to several instructions more per pixel.
const ROUND: f32 = 12_582_912.0;

/// A number from 0 to 255, rounded.
#[inline(always)]
fn round(x: f32) -> u8 {
    (x + ROUND).to_bits() as u8
}

/// A number of at least 0, cut off.
#[inline(always)]
fn cut(x: f32) -> f32 {
    let rounded = (x + ROUND) - ROUND;
    if rounded > x { rounded - 1.0 } else { rounded }
}

/// Like `f32::max`, but NaN, which cannot happen here, costs no time.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// Hue, saturation and value of a colour, rounded to whole numbers.
#[inline(always)]
fn to_hsv([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let value = larger(larger(red, green), blue);
    let range = value - smaller(smaller(red, green), blue);
    // Where the divisor is 0, so is the dividend.
    let saturation = range * 255.0 / larger(value, 1.0);
    let (is_red, is_green) = (value == red, value == green);
    let difference = if is_red {
        green - blue
    } else if is_green {
        blue - red
    } else {
        red - green
    };
    let sector = if is_red {
        0.0
    } else if is_green {
        60.0
    } else {
        120.0
    };
    let hue = difference * 30.0 / larger(range, 1.0) + sector;
    // -0.5 rounds to 0, not to 180.
    let hue = if hue < -0.5 { hue + 180.0 } else { hue };
    [(hue + ROUND) - ROUND, (saturation + ROUND) - ROUND, value]
}

/// The factors' work, in whole numbers that are cut off.
#[inline(always)]
fn change([hue, saturation, value]: [f32; 3], factors: [f32; 3]) -> [f32; 3] {
    // Less than two turns.
    let hue = cut(hue * factors[0]);
    let hue = if hue >= 180.0 { hue - 180.0 } else { hue };
    let hue = if hue >= 180.0 { hue - 180.0 } else { hue };
    [
        hue,
        cut(smaller(saturation * factors[1], 255.0)),
        cut(smaller(value * factors[2], 255.0)),
    ]
}

/// The way back. With the hue h in sixths of the circle, red, green and blue fall below the value by
/// the chroma times 2 - |h - 3|, |h - 2| - 1 and |h - 4| - 1, each clamped to 0..1.
#[inline(always)]
fn to_rgb([hue, saturation, value]: [f32; 3]) -> [u8; 3] {
    let hue = hue * (1.0 / 30.0);
    let chroma = saturation * (1.0 / 255.0) * value;
    let below = |part: f32| {
        let part = smaller(larger(part, 0.0), 1.0);
        round(value - chroma * part)
    };
    [
        below(2.0 - (hue - 3.0).abs()),
        below((hue - 2.0).abs() - 1.0),
        below((hue - 4.0).abs() - 1.0),
    ]
}

#[cfg(test)]
mod tests;
