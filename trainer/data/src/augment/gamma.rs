//! A change of gamma.

/// What each level becomes when its fraction of the largest level is raised to `gamma`.
pub fn table(gamma: f64) -> [u8; 256] {
    std::array::from_fn(|level| ((level as f64 / 255.0).powf(gamma) * 255.0).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_stay_and_the_middle_moves() {
        let same = table(1.0);
        assert!((0..256).all(|level| usize::from(same[level]) == level));
        let darker = table(1.2);
        // 255 * 0.5^1.2 = 111.0, for 127.5; 127 gives 110.5.
        assert_eq!([darker[0], darker[127], darker[255]], [0, 110, 255]);
        let lighter = table(0.8);
        assert_eq!([lighter[0], lighter[64], lighter[255]], [0, 84, 255]);
    }
}
