//! From decoded predictions to detections.

use tch::{Device, Kind, TchError, Tensor};
use trainer_core::detection::Detection;
use trainer_core::nms::{NmsOptions, nms};

use crate::error::Error;

/// The detections of each image, most confident first, in pixels of the network's input.
///
/// `decoded` is `[images, rows, 5 + classes]` as [`crate::network::Evaluated`] has it, on any device.
/// Waits for the device and copies the predictions of one image at a time.
pub fn detections(decoded: &Tensor, options: &NmsOptions) -> Result<Vec<Vec<Detection>>, Error> {
    let shape = decoded.size();
    let (images, outputs) = match shape[..] {
        [images, _, outputs] if outputs > 5 => (images, outputs),
        _ => {
            return Err(Error::Detections {
                shape,
                source: None,
            });
        }
    };
    (0..images)
        .map(|image| {
            let rows = rows(decoded, image, f64::from(options.confidence)).map_err(|source| {
                Error::Detections {
                    shape: shape.clone(),
                    source: Some(source),
                }
            })?;
            Ok(nms(&rows, outputs as usize - 5, options))
        })
        .collect()
}

/// The rows of one image that may become detections: those whose objectness is above `confidence`.
fn rows(decoded: &Tensor, image: i64, confidence: f64) -> Result<Vec<f32>, TchError> {
    tch::no_grad(|| {
        let rows = decoded.f_select(0, image)?;
        // Selecting first makes what is copied from a GPU and read here a small part of the whole.
        let likely = rows
            .f_select(1, 4)?
            .f_gt(confidence)?
            .f_nonzero()?
            .f_squeeze_dim(1)?;
        let rows = rows.f_index_select(0, &likely)?.f_to_kind(Kind::Float)?;
        Vec::try_from(
            rows.f_to_device(Device::Cpu)?
                .f_contiguous()?
                .f_view([-1])?,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use trainer_core::nms::{Competition, LabelsPerBox};

    /// `YOLOv5` v7.0's detections for these rows are known.
    const ROWS: [[f32; 7]; 6] = [
        [50., 50., 40., 40., 0.9, 0.9, 0.1],
        [52., 50., 40., 40., 0.8, 0.8, 0.3],
        [120., 120., 30., 60., 0.7, 0.2, 0.9],
        [50., 52., 40., 42., 0.6, 0.1, 0.95],
        [200., 200., 10., 10., 0.0005, 0.9, 0.9],
        [121., 120., 30., 60., 0.65, 0.3, 0.85],
    ];

    fn decoded() -> Tensor {
        let image = Tensor::from_slice(ROWS.as_flattened()).view([1, 6, 7]);
        Tensor::cat(&[&image, &(&image * 0.0), &image], 0)
    }

    #[track_caller]
    fn check(options: &NmsOptions, count: usize) {
        let all = detections(&decoded(), options).expect("well formed");
        assert_eq!(
            [count, 0, count],
            [all[0].len(), all[1].len(), all[2].len()]
        );
        assert_eq!(all[0], all[2]);
        assert!((all[0][0].conf - 0.81).abs() < 1e-6 && all[0][0].class == 0);
    }

    #[test]
    fn golden_numbers_of_detections() {
        check(&NmsOptions::DETECTION, 3);
        check(&NmsOptions::VALIDATION, 4);
        let agnostic = NmsOptions {
            competition: Competition::AcrossClasses,
            ..NmsOptions::DETECTION
        };
        check(&agnostic, 2);
        check(
            &NmsOptions {
                max_detections: 1,
                ..NmsOptions::DETECTION
            },
            1,
        );
        check(
            &NmsOptions {
                labels: LabelsPerBox::Best,
                ..NmsOptions::VALIDATION
            },
            3,
        );
    }

    #[test]
    fn layout_and_number_format_do_not_matter() {
        let options = NmsOptions::VALIDATION;
        let want = detections(&decoded(), &options).expect("well formed");
        let transposed = decoded().transpose(0, 1).contiguous().transpose(0, 1);
        assert_eq!(
            want,
            detections(&transposed, &options).expect("well formed")
        );
        let double = decoded().to_kind(Kind::Double);
        assert_eq!(want, detections(&double, &options).expect("well formed"));
    }

    #[test]
    fn other_shapes_are_refused() {
        let flat = decoded().view([-1, 7]);
        assert!(matches!(
            detections(&flat, &NmsOptions::DETECTION),
            Err(Error::Detections { source: None, .. })
        ));
    }
}
