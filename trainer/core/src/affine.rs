//! The random perspective transform of the augmentation: geometry only.
//!
//! YOLOv5 v7.0 behaviour: `M = T S R P C`, applied right to left: move the image's centre to the
//! origin (C), perspective (P), rotate and scale (R), shear (S), move to the output (T). The image is
//! sampled bilinearly and what it does not cover is filled with 114.

use crate::boxes::Xyxy;
use crate::rng::uniform;
use crate::segments::bounding_box;
use rand_chacha::ChaCha8Rng;

/// A 3x3 matrix by rows that maps homogeneous points (x, y, 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix3(pub [[f64; 3]; 3]);

/// How far the transform may go; 0 everywhere but `translate` 0 changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AffineRanges {
    /// Rotation of up to this many degrees either way.
    pub degrees: f64,
    /// Shift of up to this fraction of the output either way.
    pub translate: f64,
    /// Scale in 1 - `scale` .. 1 + `scale`.
    pub scale: f64,
    /// Shear of up to this many degrees either way, on each axis.
    pub shear: f64,
    /// Perspective of up to this much per pixel, on each axis (0 to 0.001).
    pub perspective: f64,
}

/// One transform's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineDraw {
    /// Perspective per pixel, horizontal and vertical.
    pub perspective: [f64; 2],
    /// Rotation in degrees, counter-clockwise as seen in the image.
    pub degrees: f64,
    /// Scale.
    pub scale: f64,
    /// Shear in degrees, horizontal and vertical.
    pub shear: [f64; 2],
    /// Where the image's centre goes, as fractions of the output; 0.5 is its middle.
    pub translate: [f64; 2],
}

impl AffineDraw {
    /// The transform that only moves the centre of the source to the centre of the output.
    pub const IDENTITY: Self = Self {
        perspective: [0.0; 2],
        degrees: 0.0,
        scale: 1.0,
        shear: [0.0; 2],
        translate: [0.5; 2],
    };
}

impl AffineRanges {
    /// Draws a transform; eight draws in the order of `AffineDraw`'s fields.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> AffineDraw {
        let mut around = |middle: f64, range: f64| uniform(rng, middle - range, middle + range);
        AffineDraw {
            perspective: [around(0.0, self.perspective), around(0.0, self.perspective)],
            degrees: around(0.0, self.degrees),
            scale: around(1.0, self.scale),
            shear: [around(0.0, self.shear), around(0.0, self.shear)],
            translate: [around(0.5, self.translate), around(0.5, self.translate)],
        }
    }
}

/// The matrix from source pixels to output pixels, for (width, height) of both.
///
/// For a mosaic the source is the canvas of 2s and the output s (v5's border of -s/2).
pub fn compose(draw: &AffineDraw, source: (u32, u32), output: (u32, u32)) -> Matrix3 {
    let (sin, cos) = draw.degrees.to_radians().sin_cos();
    let k = draw.scale;
    let [shear_x, shear_y] = draw.shear.map(|degrees| degrees.to_radians().tan());
    let [x, y] = draw.translate;
    let centre = Matrix3([
        [1.0, 0.0, -f64::from(source.0) / 2.0],
        [0.0, 1.0, -f64::from(source.1) / 2.0],
        [0.0, 0.0, 1.0],
    ]);
    let perspective = Matrix3([
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [draw.perspective[0], draw.perspective[1], 1.0],
    ]);
    let rotate = Matrix3([
        [k * cos, k * sin, 0.0],
        [-k * sin, k * cos, 0.0],
        [0.0, 0.0, 1.0],
    ]);
    let shear = Matrix3([[1.0, shear_x, 0.0], [shear_y, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    let translate = Matrix3([
        [1.0, 0.0, x * f64::from(output.0)],
        [0.0, 1.0, y * f64::from(output.1)],
        [0.0, 0.0, 1.0],
    ]);
    translate
        .times(&shear)
        .times(&rotate)
        .times(&perspective)
        .times(&centre)
}

impl Matrix3 {
    /// The product: the transform that applies `other` first.
    #[must_use]
    pub fn times(&self, other: &Self) -> Self {
        let cell = |r: usize, c: usize| (0..3).map(|k| self.0[r][k] * other.0[k][c]).sum();
        Self(std::array::from_fn(|r| std::array::from_fn(|c| cell(r, c))))
    }

    /// Where the point goes, divided by the perspective.
    pub fn apply(&self, point: [f64; 2]) -> [f64; 2] {
        let row = |r: [f64; 3]| r[0] * point[0] + r[1] * point[1] + r[2];
        let depth = row(self.0[2]);
        [row(self.0[0]) / depth, row(self.0[1]) / depth]
    }

    /// The transform back, which sampling the image needs; none if there is no way back.
    pub fn inverse(&self) -> Option<Self> {
        let m = &self.0;
        let cofactor = |r: usize, c: usize| {
            let (r1, r2, c1, c2) = ((r + 1) % 3, (r + 2) % 3, (c + 1) % 3, (c + 2) % 3);
            m[r1][c1] * m[r2][c2] - m[r1][c2] * m[r2][c1]
        };
        let determinant: f64 = (0..3).map(|c| m[0][c] * cofactor(0, c)).sum();
        (determinant != 0.0 && determinant.is_finite()).then(|| {
            Self(std::array::from_fn(|r| {
                std::array::from_fn(|c| cofactor(c, r) / determinant)
            }))
        })
    }
}

/// The smallest box around the four warped corners, not clipped.
pub fn warp_box(matrix: &Matrix3, source: Xyxy) -> Xyxy {
    let Xyxy { x1, y1, x2, y2 } = source;
    let corners = [[x1, y1], [x2, y2], [x1, y2], [x2, y1]];
    let points = corners.map(|corner| matrix.apply(corner.map(f64::from)).map(|v| v as f32));
    let extreme = |axis: usize, pick: fn(f32, f32) -> f32| {
        points[1..]
            .iter()
            .map(|p| p[axis])
            .fold(points[0][axis], pick)
    };
    Xyxy::new(
        extreme(0, f32::min),
        extreme(1, f32::min),
        extreme(0, f32::max),
        extreme(1, f32::max),
    )
}

/// The box around a warped polygon within the output of `width` by `height`; none if it is outside.
///
/// Give it [`crate::segments::resample`]d points, or what lies between the points is lost.
pub fn warp_segment(
    matrix: &Matrix3,
    points: &[[f32; 2]],
    width: u32,
    height: u32,
) -> Option<Xyxy> {
    let warp = |point: &[f32; 2]| matrix.apply(point.map(f64::from)).map(|v| v as f32);
    let warped: Vec<[f32; 2]> = points.iter().map(warp).collect();
    bounding_box(&warped, width as f32, height as f32)
}

/// The smallest fraction of its area that a warped box may keep.
pub const MIN_AREA_RATIO_OF_BOXES: f32 = 0.10;

/// The same for boxes that come from polygons, whose extent fits more closely.
pub const MIN_AREA_RATIO_OF_SEGMENTS: f32 = 0.01;

/// Whether a box is still worth learning after it was warped and clipped.
///
/// `before` is the original box scaled by the transform's scale. The box `after` must be wider and
/// higher than 2 pixels, keep more than `min_area_ratio` of the area, and be less than 100 times as
/// long as wide. YOLOv5 v7.0 behaviour.
pub fn is_candidate(before: Xyxy, after: Xyxy, min_area_ratio: f32) -> bool {
    const TINY: f32 = 1e-16;
    let (w, h) = (after.width(), after.height());
    let aspect = (w / (h + TINY)).max(h / (w + TINY));
    w > 2.0 && h > 2.0 && w * h / (before.area() + TINY) > min_area_ratio && aspect < 100.0
}

/// Warps a box, clips it to the output of `width` by `height`, and drops it if nothing useful is
/// left.
pub fn transform_box(
    matrix: &Matrix3,
    draw: &AffineDraw,
    source: Xyxy,
    (width, height): (u32, u32),
) -> Option<Xyxy> {
    let scale = draw.scale as f32;
    let after = warp_box(matrix, source).clip(width as f32, height as f32);
    is_candidate(source.scale(scale, scale), after, MIN_AREA_RATIO_OF_BOXES).then_some(after)
}

#[cfg(test)]
#[path = "affine_tests.rs"]
mod tests;
