//! Evaluation statistics as bytes, for an exchange between ranks that speak the same version.

use crate::image_stats::ImageStats;

/// Statistics bytes from another rank that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "evaluation statistics end at byte {length} in the middle of image record {record}: the ranks \
     run different versions or the exchange was cut short"
)]
pub struct DecodeStatsError {
    /// Number of bytes given.
    pub length: usize,
    /// The record that is incomplete, from 0.
    pub record: usize,
}

/// Statistics as bytes, for an exchange between ranks.
///
/// Little endian; per image: `image_index`, detections n, labels m as `u32`, then n `u16` bit sets, n
/// `f32` confidences, n and m `u16` classes. Joining encodings encodes the joined lists.
pub fn encode(stats: &[ImageStats]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for image in stats {
        let n = image
            .tp
            .len()
            .min(image.conf.len())
            .min(image.pred_class.len());
        for value in [image.image_index, n as u32, image.target_class.len() as u32] {
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend(image.tp[..n].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(image.conf[..n].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(image.pred_class[..n].iter().flat_map(|v| v.to_le_bytes()));
        bytes.extend(image.target_class.iter().flat_map(|v| v.to_le_bytes()));
    }
    bytes
}

/// Reads what [`encode`] wrote, or several of those joined.
pub fn decode(bytes: &[u8]) -> Result<Vec<ImageStats>, DecodeStatsError> {
    let mut rest = bytes;
    let mut stats = Vec::new();
    while !rest.is_empty() {
        let record = stats.len();
        let image = decode_image(&mut rest);
        stats.push(image.ok_or(DecodeStatsError {
            length: bytes.len(),
            record,
        })?);
    }
    Ok(stats)
}

fn decode_image(rest: &mut &[u8]) -> Option<ImageStats> {
    let [image_index, n, m] = [take_u32(rest)?, take_u32(rest)?, take_u32(rest)?];
    let (n, m) = (n as usize, m as usize);
    Some(ImageStats {
        image_index,
        tp: take_u16s(rest, n)?,
        conf: take(rest, n.checked_mul(4)?)?
            .as_chunks()
            .0
            .iter()
            .map(|c| f32::from_le_bytes(*c))
            .collect(),
        pred_class: take_u16s(rest, n)?,
        target_class: take_u16s(rest, m)?,
    })
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4)?.first_chunk().map(|c| u32::from_le_bytes(*c))
}

fn take_u16s(rest: &mut &[u8], count: usize) -> Option<Vec<u16>> {
    let bytes = take(rest, count.checked_mul(2)?)?;
    Some(
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|c| u16::from_le_bytes(*c))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cut_bytes_are_refused() {
        let stats = ImageStats {
            tp: vec![1],
            conf: vec![0.5],
            pred_class: vec![2],
            ..Default::default()
        };
        let bytes = encode(&[stats.clone(), stats]);
        for length in [1, 11, 12, 19, bytes.len() - 1] {
            let record = usize::from(length > bytes.len() / 2);
            assert_eq!(
                decode(&bytes[..length]),
                Err(DecodeStatsError { length, record })
            );
        }
        // A count far beyond the data neither allocates nor overflows.
        assert!(decode(&[255; 12]).is_err());
    }

    proptest! {
        #[test]
        fn bytes_round_trip_and_join(
            images in prop::collection::vec(
                (any::<u32>(), prop::collection::vec((0_u16..1024, 0f32..1., any::<u16>()), 0..5),
                 prop::collection::vec(any::<u16>(), 0..5)), 0..5),
        ) {
            let stats: Vec<ImageStats> = images.into_iter().map(|(image_index, rows, target_class)| {
                ImageStats {
                    image_index,
                    tp: rows.iter().map(|r| r.0).collect(),
                    conf: rows.iter().map(|r| r.1).collect(),
                    pred_class: rows.iter().map(|r| r.2).collect(),
                    target_class,
                }
            }).collect();
            let mut bytes = encode(&stats);
            prop_assert_eq!(&decode(&bytes).unwrap(), &stats);
            bytes.extend(encode(&stats));
            prop_assert_eq!(decode(&bytes).unwrap(), [stats.clone(), stats].concat());
        }
    }
}
