//! Changes of the grid: more cells, fewer cells, cells against channels. Nothing here is learnt.

use tch::{TchError, Tensor};

use crate::architecture::{Interpolation, Shape, Window};

pub(crate) fn trace_upsample(x: Shape, factor: i64) -> Shape {
    Shape {
        height: factor * x.height,
        width: factor * x.width,
        ..x
    }
}

pub(crate) fn upsample(
    x: &Tensor,
    factor: i64,
    interpolation: Interpolation,
) -> Result<Tensor, TchError> {
    let (_, _, height, width) = x.size4()?;
    let size = [factor * height, factor * width];
    match interpolation {
        Interpolation::Nearest => x.f_upsample_nearest2d(size, None, None),
        Interpolation::Bilinear => x.f_upsample_bilinear2d(size, false, None, None),
    }
}

/// The channel of a cell becomes the slowest part of the new channel, so that the outputs for one place
/// in the squares lie together.
pub(crate) fn contract(x: &Tensor, gain: i64) -> Result<Tensor, TchError> {
    let (images, channels, height, width) = x.size4()?;
    let (rows, columns) = (height / gain, width / gain);
    x.f_reshape([images, channels, rows, gain, columns, gain])?
        .f_permute([0, 3, 5, 1, 2, 4])?
        .f_reshape([images, channels * gain * gain, rows, columns])
}

pub(crate) fn trace_contract(x: Shape, gain: i64) -> Result<Shape, String> {
    if x.height % gain != 0 || x.width % gain != 0 {
        return Err(format!(
            "its input has {} cells, which are no whole squares of {gain}",
            x.sides()
        ));
    }
    Ok(Shape {
        channels: x.channels * gain * gain,
        height: x.height / gain,
        width: x.width / gain,
    })
}

/// The inverse of [`contract`].
pub(crate) fn expand(x: &Tensor, gain: i64) -> Result<Tensor, TchError> {
    let (images, channels, height, width) = x.size4()?;
    let left = channels / (gain * gain);
    x.f_reshape([images, gain, gain, left, height, width])?
        .f_permute([0, 3, 4, 1, 5, 2])?
        .f_reshape([images, left, height * gain, width * gain])
}

pub(crate) fn trace_expand(x: Shape, gain: i64) -> Result<Shape, String> {
    if x.channels % (gain * gain) != 0 {
        return Err(format!(
            "its input has {} channels, which cannot be divided by {}",
            x.channels,
            gain * gain
        ));
    }
    Ok(Shape {
        channels: x.channels / (gain * gain),
        height: x.height * gain,
        width: x.width * gain,
    })
}

pub(crate) fn trace_pool(x: Shape, window: Window) -> Result<Shape, String> {
    x.windows(window.kernel, window.stride, window.padding)
}

pub(crate) fn max_pool(x: &Tensor, window: Window) -> Result<Tensor, TchError> {
    let Window {
        kernel,
        stride,
        padding,
    } = window;
    x.f_max_pool2d(kernel, stride, padding, [1; 2], false)
}

pub(crate) fn avg_pool(x: &Tensor, window: Window) -> Result<Tensor, TchError> {
    let Window {
        kernel,
        stride,
        padding,
    } = window;
    x.f_avg_pool2d(kernel, stride, padding, false, true, None)
}

/// Inputs side by side.
pub(crate) fn trace_concat(inputs: &[Shape]) -> Result<Shape, String> {
    let first = inputs.first().ok_or("it has no inputs")?;
    let mut channels = 0;
    for input in inputs {
        if (input.height, input.width) != (first.height, first.width) {
            let sides: Vec<String> = inputs.iter().map(|input| input.sides()).collect();
            return Err(format!(
                "its inputs have {} cells: they must have equally many, so choose other layers for from, or up- or downsample one",
                sides.join(" and ")
            ));
        }
        channels += input.channels;
    }
    Ok(first.with_channels(channels))
}
