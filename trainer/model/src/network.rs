//! The network: images in, predictions out.

use std::cell::RefCell;

use tch::{Device, Kind, TchError, Tensor};
use torch_bridge::SyncNorm;

use crate::architecture::{Form, Layer, Level, NORM_EPS, Role};
use crate::augmented;
use crate::blocks::scope::Finder;
use crate::blocks::{Block, Phase};
use crate::error::Error;
use crate::state::{Gradients, State};

pub use crate::options::{Layout, NetworkOptions};

/// What an evaluation gives.
#[derive(Debug)]
pub struct Evaluated {
    /// `[images, rows, 5 + classes]`: centre, width and height in pixels of the network's input,
    /// objectness and class probabilities; levels, then anchors, then cells row by row.
    pub decoded: Tensor,
    /// The predictions before decoding, as [`Network::train`] gives them.
    pub raw: Vec<Tensor>,
}

/// A network with its parameters and running statistics.
pub struct Network {
    body: Body,
}

/// A network for inference: each convolution holds its normalisation.
pub struct FusedNetwork {
    body: Body,
}

struct Body {
    options: NetworkOptions,
    /// For each layer, the last layer that takes its output.
    last_use: Vec<usize>,
    /// For each layer, what it does in a row.
    blocks: Vec<Vec<Block<Tensor>>>,
    /// For each level, width and height of its anchors in pixels: `[anchors, 1, 1, 2]`. Made once, since tracing
    /// would not record where their numbers come from.
    anchors: Vec<Tensor>,
    /// For each level, the cells of the images that were evaluated last, see [`grid`]. Kept since tracing would write
    /// down on which device they are made; what is there already becomes a constant, which goes where the trace is
    /// loaded.
    grids: RefCell<Vec<Option<Tensor>>>,
    state: State,
}

impl Network {
    /// A network with YOLOv5's initial values, drawn from `seed` and each tensor's name.
    pub fn initialised(options: &NetworkOptions, seed: u64) -> Result<Self, Error> {
        let mut network = Self::blank(options)?;
        let slots = options.architecture.slots(Form::Trainable);
        network.body.state.initialise(&slots, seed)?;
        Ok(network)
    }

    /// A network for values that come from elsewhere: all tensors but the anchors are 0.
    pub fn blank(options: &NetworkOptions) -> Result<Self, Error> {
        let body = Body::new(options, Form::Trainable, Gradients::Collected)?;
        Ok(Self { body })
    }

    /// A network of the same values in its own memory; it collects no gradients.
    pub fn copy_of(&self) -> Result<Self, Error> {
        let mut body = Body::new(&self.body.options, Form::Trainable, Gradients::Refused)?;
        body.state.copy_from(&self.body.state)?;
        Ok(Self { body })
    }

    /// Which network this is.
    pub fn options(&self) -> &NetworkOptions {
        &self.body.options
    }

    /// Its tensors.
    pub fn state(&self) -> &State {
        &self.body.state
    }

    /// Its tensors, to take over others' values.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.body.state
    }

    /// Pixels `[images, 3, height, width]` of 0..=255, RGB, on any device, as this network's input:
    /// on its device, in its number format and layout, 0..=1. Costs least when the pixels already
    /// lie in the network's layout.
    pub fn input(&self, pixels: &Tensor) -> Result<Tensor, Error> {
        self.body.input(pixels)
    }

    /// Raw predictions `[images, anchors, height / stride, width / stride, 5 + classes]` of each level.
    /// Normalises by the batch, moves the running statistics towards it and records what the backward
    /// pass needs.
    pub fn train(&self, images: &Tensor) -> Result<Vec<Tensor>, Error> {
        self.train_by(images, Phase::Training)
    }

    /// The same, but normalises by the batches of all ranks, which all must call it.
    pub fn train_together(
        &self,
        images: &Tensor,
        ranks: SyncNorm<'_>,
    ) -> Result<Vec<Tensor>, Error> {
        self.train_by(images, Phase::Together(ranks))
    }

    fn train_by(&self, images: &Tensor, phase: Phase<'_>) -> Result<Vec<Tensor>, Error> {
        let raw = self.body.forward(images, phase)?;
        let mut counters = self.body.state.counters().shallow_clone();
        tch::no_grad(|| counters.f_add_scalar_(1).map(drop)).map_err(|source| Error::Copy {
            name: "num_batches_tracked".to_owned(),
            source,
        })?;
        Ok(raw)
    }

    /// Predictions by the running statistics, without a record for gradients.
    pub fn evaluate(&self, images: &Tensor) -> Result<Evaluated, Error> {
        self.body.evaluate(images)
    }

    /// Predictions for the images at three scales, at one of them mirrored (test-time augmentation); `raw` is that
    /// of the images as they are.
    pub fn evaluate_augmented(&self, images: &Tensor) -> Result<Evaluated, Error> {
        self.body.evaluate_augmented(images)
    }

    /// The same network with its normalisations folded into kernels and biases; it gives the same
    /// predictions as [`Network::evaluate`] up to rounding, faster.
    pub fn fuse(&self) -> Result<FusedNetwork, Error> {
        let body = Body::new(&self.body.options, Form::Fused, Gradients::Refused)?;
        tch::no_grad(|| fold(self.state(), &body.state))?;
        Ok(FusedNetwork { body })
    }
}

impl FusedNetwork {
    /// Which network this is.
    pub fn options(&self) -> &NetworkOptions {
        &self.body.options
    }

    /// Its tensors: kernels, biases and anchors.
    pub fn state(&self) -> &State {
        &self.body.state
    }

    /// As [`Network::input`].
    pub fn input(&self, pixels: &Tensor) -> Result<Tensor, Error> {
        self.body.input(pixels)
    }

    /// As [`Network::evaluate`].
    pub fn evaluate(&self, images: &Tensor) -> Result<Evaluated, Error> {
        self.body.evaluate(images)
    }

    /// As [`Network::evaluate_augmented`].
    pub fn evaluate_augmented(&self, images: &Tensor) -> Result<Evaluated, Error> {
        self.body.evaluate_augmented(images)
    }
}

impl Body {
    fn new(options: &NetworkOptions, form: Form, gradients: Gradients) -> Result<Self, Error> {
        let architecture = &options.architecture;
        let state = State::blank(&architecture.slots(form), options, gradients)?;
        let layers = architecture.layers();
        let mut finder = Finder {
            form,
            state: &state,
        };
        let blocks = layers
            .iter()
            .enumerate()
            .map(|(index, layer)| Block::of_layer(&mut finder, index, &layer.module, layer.repeats))
            .collect::<Result<_, _>>()?;
        let levels = architecture.levels().iter();
        let anchors = levels
            .map(|level| anchors_in_pixels(level, options))
            .collect::<Result<_, _>>()
            .map_err(|source| Error::Copy {
                name: "anchors in pixels".to_owned(),
                source,
            })?;
        Ok(Self {
            last_use: last_use(layers),
            grids: RefCell::new(architecture.levels().iter().map(|_| None).collect()),
            options: options.clone(),
            blocks,
            anchors,
            state,
        })
    }

    fn input(&self, pixels: &Tensor) -> Result<Tensor, Error> {
        let shape = pixels.size();
        self.check_shape(&shape)?;
        let NetworkOptions {
            device,
            kind,
            layout,
            ..
        } = self.options;
        let fail = |source| Error::Input {
            shape: shape.clone(),
            source,
        };
        // Bytes are moved and rearranged before they become four times as many.
        let pixels = pixels.f_to_device(device).map_err(fail)?;
        let pixels = match layout {
            Layout::ChannelsFirst => pixels.f_contiguous().map_err(fail)?,
            Layout::ChannelsLast => {
                torch_bridge::contiguous_channels_last(&pixels).map_err(|source| Error::Layout {
                    name: "images".to_owned(),
                    source,
                })?
            }
        };
        pixels
            .f_to_kind(kind)
            .and_then(|pixels| pixels.f_div_scalar(255.0))
            .map_err(fail)
    }

    fn forward(&self, images: &Tensor, phase: Phase<'_>) -> Result<Vec<Tensor>, Error> {
        let shape = images.size();
        self.check_shape(&shape)?;
        let mut kept: Vec<Vec<Tensor>> = Vec::with_capacity(self.blocks.len());
        let layers = self.options.architecture.layers();
        for (index, (layer, blocks)) in layers.iter().zip(&self.blocks).enumerate() {
            let inputs: Vec<&Tensor> = layer
                .from
                .iter()
                .flat_map(|from| from.map_or(std::slice::from_ref(images), |from| &kept[from]))
                .collect();
            let outputs = in_a_row(blocks, &inputs, phase).map_err(|source| Error::Layer {
                index,
                module: layer.name.clone(),
                images: shape.clone(),
                source,
            })?;
            for from in layer.from.iter().flatten() {
                if self.last_use[*from] == index {
                    kept[*from].clear();
                }
            }
            kept.push(outputs);
        }
        Ok(kept.pop().unwrap_or_default())
    }

    fn evaluate(&self, images: &Tensor) -> Result<Evaluated, Error> {
        tch::no_grad(|| {
            let raw = self.forward(images, Phase::Evaluation)?;
            let decoded = self.decode(&raw).map_err(|source| Error::Decode {
                images: images.size(),
                source,
            })?;
            Ok(Evaluated { decoded, raw })
        })
    }

    /// Boxes in pixels and probabilities (YOLOv5 v7.0): with s = sigmoid(raw), the centre is
    /// `(2s - 0.5 + cell) * stride`, the size `(2s)² * anchor`, the rest s.
    fn decode(&self, raw: &[Tensor]) -> Result<Tensor, TchError> {
        let kind = self.options.kind;
        let levels = self.options.architecture.levels().iter();
        let mut grids = self.grids.borrow_mut();
        let decoded = raw
            .iter()
            .zip(levels)
            .zip(&self.anchors)
            .zip(grids.iter_mut())
            .map(|(((raw, Level { stride, .. }), anchors), kept)| {
                let (images, _, height, width, outputs) = raw.size5()?;
                let fits = |grid: &Tensor| {
                    grid.device() == raw.device() && grid.size() == [height, width, 2]
                };
                let cell = match kept.take().filter(fits) {
                    Some(cell) => cell,
                    None => grid(height, width, (kind, raw.device()))?,
                };
                // A conversion that does nothing would bind a trace to this device.
                let s = if raw.kind() == kind {
                    raw.f_sigmoid()?
                } else {
                    raw.f_to_kind(kind)?.f_sigmoid()?
                };
                let double = s.f_narrow(-1, 0, 4)?.f_mul_scalar(2.0)?;
                let centre = double
                    .f_narrow(-1, 0, 2)?
                    .f_add(&cell)?
                    .f_mul_scalar(f64::from(*stride))?;
                *kept = Some(cell);
                let size = double.f_narrow(-1, 2, 2)?.f_square()?.f_mul(anchors)?;
                let rest = s.f_narrow(-1, 4, outputs - 4)?;
                Tensor::f_cat(&[centre, size, rest], -1)?.f_reshape([images, -1, outputs])
            })
            .collect::<Result<Vec<_>, _>>()?;
        Tensor::f_cat(&decoded, 1)
    }

    fn evaluate_augmented(&self, images: &Tensor) -> Result<Evaluated, Error> {
        self.check_shape(&images.size())?;
        let multiple = i64::from(self.options.architecture.multiple());
        augmented::evaluate(images, multiple, |view| self.evaluate(view))
    }

    fn check_shape(&self, shape: &[i64]) -> Result<(), Error> {
        let multiple = i64::from(self.options.architecture.multiple());
        let fits = |side: i64| side > 0 && side % multiple == 0;
        match *shape {
            [_, 3, height, width] if fits(height) && fits(width) => Ok(()),
            _ => Err(Error::ImageShape {
                shape: shape.to_vec(),
                multiple,
            }),
        }
    }
}

/// The outputs of blocks of which each takes what the one before gives.
fn in_a_row(
    blocks: &[Block<Tensor>],
    inputs: &[&Tensor],
    phase: Phase<'_>,
) -> Result<Vec<Tensor>, TchError> {
    let Some((first, rest)) = blocks.split_first() else {
        return Ok(Vec::new());
    };
    let mut outputs = first.forward(inputs, phase)?;
    for block in rest {
        let inputs: Vec<&Tensor> = outputs.iter().collect();
        outputs = block.forward(&inputs, phase)?;
    }
    Ok(outputs)
}

/// For each layer, the last one that takes its output; itself if none does.
fn last_use(layers: &[Layer]) -> Vec<usize> {
    let mut last_use: Vec<usize> = (0..layers.len()).collect();
    for (index, layer) in layers.iter().enumerate() {
        for from in layer.from.iter().flatten() {
            last_use[*from] = index;
        }
    }
    last_use
}

fn anchors_in_pixels(level: &Level, options: &NetworkOptions) -> Result<Tensor, TchError> {
    Tensor::f_from_slice(level.anchors.as_flattened())?
        .f_to_kind(options.kind)?
        .f_to_device(options.device)?
        .f_view([-1, 1, 1, 2])
}

/// The column and the row of each cell, less a half: `[height, width, 2]`.
fn grid(height: i64, width: i64, options: (Kind, Device)) -> Result<Tensor, TchError> {
    let axis = |length| Tensor::f_arange(length, options);
    let x = axis(width)?
        .f_view([1, width])?
        .f_expand([height, width], false)?;
    let y = axis(height)?
        .f_view([height, 1])?
        .f_expand([height, width], false)?;
    Tensor::f_stack(&[x, y], -1)?.f_sub_scalar(0.5)
}

/// Fills a fused network: `w' = w γ/√(σ²+ε)`, `b' = β - μ γ/√(σ²+ε)` where a convolution has a normalisation of its
/// own; everything else is copied.
fn fold(trained: &State, fused: &State) -> Result<(), Error> {
    let find = |name: String| {
        let entry = trained.get(&name).map(|entry| &entry.tensor);
        entry.ok_or(Error::StateMissing { name })
    };
    for entry in fused.entries() {
        let name = &entry.name;
        let mut target = entry.tensor.shallow_clone();
        let folded = ["conv.weight", "conv.bias"]
            .into_iter()
            .find_map(|end| name.strip_suffix(end));
        let Some(prefix) = folded else {
            let values = find(name.clone())?;
            target.f_copy_(values).map_err(|source| Error::Copy {
                name: name.clone(),
                source,
            })?;
            continue;
        };
        let norm = |part: &str| find(format!("{prefix}bn.{part}"));
        let (scale, shift) = (norm("weight")?, norm("bias")?);
        let (mean, variance) = (norm("running_mean")?, norm("running_var")?);
        let weight = find(format!("{prefix}conv.weight"))?;
        let mut fill = || {
            let factor = scale.f_div(&variance.f_add_scalar(NORM_EPS)?.f_sqrt()?)?;
            let values = match entry.role {
                Role::Weight => weight.f_mul(&factor.f_view([-1, 1, 1, 1])?)?,
                _ => shift.f_sub(&mean.f_mul(&factor)?)?,
            };
            target.f_copy_(&values)
        };
        fill().map_err(|source| Error::Fuse {
            name: name.clone(),
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
