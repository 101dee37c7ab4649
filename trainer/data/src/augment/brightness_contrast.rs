//! A change of brightness and contrast.

/// What each level becomes when all are multiplied by `contrast` and `brightness` (a fraction of the
/// largest level) is added.
pub fn table(brightness: f64, contrast: f64) -> [u8; 256] {
    std::array::from_fn(|level| {
        let changed = level as f64 * contrast + brightness * 255.0;
        changed.round().clamp(0.0, 255.0) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_scaled_moved_and_clipped() {
        let same = table(0.0, 1.0);
        assert!((0..256).all(|level| usize::from(same[level]) == level));
        let brighter = table(0.2, 1.0);
        assert_eq!([brighter[0], brighter[100], brighter[230]], [51, 151, 255]);
        let flatter = table(-0.2, 0.8);
        // 100 * 0.8 - 51 = 29.
        assert_eq!([flatter[0], flatter[100], flatter[255]], [0, 29, 153]);
    }
}
