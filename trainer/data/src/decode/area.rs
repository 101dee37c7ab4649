//! Shrinking by the mean of all pixels that a new one covers, each by the share of it that is covered.

use image::RgbImage;

/// A smaller share of a pixel does not count (OpenCV).
const LEAST_SHARE: f64 = 1e-3;

/// A source pixel's weight in a new one.
struct Share {
    from: usize,
    to: usize,
    weight: f32,
}

/// `image` at `size`, which is at most its own in both directions: as OpenCV's `INTER_AREA`.
pub(super) fn shrink(image: &RgbImage, size: (u32, u32)) -> RgbImage {
    let across = shares(image.width() as usize, size.0 as usize);
    let down = shares(image.height() as usize, size.1 as usize);
    let (source_row, row) = (3 * image.width() as usize, 3 * size.0 as usize);
    let mut result = RgbImage::new(size.0, size.1);
    let (mut narrow, mut sum) = (vec![0.0_f32; row], vec![0.0_f32; row]);
    let mut narrowed = None;
    for (k, share) in down.iter().enumerate() {
        if narrowed != Some(share.from) {
            narrowed = Some(share.from);
            let source = &image.as_raw()[share.from * source_row..][..source_row];
            narrow_row(source, &across, &mut narrow);
        }
        for (sum, value) in sum.iter_mut().zip(&narrow) {
            *sum += share.weight * value;
        }
        if down.get(k + 1).is_none_or(|next| next.to != share.to) {
            let target = &mut result.as_mut()[share.to * row..][..row];
            for (to, sum) in target.iter_mut().zip(&mut sum) {
                *to = std::mem::take(sum).round_ties_even() as u8;
            }
        }
    }
    result
}

fn narrow_row(source: &[u8], across: &[Share], narrow: &mut [f32]) {
    narrow.fill(0.0);
    for Share { from, to, weight } in across {
        for channel in 0..3 {
            narrow[3 * to + channel] += weight * f32::from(source[3 * from + channel]);
        }
    }
}

/// Which of `source` pixels make which of `target`, in order.
fn shares(source: usize, target: usize) -> Vec<Share> {
    let scale = source as f64 / target as f64;
    let mut shares = Vec::with_capacity(source + target);
    for to in 0..target {
        let begin = to as f64 * scale;
        let end = begin + scale;
        let width = scale.min(source as f64 - begin);
        let last = (end.floor() as usize).min(source - 1);
        let first = (begin.ceil() as usize).min(last);
        let mut add = |from: usize, share: f64| {
            let weight = (share / width) as f32;
            shares.push(Share { from, to, weight });
        };
        if first as f64 - begin > LEAST_SHARE {
            add(first - 1, first as f64 - begin);
        }
        (first..last).for_each(|from| add(from, 1.0));
        if end - last as f64 > LEAST_SHARE {
            add(last, (end - last as f64).min(1.0).min(width));
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([
                (x * 37 + y * 91) as u8,
                (x * x * 13 + y * 7) as u8,
                (255 - x * y * 5 % 256) as u8,
            ])
        })
    }

    /// `cv2.resize(picture, size, interpolation=cv2.INTER_AREA)`.
    #[test]
    fn golden_values_of_opencv() {
        let want = [
            92, 19, 252, 133, 130, 243, 129, 156, 234, 106, 35, 244, 117, 147, 207, 128, 173, 170,
        ];
        assert_eq!(want, shrink(&picture(7, 5), (3, 2)).as_raw().as_slice());
        let want = [
            14, 5, 255, 69, 50, 255, 130, 162, 255, 190, 122, 255, 85, 158, 255, 105, 12, 253, 160,
            57, 246, 220, 170, 238, 57, 129, 229, 80, 165, 222, 196, 19, 251, 59, 64, 236, 56, 176,
            220, 116, 136, 204, 171, 172, 189, 31, 26, 249, 86, 71, 227, 146, 184, 202, 207, 143,
            178, 102, 179, 156, 122, 33, 248, 177, 78, 218, 110, 190, 185, 42, 150, 152, 97, 186,
            122, 213, 40, 246, 76, 85, 208, 72, 198, 168, 133, 157, 127, 188, 193, 89,
        ];
        assert_eq!(want, shrink(&picture(8, 6), (5, 6)).as_raw().as_slice());
        let want = [
            100, 29, 250, 125, 138, 235, 122, 141, 220, 117, 50, 235, 114, 159, 175, 139, 162, 115,
        ];
        assert_eq!(want, shrink(&picture(9, 6), (3, 2)).as_raw().as_slice());
        let want = [64, 10, 254, 138, 88, 249, 118, 24, 249, 64, 102, 224];
        assert_eq!(want, shrink(&picture(4, 4), (2, 2)).as_raw().as_slice());
    }
}
