//! Modules without channels of their own.

use serde_json::Value;

use super::{Made, Reading};
use crate::architecture::activation::Activation;
use crate::architecture::arguments::Problem;
use crate::architecture::module::{Interpolation, Module, Window};

pub(super) fn contract(reading: &Reading<'_>) -> Result<Made, Problem> {
    let gain = reading.arguments.whole(0, "gain", Some(2), 1..=16)?;
    Ok(reading.plain(Module::Contract { gain }))
}

pub(super) fn expand(reading: &Reading<'_>) -> Result<Made, Problem> {
    let gain = reading.arguments.whole(0, "gain", Some(2), 1..=16)?;
    Ok(reading.plain(Module::Expand { gain }))
}

pub(super) fn upsample(reading: &Reading<'_>) -> Result<Made, Problem> {
    let arguments = &reading.arguments;
    if arguments.get(0).is_some() {
        return Err(arguments.wrong(0, "size", "write None, and the factor after it"));
    }
    let interpolation = match arguments.get(2).map(Value::as_str) {
        None | Some(Some("nearest")) => Interpolation::Nearest,
        Some(Some("bilinear")) => Interpolation::Bilinear,
        Some(_) => return Err(arguments.wrong(2, "mode", "write 'nearest' or 'bilinear'")),
    };
    let module = Module::Upsample {
        factor: arguments.whole(1, "factor", None, 1..=16)?,
        interpolation,
    };
    Ok(reading.plain(module))
}

fn window(reading: &Reading<'_>) -> Result<Window, Problem> {
    let arguments = &reading.arguments;
    let kernel = arguments.kernels(0, None)?;
    let padding = arguments.padding(2, [0; 2])?;
    if padding[0] > kernel[0] / 2 || padding[1] > kernel[1] / 2 {
        let remedy = "write at most half of the kernel";
        return Err(arguments.wrong(2, "padding", remedy));
    }
    Ok(Window {
        kernel,
        stride: arguments.strides(1, kernel)?,
        padding,
    })
}

pub(super) fn max_pool(reading: &Reading<'_>) -> Result<Made, Problem> {
    Ok(reading.plain(Module::MaxPool(window(reading)?)))
}

pub(super) fn avg_pool(reading: &Reading<'_>) -> Result<Made, Problem> {
    Ok(reading.plain(Module::AvgPool(window(reading)?)))
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "readers of arguments have one signature"
)]
pub(super) fn batch_norm(reading: &Reading<'_>) -> Result<Made, Problem> {
    let channels = reading.input();
    let made = reading.plain(Module::BatchNorm { channels });
    Ok(Made {
        printed: format!("[{channels}]"),
        ..made
    })
}

pub(super) fn activation_layer(name: &str, reading: &Reading<'_>) -> Result<Made, Problem> {
    if reading.inputs.len() > 1 {
        return Err(format!(
            "from names {} layers, but {name} takes one: put a Concat before it",
            reading.inputs.len()
        ));
    }
    // A last True or False is PyTorch's `inplace`.
    let mut values = reading.arguments.0;
    if let Some((Value::Bool(_), before)) = values.split_last() {
        values = before;
    }
    let number = match values {
        [] => None,
        [number] if number.is_number() => number.as_f64(),
        _ => {
            let form = "at most one number, for example [0.1]";
            return Err(reading
                .arguments
                .wrong(0, "slope", &format!("write {form}")));
        }
    };
    let activation = Activation::named(name, number)?;
    Ok(reading.plain(Module::Activation(activation)))
}

pub(super) fn concat(reading: &Reading<'_>) -> Result<Made, Problem> {
    match reading.arguments.whole(0, "dimension", Some(1), 0..=3)? {
        1 => Ok(reading.plain(Module::Concat)),
        _ => Err(reading
            .arguments
            .wrong(0, "dimension", "write 1, the channels")),
    }
}
