//! The largest batch that fits into memory, from what small ones took.

/// The largest number of images that takes at most `budget` bytes, by the straight line closest to the measured
/// `points` (images, bytes); at least 1, and at most `most`.
///
/// YOLOv5's way. Where the line does not rise, memory says nothing, and the largest measured number counts.
pub fn largest(points: &[(u32, u64)], budget: u64, most: u32) -> u32 {
    let count = points.len() as f64;
    let mean = |value: fn(&(u32, u64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x, y) = (
        mean(|point| f64::from(point.0)),
        mean(|point| point.1 as f64),
    );
    let (mut rise, mut run) = (0.0, 0.0);
    for (images, bytes) in points {
        let across = f64::from(*images) - x;
        rise += across * (*bytes as f64 - y);
        run += across * across;
    }
    let slope = rise / run;
    let fits = if slope.is_finite() && slope > 0.0 {
        x + (budget as f64 - y) / slope
    } else {
        points
            .iter()
            .map(|point| f64::from(point.0))
            .fold(0.0, f64::max)
    };
    (fits.max(1.0) as u32).min(most.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_lies_on_the_line() {
        // 1000 bytes and 200 for each image.
        let points = [(1, 1200), (2, 1400), (4, 1800), (8, 2600)];
        assert_eq!(45, largest(&points, 10_000, 1000));
        assert_eq!(45, largest(&points, 10_199, 1000));
        assert_eq!(30, largest(&points, 10_000, 30));
        assert_eq!(1, largest(&points, 500, 1000));
        // Around the line: the closest one has 200 for each image too.
        assert_eq!(
            45,
            largest(&[(1, 1210), (2, 1390), (3, 1590), (4, 1810)], 10_000, 1000)
        );
    }

    #[test]
    fn without_a_rise_the_largest_measured_counts() {
        assert_eq!(2, largest(&[(1, 500), (2, 500)], 10_000, 1000));
        assert_eq!(1, largest(&[(1, 500)], 10_000, 1000));
        assert_eq!(1, largest(&[], 10_000, 1000));
    }
}
