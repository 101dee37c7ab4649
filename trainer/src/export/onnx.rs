//! ONNX: the network node by node, operator set 12.

mod activation;
mod detect;
mod modules;
mod transformer;

use tch::Tensor;
use trainer_formats::onnx::{Attribute, Number, OnnxBuilder, Side};
use trainer_model::architecture::{Architecture, Form, Layer};
use trainer_model::network::Network;

use super::{ExportError, Input, python_names, stride};
use crate::checkpoint::NamedTensors;
use crate::weights::WeightsInfo;

pub use detect::Suppression;

type Result<T> = std::result::Result<T, ExportError>;

/// What the model's ends and nodes are to be.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The images it is made for.
    pub input: Input,
    /// Whether normalisations are folded into convolutions or nodes of their own.
    pub form: Form,
    /// The numbers of weights, images and predictions.
    pub number: Number,
    /// How the model itself picks detections; without it, its output is predictions.
    pub suppression: Option<Suppression>,
}

/// The bytes of a model with the input `images` (RGB, 0 to 1). Its output is `output0`, boxes in pixels and
/// probabilities as `Network::evaluate` gives them, or `detections`, see [`Suppression`].
pub fn bytes(network: &Network, info: &WeightsInfo, settings: Settings) -> Result<Vec<u8>> {
    let state = match settings.form {
        Form::Fused => network.fuse()?.state().export()?,
        Form::Trainable => network.state().export()?,
    };
    let architecture = &network.options().architecture;
    let mut emitter = Emitter {
        onnx: OnnxBuilder::default(),
        state: state.into_iter().collect(),
        architecture,
        settings,
    };
    let input = settings.input;
    let sides = vec![
        emitter.free("batch", input.images),
        Side::Fixed(3),
        emitter.free("height", input.side),
        emitter.free("width", input.side),
    ];
    emitter.onnx.input("images", settings.number, sides);

    let mut outputs: Vec<String> = Vec::new();
    for (index, layer) in architecture.layers().iter().enumerate() {
        let sources = layer.from.iter();
        let inputs: Vec<String> = sources
            .map(|from| from.map_or("images".to_owned(), |from| outputs[from].clone()))
            .collect();
        outputs.push(emitter.layer(index, layer, inputs)?);
    }
    let metadata = [
        ("stride", stride(architecture).to_string()),
        ("names", python_names(&info.names)),
    ];
    Ok(emitter.onnx.finish(info.model.name(), &metadata))
}

struct Emitter<'a> {
    onnx: OnnxBuilder,
    state: NamedTensors,
    architecture: &'a Architecture,
    settings: Settings,
}

impl Emitter<'_> {
    /// A side that the user may have let free.
    fn free(&self, name: &str, number: i64) -> Side {
        if self.settings.input.dynamic {
            Side::Free(name.to_owned())
        } else {
            Side::Fixed(number)
        }
    }

    fn layer(&mut self, index: usize, layer: &Layer, mut x: Vec<String>) -> Result<String> {
        let place = format!("model.{index}");
        if layer.repeats == 1 {
            return self.module(&place, &layer.module, &x);
        }
        for repeat in 0..layer.repeats {
            x = vec![self.module(&format!("{place}.{repeat}"), &layer.module, &x)?];
        }
        Ok(x.swap_remove(0))
    }

    /// `x` as numbers of another kind; only single precision is ever made of half, or half of it.
    fn cast(&mut self, x: &str, number: Number) -> String {
        if self.settings.number == Number::Float {
            return x.to_owned();
        }
        let to = vec![("to", Attribute::Int(number.code()))];
        self.onnx.node("Cast", &[x], to)
    }

    /// A constant of the model's kind of numbers.
    fn numbers(&mut self, dims: &[i64], numbers: &[f32]) -> String {
        let numbers = self.onnx.floats(dims, numbers);
        self.cast(&numbers, self.settings.number)
    }

    /// The tensor of the state called `name`.
    fn tensor(&self, name: &str) -> Result<Tensor> {
        let tensor = self.state.get(name).map(Tensor::shallow_clone);
        Ok(tensor.ok_or_else(|| trainer_model::Error::StateMissing {
            name: name.to_owned(),
        })?)
    }

    /// The tensor of the state called `name`, as a constant.
    fn weights(&mut self, name: &str) -> Result<String> {
        let tensor = self.tensor(name)?;
        self.constant(name, &tensor)
    }

    /// `tensor` as a constant of the model's kind of numbers.
    fn constant(&mut self, name: &str, tensor: &Tensor) -> Result<String> {
        let kind = match self.settings.number {
            Number::Float => tch::Kind::Float,
            Number::Half => tch::Kind::Half,
        };
        let copy = || {
            let tensor = tensor.f_to_kind(kind)?.f_contiguous()?;
            let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
            Ok(bytes)
        };
        let bytes = copy().map_err(|source| trainer_model::Error::Copy {
            name: name.to_owned(),
            source,
        })?;
        let number = self.settings.number;
        Ok(self.onnx.tensor(name, number, tensor.size(), bytes))
    }
}
