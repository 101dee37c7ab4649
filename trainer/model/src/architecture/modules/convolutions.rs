//! Convolutions and what is made of two or three of them.

use super::{Made, Reading};
use crate::architecture::arguments::Problem;
use crate::architecture::module::{Bottleneck, Convolution, Cross, Ghost, GhostBottleneck, Module};

pub(super) fn conv(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.channels()?;
    let arguments = &reading.arguments;
    let module = Module::Conv {
        convolution: arguments.convolution(1, reading.input(), output)?,
        activation: arguments.activation(6, reading.usual())?,
    };
    Ok(reading.repeated(output, module))
}

pub(super) fn depthwise(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (input, output) = (reading.input(), reading.channels()?);
    let arguments = &reading.arguments;
    let dilation = arguments.pair(3, "dilation", Some([1; 2]), 1..=16)?;
    let mut convolution = Convolution {
        dilation,
        groups: greatest_common_divisor(input, output),
        ..Convolution::rectangular(
            input,
            output,
            arguments.kernels(1, Some(1))?,
            arguments.strides(2, [1; 2])?,
        )
    };
    convolution.padding = convolution.extent().map(|side| side / 2);
    let module = Module::Conv {
        convolution,
        activation: arguments.activation(4, reading.usual())?,
    };
    Ok(reading.repeated(output, module))
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}

pub(super) fn focus(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (input, output) = (4 * reading.input(), reading.channels()?);
    let arguments = &reading.arguments;
    let mut convolution = Convolution::rectangular(
        input,
        output,
        arguments.kernels(1, Some(1))?,
        arguments.strides(2, [1; 2])?,
    );
    convolution.padding = arguments.padding(3, convolution.padding)?;
    convolution.groups = arguments.groups(4, input, output)?;
    let module = Module::Focus {
        convolution,
        activation: arguments.activation(5, reading.usual())?,
    };
    Ok(reading.repeated(output, module))
}

pub(super) fn cross(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.channels()?;
    let arguments = &reading.arguments;
    let hidden = reading.hidden(4, output, 1.0)?;
    let module = Module::Cross(Cross {
        input: reading.input(),
        output,
        hidden,
        kernel: arguments.kernel(1, 3)?,
        stride: arguments.stride(2)?,
        groups: arguments.groups(3, hidden, output)?,
        shortcut: arguments.flag(5, "shortcut", false)?,
        activation: reading.usual(),
    });
    Ok(reading.repeated(output, module))
}

pub(super) fn bottleneck(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.channels()?;
    let hidden = reading.hidden(3, output, 0.5)?;
    let module = Module::Bottleneck(Bottleneck {
        input: reading.input(),
        output,
        hidden,
        groups: reading.arguments.groups(2, hidden, output)?,
        shortcut: reading.arguments.flag(1, "shortcut", true)?,
        activation: reading.usual(),
    });
    Ok(reading.repeated(output, module))
}

pub(super) fn conv2d(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (input, output) = (reading.input(), reading.channels()?);
    let arguments = &reading.arguments;
    let kernel = arguments.kernels(1, None)?;
    let stride = arguments.strides(2, [1; 2])?;
    let module = Module::Conv2d {
        convolution: Convolution {
            padding: arguments.padding(3, [0; 2])?,
            dilation: arguments.pair(4, "dilation", Some([1; 2]), 1..=16)?,
            groups: arguments.groups(5, input, output)?,
            ..Convolution::rectangular(input, output, kernel, stride)
        },
        bias: arguments.flag(6, "bias", true)?,
    };
    Ok(reading.repeated(output, module))
}

pub(super) fn ghost(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.even_channels()?;
    let arguments = &reading.arguments;
    let module = Module::Ghost(Ghost {
        input: reading.input(),
        output,
        kernel: arguments.kernel(1, 1)?,
        stride: arguments.stride(2)?,
        groups: arguments.groups(3, reading.input(), output / 2)?,
        activation: arguments.activation(4, reading.usual())?,
    });
    Ok(reading.repeated(output, module))
}

pub(super) fn ghost_bottleneck(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.channels()?;
    if output % 4 != 0 {
        return Err(format!(
            "argument 1 (channels) is {output}: write a multiple of 4"
        ));
    }
    let module = Module::GhostBottleneck(GhostBottleneck {
        input: reading.input(),
        output,
        kernel: reading.arguments.kernel(1, 3)?,
        stride: reading.arguments.whole(2, "stride", Some(1), 1..=2)?,
        activation: reading.usual(),
    });
    Ok(reading.repeated(output, module))
}
