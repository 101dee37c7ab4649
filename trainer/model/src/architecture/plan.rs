//! From rows to layers: what each takes, how large its output is, and whether all of it fits together.

use super::activation::Activation;
use super::arguments::{Arguments, MAX_CHANNELS};
use super::document::{Anchors, Document, Row};
use super::error::ArchitectureError;
use super::modules::{self, Context, Made, Reading};
use super::shape::{Shape, Work};
use super::slot::{Form, Slot};
use super::{Architecture, Layer, Level, outputs_per_anchor};
use crate::architecture::module::Module;
use crate::blocks::Block;
use crate::blocks::scope::Recorder;

/// Side of the image whose way through the layers tells the strides: a power of two large enough for any.
pub(crate) const PROBE: i64 = 1024;
/// Cells a side of a layer's output may have for that image.
const MAX_SIDE: i64 = 8 * PROBE;
/// Parameters a network may have; YOLOv5's largest has 141 million.
const MAX_PARAMETERS: u64 = 1_000_000_000;
/// Modules in a row that a file may ask for, over all layers.
const MAX_REPEATS: u64 = 2_000;

/// What is not in the file.
pub(crate) struct Request {
    pub name: &'static str,
    pub classes: usize,
    pub activation: Option<Activation>,
    pub anchors: Option<Vec<Vec<[f32; 2]>>>,
}

/// The network that `document` describes.
pub(crate) fn plan(
    document: &Document,
    request: Request,
) -> Result<Architecture, ArchitectureError> {
    let own_anchors = request.anchors.is_some();
    let anchors = request.anchors.map(Anchors::Sizes);
    let anchors = anchors.or_else(|| document.anchors.clone());
    let context = Context {
        width: document.width,
        unscaled: anchors
            .as_ref()
            .map(|anchors| anchors.per_level() as i64 * outputs_per_anchor(request.classes)),
        activation: request
            .activation
            .or(document.activation)
            .unwrap_or_default(),
        classes: request.classes,
        anchors,
        own_anchors,
    };
    let mut planner = Planner {
        context,
        layers: Vec::new(),
        shapes: Vec::new(),
        parameters: 0,
        repeats: 0,
    };
    for row in &document.rows {
        planner
            .add(row, document.depth)
            .map_err(|problem| ArchitectureError::Layer {
                place: row.place.clone(),
                problem,
            })?;
    }
    let multiple = planner.multiple()?;
    check_uses(&planner.layers, &document.rows)?;
    let architecture = Architecture {
        name: request.name,
        classes: request.classes,
        levels: levels(planner.layers.last()),
        layers: planner.layers,
        multiple,
    };
    // What fits for one size of image must fit for all that are allowed; two odd multiples tell.
    let side = i64::from(multiple);
    architecture.trace(3 * side, 5 * side)?;
    Ok(architecture)
}

struct Planner {
    context: Context,
    layers: Vec<Layer>,
    /// Of each layer's output, for an image of [`PROBE`] pixels; none of Detect.
    shapes: Vec<Option<Shape>>,
    parameters: u64,
    repeats: u64,
}

impl Planner {
    fn add(&mut self, row: &Row, depth: f64) -> Result<(), String> {
        let from = row
            .from
            .iter()
            .map(|from| self.source(*from))
            .collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<Shape> = from.iter().map(|(_, shape)| *shape).collect();
        let strides: Vec<Option<u32>> = inputs.iter().map(|shape| stride(*shape)).collect();
        let number = if row.number > 1 {
            ((row.number as f64 * depth).round_ties_even() as u64).max(1)
        } else {
            row.number
        };
        self.repeats += number;
        if self.repeats > MAX_REPEATS {
            return Err(format!(
                "it is repeated {number} times, all layers together {} times: write smaller numbers, at most {MAX_REPEATS} together",
                self.repeats
            ));
        }
        let reading = Reading {
            context: &self.context,
            arguments: Arguments(&row.arguments),
            inputs: &inputs,
            strides: &strides,
            number: number as usize,
        };
        let made = modules::read(&row.place.module, &reading)?;
        let output = self.measure(&made, &inputs)?;
        self.shapes.push(output);
        self.layers.push(Layer {
            from: from.into_iter().map(|(from, _)| from).collect(),
            written_from: written(row),
            name: row.place.module.clone(),
            number: number as usize,
            arguments: made.printed,
            module: made.module,
            repeats: made.repeats,
            anchors: made.anchors,
            wants_anchors: made.wants_anchors,
        });
        Ok(())
    }

    /// The layer that `from` means, and its output; `None` is the images.
    fn source(&self, from: i64) -> Result<(Option<usize>, Shape), String> {
        let index = self.layers.len();
        if index == 0 {
            return if from == -1 {
                Ok((None, Shape::image(PROBE, PROBE)))
            } else {
                Err(format!(
                    "from is {from}, but there is no layer before it: write -1 for the images"
                ))
            };
        }
        let layer = if from < 0 { index as i64 + from } else { from };
        let found = usize::try_from(layer).ok().filter(|layer| *layer < index);
        let Some(layer) = found else {
            return Err(format!(
                "from is {from}: write -1 for the layer before, or the number of an earlier layer, 0 to {}",
                index - 1
            ));
        };
        match self.shapes[layer] {
            Some(shape) => Ok((Some(layer), shape)),
            None => Err(format!(
                "it takes the predictions of layer {layer}: Detect must be the last layer, so move it to the end"
            )),
        }
    }

    /// The output of a layer for the probe; none of Detect.
    fn measure(&mut self, made: &Made, inputs: &[Shape]) -> Result<Option<Shape>, String> {
        let Made {
            module, repeats, ..
        } = made;
        let mut recorder = Recorder {
            form: Form::Trainable,
            slots: Vec::new(),
        };
        let blocks = Block::of_layer(&mut recorder, 0, module, *repeats)
            .map_err(|error| error.to_string())?;
        let parameters = recorder
            .slots
            .iter()
            .filter(|slot| slot.role.is_parameter());
        self.parameters += parameters.map(Slot::len).sum::<u64>();
        if self.parameters > MAX_PARAMETERS {
            return Err(format!(
                "with it the network has {} parameters: write fewer channels, at most {MAX_PARAMETERS} are possible",
                self.parameters
            ));
        }
        let shapes = chain(&blocks, inputs, &mut Work::default())?;
        if matches!(module, Module::Detect { .. }) {
            return Ok(None);
        }
        let output = shapes[0];
        let largest = output.height.max(output.width);
        if largest > MAX_SIDE || output.channels > MAX_CHANNELS {
            return Err(format!(
                "an image of {PROBE} pixels becomes {} channels of {} cells, more than the {MAX_CHANNELS} channels and {MAX_SIDE} rows that are possible: use smaller factors",
                output.channels,
                output.sides()
            ));
        }
        Ok(Some(output))
    }

    /// What sides of images must be multiples of, so that every layer halves them without remainder.
    fn multiple(&self) -> Result<u32, ArchitectureError> {
        let strides = self
            .shapes
            .iter()
            .flatten()
            .filter_map(|shape| stride(*shape));
        // All are powers of two, since they divide the probe.
        let multiple = strides.max().unwrap_or(1);
        if i64::from(2 * multiple) > PROBE {
            return Err(ArchitectureError::key(
                "backbone",
                format!(
                    "has a layer of stride {multiple}: use fewer strides, at most {} is possible",
                    PROBE / 2
                ),
            ));
        }
        Ok(multiple)
    }
}

/// Pixels per cell, if it is a whole number and the same for rows and columns.
fn stride(shape: Shape) -> Option<u32> {
    let fits = shape.height == shape.width && PROBE % shape.height == 0;
    fits.then_some((PROBE / shape.height) as u32)
}

/// What becomes of shapes in modules that follow each other.
pub(crate) fn chain<T>(
    blocks: &[Block<T>],
    inputs: &[Shape],
    work: &mut Work,
) -> Result<Vec<Shape>, String> {
    let mut shapes = inputs.to_vec();
    for (repeat, block) in blocks.iter().enumerate() {
        shapes = block.trace(&shapes, work).map_err(|problem| {
            if repeat == 0 {
                problem
            } else {
                format!(
                    "it is repeated {} times, but its output cannot be its input ({problem}): write number 1, or as many channels out as in",
                    blocks.len()
                )
            }
        })?;
    }
    Ok(shapes)
}

fn written(row: &Row) -> String {
    if row.from_list {
        format!("{:?}", row.from)
    } else {
        row.from[0].to_string()
    }
}

/// The last layer must be the only Detect, and every other must have a use: one without a way to the loss would get
/// no gradients.
fn check_uses(layers: &[Layer], rows: &[Row]) -> Result<(), ArchitectureError> {
    let is_detect = |layer: &Layer| matches!(layer.module, Module::Detect { .. });
    if !layers.last().is_some_and(is_detect) {
        return Err(ArchitectureError::key(
            "head",
            "does not end with Detect: add a last row like [[17, 20, 23], 1, Detect, [nc, anchors]]",
        ));
    }
    let last = layers.len() - 1;
    for (index, layer) in layers[..last].iter().enumerate() {
        let problem = if is_detect(layer) {
            "Detect must be the last layer: remove this one or move it to the end"
        } else if layers.iter().any(|later| later.from.contains(&Some(index))) {
            continue;
        } else {
            "no later layer takes its output: name its number in a from, or remove it"
        };
        return Err(ArchitectureError::Layer {
            place: rows[index].place.clone(),
            problem: problem.to_owned(),
        });
    }
    Ok(())
}

/// Strides and anchors of the levels, in the order of Detect's inputs.
fn levels(detect: Option<&Layer>) -> Vec<Level> {
    let Some(Layer {
        module: Module::Detect { strides, .. },
        anchors,
        ..
    }) = detect
    else {
        return Vec::new();
    };
    let mut anchors = anchors.clone();
    // YOLOv5 v7.0 behaviour: anchors in the opposite order of the strides are turned round.
    let area = |level: Option<&Vec<[f32; 2]>>| {
        let areas = level
            .into_iter()
            .flatten()
            .map(|[width, height]| width * height);
        areas.sum::<f32>()
    };
    let grow = area(anchors.last()) - area(anchors.first());
    if let [first, .., last] = strides[..]
        && grow * (last as f32 - first as f32) < 0.0
    {
        anchors.reverse();
    }
    strides
        .iter()
        .zip(anchors)
        .map(|(stride, anchors)| Level {
            stride: *stride,
            anchors,
        })
        .collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
pub(super) mod tests;
