//! Modules of two branches, and pyramids.

use super::{Made, Reading};
use crate::architecture::arguments::Problem;
use crate::architecture::module::{Csp, Inner, Module, Pyramid};
use crate::architecture::parts::HEADS;

/// What all with branches share: the channels of a branch, whether to add, groups.
fn branches(
    reading: &Reading<'_>,
    inner: impl FnOnce(usize, bool, i64) -> Inner,
) -> Result<(Csp, i64), Problem> {
    let output = reading.channels()?;
    let hidden = reading.hidden(3, output, 0.5)?;
    let shortcut = reading.arguments.flag(1, "shortcut", true)?;
    let groups = reading.arguments.groups(2, hidden, hidden)?;
    let csp = Csp {
        input: reading.input(),
        output,
        hidden,
        inner: inner(reading.number, shortcut, groups),
        activation: reading.usual(),
    };
    Ok((csp, output))
}

fn bottlenecks(repeats: usize, shortcut: bool, groups: i64) -> Inner {
    Inner::Bottlenecks {
        repeats,
        shortcut,
        groups,
    }
}

pub(super) fn bottleneck_csp(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (csp, output) = branches(reading, bottlenecks)?;
    Ok(reading.containing(output, Module::BottleneckCsp(csp)))
}

pub(super) fn c3(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (csp, output) = branches(reading, bottlenecks)?;
    Ok(reading.containing(output, Module::C3(csp)))
}

pub(super) fn c3_cross(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (csp, output) = branches(reading, |repeats, shortcut, groups| Inner::Crosses {
        repeats,
        shortcut,
        groups,
    })?;
    Ok(reading.containing(output, Module::C3(csp)))
}

pub(super) fn c3_transformer(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (csp, output) = branches(reading, |repeats, _, _| Inner::Transformer { repeats })?;
    if csp.hidden % HEADS != 0 {
        return Err(format!(
            "it has {} channels inside, which {HEADS} heads cannot share: choose channels and expansion so that they are a multiple of {HEADS}",
            csp.hidden
        ));
    }
    Ok(reading.containing(output, Module::C3(csp)))
}

pub(super) fn c3_ghost(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (csp, output) = branches(reading, |repeats, _, _| Inner::Ghosts { repeats })?;
    if csp.hidden % 4 != 0 {
        return Err(format!(
            "it has {} channels inside, which ghosts halve twice: choose channels and expansion so that they are a multiple of 4",
            csp.hidden
        ));
    }
    Ok(reading.containing(output, Module::C3(csp)))
}

pub(super) fn c3_pyramid(reading: &Reading<'_>) -> Result<Made, Problem> {
    let output = reading.channels()?;
    let hidden = output / 2;
    if hidden < 2 {
        return Err(format!(
            "argument 1 (channels) is {output}: write at least 4"
        ));
    }
    let module = Module::C3(Csp {
        input: reading.input(),
        output,
        hidden,
        inner: Inner::Pyramid {
            kernels: reading.arguments.windows(1, &[5, 9, 13])?,
        },
        activation: reading.usual(),
    });
    Ok(reading.repeated(output, module))
}

fn pyramid(reading: &Reading<'_>, kernels: Vec<i64>) -> Result<Pyramid, Problem> {
    let input = reading.input();
    if input < 2 {
        return Err("its input has 1 channel, which it halves: give it more".to_owned());
    }
    Ok(Pyramid {
        input,
        output: reading.channels()?,
        kernels,
        activation: reading.usual(),
    })
}

pub(super) fn spp(reading: &Reading<'_>) -> Result<Made, Problem> {
    let pyramid = pyramid(reading, reading.arguments.windows(1, &[5, 9, 13])?)?;
    Ok(reading.repeated(pyramid.output, Module::Spp(pyramid)))
}

pub(super) fn sppf(reading: &Reading<'_>) -> Result<Made, Problem> {
    let kernel = reading.arguments.kernel(1, 5)?;
    if kernel % 2 == 0 {
        let remedy = "write an odd number";
        return Err(reading.arguments.wrong(1, "window", remedy));
    }
    let pyramid = pyramid(reading, vec![kernel])?;
    Ok(reading.repeated(pyramid.output, Module::Sppf(pyramid)))
}
