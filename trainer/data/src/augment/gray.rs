//! The loss of colour.

/// The brightness of a colour in all three channels, weighted as eyes do (ITU-R BT.601, as OpenCV).
pub fn of([r, g, b]: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = [r, g, b].map(u32::from);
    [((299 * r + 587 * g + 114 * b + 500) / 1000) as u8; 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_colours() {
        let got = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255; 3], [0; 3]].map(|c| of(c)[0]);
        assert_eq!(got, [76, 150, 29, 255, 0]);
        for level in 0..=255 {
            assert_eq!(of([level; 3]), [level; 3]);
        }
    }
}
