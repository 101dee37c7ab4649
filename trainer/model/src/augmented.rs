//! Test-time augmentation: one image seen at several scales.

use tch::{TchError, Tensor};

use crate::error::Error;
use crate::network::Evaluated;

/// Scales, and whether the image is mirrored at it; `YOLOv5`'s.
const VIEWS: [(f64, bool); 3] = [(1.0, false), (0.83, true), (0.67, false)];
/// What scaled images are filled up with: about the grey of a letterbox.
const FILL: f64 = 0.447;

/// What `evaluate` gives of all views of `images` (`[images, 3, height, width]`, 0..=1), in pixels of `images`, row
/// after row; `raw` is that of the images as they are. `multiple` is what sides must be a multiple of.
///
/// `YOLOv5` v7.0 behaviour: the largest view does not answer for its coarsest level, the smallest not for its finest.
pub(crate) fn evaluate(
    images: &Tensor,
    multiple: i64,
    evaluate: impl Fn(&Tensor) -> Result<Evaluated, Error>,
) -> Result<Evaluated, Error> {
    let failed = |source| Error::Augment {
        images: images.size(),
        source,
    };
    let mut all = Vec::new();
    let mut first_raw = Vec::new();
    for (number, (scale, mirrored)) in VIEWS.into_iter().enumerate() {
        let seen = tch::no_grad(|| view(images, multiple, scale, mirrored)).map_err(failed)?;
        let Evaluated { decoded, raw } = evaluate(&seen)?;
        let rows = |level: Option<&Tensor>| {
            level.map_or(0, |raw| raw.size().iter().skip(1).take(3).product())
        };
        let kept = tch::no_grad(|| {
            let width = images.size4()?.3;
            let decoded = undo(&decoded, width, scale, mirrored)?;
            let total = decoded.size3()?.1;
            match number {
                0 => decoded.f_narrow(1, 0, total - rows(raw.last())),
                2 => {
                    let finest = rows(raw.first());
                    decoded.f_narrow(1, finest, total - finest)
                }
                _ => Ok(decoded),
            }
        });
        all.push(kept.map_err(failed)?);
        if number == 0 {
            first_raw = raw;
        }
    }
    let decoded = tch::no_grad(|| Tensor::f_cat(&all, 1)).map_err(failed)?;
    Ok(Evaluated {
        decoded,
        raw: first_raw,
    })
}

fn view(images: &Tensor, multiple: i64, scale: f64, mirrored: bool) -> Result<Tensor, TchError> {
    if scale == 1.0 {
        return Ok(images.shallow_clone());
    }
    let (_, _, height, width) = images.size4()?;
    let scaled = |side: i64| (side as f64 * scale) as i64;
    let padded = |side: i64| (side as f64 * scale / multiple as f64).ceil() as i64 * multiple;
    let images = if mirrored {
        images.f_flip([3])?
    } else {
        images.shallow_clone()
    };
    images
        .f_upsample_bilinear2d([scaled(height), scaled(width)], false, None, None)?
        .f_pad(
            [
                0,
                padded(width) - scaled(width),
                0,
                padded(height) - scaled(height),
            ],
            "constant",
            FILL,
        )
}

/// Boxes of a view as boxes of the image.
fn undo(decoded: &Tensor, width: i64, scale: f64, mirrored: bool) -> Result<Tensor, TchError> {
    if scale == 1.0 {
        return Ok(decoded.shallow_clone());
    }
    let outputs = decoded.size3()?.2;
    let boxes = decoded.f_narrow(2, 0, 4)?.f_div_scalar(scale)?;
    let mut x = boxes.f_narrow(2, 0, 1)?;
    if mirrored {
        x = x.f_neg()?.f_add_scalar(width as f64)?;
    }
    let rest = decoded.f_narrow(2, 4, outputs - 4)?;
    Tensor::f_cat(&[x, boxes.f_narrow(2, 1, 3)?, rest], 2)
}
