//! The default anchors and how well anchors fit a data set.

use serde::{Deserialize, Serialize};

/// Width and height in pixels of the three anchors of the levels P3, P4, P5 (YOLOv5 v7.0).
pub const DEFAULT_ANCHORS: [[[f32; 2]; 3]; 3] = [
    [[10.0, 13.0], [16.0, 30.0], [33.0, 23.0]],
    [[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],
    [[116.0, 90.0], [156.0, 198.0], [373.0, 326.0]],
];

/// How well anchors fit boxes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnchorFit {
    /// Per box, the best over the anchors of `min(r, 1/r)`, r being the ratio of widths or of
    /// heights, whichever fits worse; in 0..=1.
    pub best: Vec<f32>,
    /// Best possible recall: the fraction of boxes that at least one anchor may predict.
    pub best_possible_recall: f32,
    /// Anchors above threshold: how many anchors may predict a box, on average.
    pub anchors_above_threshold: f32,
}

/// Measures `anchors` against boxes of width and height in the same pixels.
///
/// An anchor may predict a box when neither side differs by `anchor_t` (4.0 in v5) times or more:
/// YOLOv5 v7.0's check before it recomputes anchors, which it does at a recall of 0.98 or less.
/// Without boxes both means are 0. v5 scales the boxes by a random 0.9..1.1 first; the caller may.
pub fn fit(boxes: &[[f32; 2]], anchors: &[[f32; 2]], anchor_t: f32) -> AnchorFit {
    let threshold = 1.0 / anchor_t;
    let mut above = 0_usize;
    let best: Vec<f32> = boxes
        .iter()
        .map(|size| {
            let fits = anchors.iter().map(|anchor| worst_ratio(*size, *anchor));
            fits.inspect(|fit| above += usize::from(*fit > threshold))
                .fold(0.0, f32::max)
        })
        .collect();
    let count = best.len().max(1) as f32;
    let recalled = best.iter().filter(|fit| **fit > threshold).count();
    AnchorFit {
        best,
        best_possible_recall: recalled as f32 / count,
        anchors_above_threshold: above as f32 / count,
    }
}

/// The worse of the two ratios of sides, each turned so that it is at most 1.
pub(crate) fn worst_ratio(size: [f32; 2], anchor: [f32; 2]) -> f32 {
    let fit = |side: f32, of_anchor: f32| {
        let ratio = side / of_anchor;
        ratio.min(1.0 / ratio)
    };
    fit(size[0], anchor[0]).min(fit(size[1], anchor[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_fit_of_the_default_anchors() {
        let boxes = [
            [10., 10.],
            [30., 60.],
            [300., 200.],
            [600., 500.],
            [4., 4.],
            [100., 20.],
            [20., 150.],
        ];
        let got = fit(&boxes, DEFAULT_ANCHORS.as_flattened(), 4.0);
        let want = [
            0.76923, 0.98361, 0.61350, 0.62167, 0.30769, 0.44444, 0.40667,
        ];
        for (g, w) in got.best.iter().zip(want) {
            assert!((g - w).abs() < 1e-5, "{:?}", got.best);
        }
        assert_eq!(
            (got.best_possible_recall, got.anchors_above_threshold),
            (1.0, 3.0)
        );
    }

    #[test]
    fn boxes_no_anchor_fits_lower_the_recall() {
        let got = fit(&[[10., 13.], [1., 1.]], DEFAULT_ANCHORS.as_flattened(), 4.0);
        assert_eq!(got.best_possible_recall, 0.5);
        assert_eq!(
            fit(&[], DEFAULT_ANCHORS.as_flattened(), 4.0).best_possible_recall,
            0.0
        );
    }
}
