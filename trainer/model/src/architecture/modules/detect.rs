//! The predictions.

use super::{Made, Reading};
use crate::architecture::arguments::Problem;
use crate::architecture::document::Anchors;
use crate::architecture::module::Module;
use crate::architecture::plan::PROBE;
use crate::architecture::{document, outputs_per_anchor};

pub(super) fn detect(reading: &Reading<'_>) -> Result<Made, Problem> {
    let (arguments, levels) = (&reading.arguments, reading.inputs.len());
    if levels > document::MAX_LEVELS {
        return Err(format!(
            "from names {levels} layers: name 1 to {}",
            document::MAX_LEVELS
        ));
    }
    // Of a number the data set decides, as of the key nc.
    if let Some(written) = arguments.get(0)
        && !(written == "nc" || written.is_number())
    {
        return Err(arguments.wrong(0, "nc", "write nc"));
    }
    let context = reading.context;
    let anchors = match arguments.get(1) {
        Some(written) if !context.own_anchors && written != "anchors" => {
            let anchors = document::anchors("anchors", written);
            Some(anchors.map_err(|error| format!("argument 2: {error}"))?)
        }
        _ => context.anchors.clone(),
    };
    let anchors = anchors.ok_or(
        "there are no anchors: write the key anchors with a list of widths and heights for each level",
    )?;
    let wants_anchors = matches!(anchors, Anchors::Made(_));
    if let Anchors::Sizes(anchors) = &anchors
        && anchors.len() != levels
    {
        return Err(format!(
            "it has {levels} levels, but {} has {}: write one list for each",
            if context.own_anchors {
                "model.anchors"
            } else {
                "anchors"
            },
            anchors.len()
        ));
    }
    let strides: Vec<u32> = reading
        .strides
        .iter()
        .zip(reading.inputs)
        .map(|(stride, input)| {
            stride.ok_or_else(|| {
                format!(
                    "an image of {PROBE} pixels has {} cells in an input of it, which is no whole number of pixels per cell: choose paddings that keep sizes divisible",
                    input.sides()
                )
            })
        })
        .collect::<Result<_, _>>()?;
    let per_level = anchors.per_level();
    let (anchors, printed) = match anchors {
        Anchors::Sizes(sizes) => {
            let printed = written(&sizes);
            (sizes, printed)
        }
        Anchors::Made(number) => (placeholders(number, &strides), number.to_string()),
    };
    let inputs: Vec<i64> = reading.inputs.iter().map(|input| input.channels).collect();
    let module = Module::Detect {
        anchors: per_level,
        outputs: outputs_per_anchor(context.classes),
        strides,
        inputs: inputs.clone(),
    };
    Ok(Made {
        printed: format!("[{}, {printed}, {inputs:?}]", context.classes),
        anchors,
        wants_anchors,
        ..reading.plain(module)
    })
}

fn written(sizes: &[Vec<[f32; 2]>]) -> String {
    let lists: Vec<String> = sizes
        .iter()
        .map(|level| {
            let sides: Vec<String> = level.as_flattened().iter().map(f32::to_string).collect();
            format!("[{}]", sides.join(", "))
        })
        .collect();
    format!("[{}]", lists.join(", "))
}

/// Squares of two, four, six… cells, in pixels: they stand there until the data set has given others.
fn placeholders(number: usize, strides: &[u32]) -> Vec<Vec<[f32; 2]>> {
    let level = |stride: &u32| {
        let sides = (1..=number).map(|at| 2.0 * at as f32 * *stride as f32);
        sides.map(|side| [side; 2]).collect()
    };
    strides.iter().map(level).collect()
}
