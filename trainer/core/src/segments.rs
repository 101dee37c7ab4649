//! Polygons that outline objects.

use crate::boxes::Xyxy;

/// Points that a polygon is resampled to before it is warped (YOLOv5 v7.0).
pub const RESAMPLED_POINTS: usize = 1000;

/// Resamples a closed polygon to `count` points, evenly by point number, not by length.
///
/// YOLOv5 v7.0 behaviour: the polygon's first point is repeated at its end, and the first and last
/// results are both that point. An empty polygon stays empty.
pub fn resample(points: &[[f32; 2]], count: usize) -> Vec<[f32; 2]> {
    if points.is_empty() {
        return Vec::new();
    }
    let steps = count.saturating_sub(1).max(1) as f64;
    (0..count)
        .map(|k| {
            let at = k as f64 * points.len() as f64 / steps;
            let from = points[at as usize % points.len()];
            let to = points[(at as usize + 1) % points.len()];
            let part = at.fract() as f32;
            [
                from[0] + (to[0] - from[0]) * part,
                from[1] + (to[1] - from[1]) * part,
            ]
        })
        .collect()
}

/// The smallest box around the points that lie in an image of `width` by `height`; none if no point
/// does.
pub fn bounding_box(points: &[[f32; 2]], width: f32, height: f32) -> Option<Xyxy> {
    points
        .iter()
        .filter(|[x, y]| (0.0..=width).contains(x) && (0.0..=height).contains(y))
        .map(|[x, y]| Xyxy::new(*x, *y, *x, *y))
        .reduce(|a, b| {
            Xyxy::new(
                a.x1.min(b.x1),
                a.y1.min(b.y1),
                a.x2.max(b.x2),
                a.y2.max(b.y2),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: [[f32; 2]; 4] = [[0., 0.], [8., 0.], [8., 8.], [0., 8.]];

    #[test]
    fn resampling_walks_all_sides() {
        let nine = resample(&SQUARE, 9);
        let want = [
            [0., 0.],
            [4., 0.],
            [8., 0.],
            [8., 4.],
            [8., 8.],
            [4., 8.],
            [0., 8.],
            [0., 4.],
            [0., 0.],
        ];
        assert_eq!(nine, want);
        assert_eq!(resample(&SQUARE, 1000).len(), 1000);
        assert!(resample(&[], 10).is_empty());
        assert_eq!(resample(&SQUARE, 1), [[0., 0.]]);
    }

    #[test]
    fn the_box_ignores_points_outside() {
        let b = bounding_box(&resample(&SQUARE, 801), 6., 20.).unwrap();
        assert_eq!((b.x1, b.y1, b.y2), (0., 0., 8.));
        assert!(b.x2 <= 6. && b.x2 > 5.9);
        assert_eq!(bounding_box(&[[-1., 5.]], 10., 10.), None);
    }
}
