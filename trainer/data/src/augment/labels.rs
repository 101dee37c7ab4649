//! The objects' way through the geometric transform.

use super::canvas::CanvasLabel;
use crate::source::SampleTarget;
use trainer_core::affine::{
    AffineDraw, MIN_AREA_RATIO_OF_SEGMENTS, Matrix3, is_candidate, transform_box, warp_segment,
};
use trainer_core::boxes::Xyxy;
use trainer_core::detection::LabelledBox;
use trainer_core::segments::{RESAMPLED_POINTS, resample};

/// Boxes end this many pixels before the sample's edge, so that a centre never lies on it (YOLOv5
/// v7.0).
const EDGE: f32 = 1e-3;

/// Moves the labels of a canvas into a sample of `size` (width and height) and drops those of
/// which too little is left.
pub fn warp(
    labels: &[CanvasLabel],
    matrix: &Matrix3,
    draw: &AffineDraw,
    size: (u32, u32),
) -> Vec<LabelledBox> {
    labels
        .iter()
        .filter_map(|label| {
            Some(LabelledBox {
                xyxy: warp_one(label, matrix, draw, size)?,
                class: label.class,
            })
        })
        .collect()
}

/// The boxes of a sample of `size` as fractions of it.
pub fn to_targets(boxes: &[LabelledBox], size: (u32, u32)) -> Vec<SampleTarget> {
    let (width, height) = (size.0 as f32, size.1 as f32);
    boxes
        .iter()
        .map(|object| SampleTarget {
            class: object.class,
            xywh: object
                .xyxy
                .clip(width - EDGE, height - EDGE)
                .scale(1.0 / width, 1.0 / height)
                .to_xywh(),
        })
        .collect()
}

fn warp_one(
    label: &CanvasLabel,
    matrix: &Matrix3,
    draw: &AffineDraw,
    size: (u32, u32),
) -> Option<Xyxy> {
    if label.outline.is_empty() {
        return transform_box(matrix, draw, label.xyxy, size);
    }
    let points = resample(&label.outline, RESAMPLED_POINTS);
    let warped = warp_segment(matrix, &points, size.0, size.1)?;
    let scale = draw.scale as f32;
    let before = label.xyxy.scale(scale, scale);
    is_candidate(before, warped, MIN_AREA_RATIO_OF_SEGMENTS).then_some(warped)
}
