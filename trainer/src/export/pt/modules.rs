//! The modules of a network as objects of Python classes.

mod compound;

use trainer_formats::pickle::Py;
use trainer_model::architecture::{
    Activation, Architecture, CHAIN, Convolution, Interpolation, Module, NORM_EPS, NORM_MOMENTUM,
    Window,
};

use super::Tensors;
use crate::export::ExportError;

/// Attributes that every module of `PyTorch` has and that are empty here.
const HOOKS: [&str; 11] = [
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
];
/// Of batch normalisation, as YOLOv5 sets them.
const NORM: [(&str, f64); 2] = [("eps", NORM_EPS), ("momentum", NORM_MOMENTUM)];

type Result<T> = std::result::Result<T, ExportError>;
type Named = Vec<(String, Py)>;

/// An object in the making.
pub struct Parts {
    module: &'static str,
    class: &'static str,
    attributes: Named,
    parameters: Named,
    buffers: Named,
    modules: Named,
}

/// An object of a class, so far with nothing in it.
pub fn object(module: &'static str, class: &'static str) -> Parts {
    Parts {
        module,
        class,
        attributes: Vec::new(),
        parameters: Vec::new(),
        buffers: Vec::new(),
        modules: Vec::new(),
    }
}

impl Parts {
    /// With attributes.
    pub fn with<const N: usize>(mut self, attributes: [(&str, Py); N]) -> Self {
        let named = attributes.map(|(name, value)| (name.to_owned(), value));
        self.attributes.extend(named);
        self
    }

    /// With modules in it.
    pub fn parts(mut self, modules: Named) -> Self {
        self.modules.extend(modules);
        self
    }

    /// With a module in it.
    fn part(self, name: &str, module: Self) -> Self {
        self.parts(vec![(name.to_owned(), module.finish())])
    }

    /// The object.
    pub fn finish(self) -> Py {
        let dict = |named: Named| {
            let pairs = named
                .into_iter()
                .map(|(name, value)| (Py::Text(name), value));
            Py::Dict(pairs.collect())
        };
        let mut attributes = vec![
            ("training".to_owned(), Py::Bool(true)),
            ("_parameters".to_owned(), dict(self.parameters)),
            ("_buffers".to_owned(), dict(self.buffers)),
            ("_non_persistent_buffers_set".to_owned(), Py::EmptySet),
            ("_is_full_backward_hook".to_owned(), Py::None),
        ];
        attributes.extend(HOOKS.map(|name| (name.to_owned(), Py::EmptyOrderedDict)));
        attributes.push(("_modules".to_owned(), dict(self.modules)));
        attributes.extend(self.attributes);
        Py::Object {
            module: self.module.to_owned(),
            class: self.class.to_owned(),
            attributes,
        }
    }
}

/// The object of a layer.
pub fn module(tensors: &mut Tensors, architecture: &Architecture, index: usize) -> Result<Parts> {
    let layer = &architecture.layers()[index];
    let mut maker = Maker {
        tensors,
        architecture,
    };
    let place = format!("model.{index}");
    let (made, kind) = if layer.repeats == 1 {
        maker.module(&place, &layer.module)?
    } else {
        let mut repeats = Vec::new();
        let mut kind = String::new();
        for repeat in 0..layer.repeats {
            let (made, of_one) = maker.module(&format!("{place}.{repeat}"), &layer.module)?;
            repeats.push((repeat.to_string(), made.finish()));
            kind = of_one;
        }
        (sequential(repeats), kind)
    };
    Ok(made.with([("type", Py::Text(kind))]))
}

struct Maker<'a> {
    tensors: &'a mut Tensors,
    architecture: &'a Architecture,
}

impl Maker<'_> {
    /// The object of a module whose tensors are at `place`, and the full name of its class.
    fn module(&mut self, place: &str, module: &Module) -> Result<(Parts, String)> {
        let made = match module {
            Module::Conv {
                convolution,
                activation,
            } => self.conv(place, *convolution, *activation)?,
            Module::Focus {
                convolution,
                activation,
            } => {
                let conv = self.conv(&format!("{place}.conv"), *convolution, *activation)?;
                common("Focus").part("conv", conv)
            }
            Module::Bottleneck(settings) => self.adding("Bottleneck", place, &settings.pair())?,
            Module::Cross(settings) => self.adding("CrossConv", place, &settings.pair())?,
            Module::C3(csp) => self.c3(place, csp)?,
            Module::BottleneckCsp(csp) => self.bottleneck_csp(place, csp)?,
            Module::Spp(pyramid) => self.spp(place, pyramid)?,
            Module::Sppf(pyramid) => {
                let side = pyramid.kernels.first().copied().unwrap_or(1);
                let convolutions = pyramid.convolutions(CHAIN);
                self.pair("SPPF", place, convolutions, pyramid.activation)?
                    .part("m", max_pool(Window::keeping(side)))
            }
            Module::Ghost(ghost) => self.ghost(place, ghost)?,
            Module::GhostBottleneck(ghost) => self.ghost_bottleneck(place, ghost)?,
            Module::Upsample {
                factor,
                interpolation,
            } => upsample(*factor, *interpolation),
            Module::Concat => common("Concat").with([("d", Py::Int(1))]),
            Module::MaxPool(window) => max_pool(*window),
            Module::Conv2d { convolution, bias } => self.conv2d(place, *convolution, *bias)?,
            Module::BatchNorm { channels } => self.batch_norm(place, *channels)?,
            Module::Activation(activation) => activate(*activation),
            Module::Detect { inputs, .. } => self.detect(place, inputs)?,
            Module::Contract { gain } => common("Contract").with([("gain", Py::Int(*gain))]),
            Module::Expand { gain } => common("Expand").with([("gain", Py::Int(*gain))]),
            Module::AvgPool(window) => avg_pool(*window),
        };
        let kind = format!("{}.{}", made.module, made.class);
        Ok((made, kind))
    }

    fn conv(
        &mut self,
        place: &str,
        convolution: Convolution,
        activation: Activation,
    ) -> Result<Parts> {
        let conv = self.conv2d(&format!("{place}.conv"), convolution, false)?;
        let norm = self.batch_norm(&format!("{place}.bn"), convolution.output)?;
        let act = activate(activation);
        Ok(common("Conv")
            .part("conv", conv)
            .part("bn", norm)
            .part("act", act))
    }

    fn conv2d(&mut self, place: &str, convolution: Convolution, bias: bool) -> Result<Parts> {
        let Convolution {
            input,
            output,
            kernel,
            stride,
            padding,
            dilation,
            groups,
        } = convolution;
        let mut made = object("torch.nn.modules.conv", "Conv2d").with([
            ("in_channels", Py::Int(input)),
            ("out_channels", Py::Int(output)),
            ("kernel_size", pair(kernel)),
            ("stride", pair(stride)),
            ("padding", pair(padding)),
            ("dilation", pair(dilation)),
            ("transposed", Py::Bool(false)),
            ("output_padding", pair([0; 2])),
            ("groups", Py::Int(groups)),
            ("padding_mode", "zeros".into()),
            (
                "_reversed_padding_repeated_twice",
                Py::Tuple(
                    [padding[1], padding[1], padding[0], padding[0]]
                        .map(Py::Int)
                        .to_vec(),
                ),
            ),
        ]);
        let weight = self.tensors.of_state(&format!("{place}.weight"), true)?;
        let bias = if bias {
            self.tensors.of_state(&format!("{place}.bias"), true)?
        } else {
            Py::None
        };
        made.parameters = vec![("weight".to_owned(), weight), ("bias".to_owned(), bias)];
        Ok(made)
    }

    fn batch_norm(&mut self, place: &str, channels: i64) -> Result<Parts> {
        let mut made = object("torch.nn.modules.batchnorm", "BatchNorm2d")
            .with(NORM.map(|(name, value)| (name, Py::Float(value))))
            .with([
                ("num_features", Py::Int(channels)),
                ("affine", Py::Bool(true)),
                ("track_running_stats", Py::Bool(true)),
            ]);
        for name in ["weight", "bias"] {
            let tensor = self.tensors.of_state(&format!("{place}.{name}"), true)?;
            made.parameters.push((name.to_owned(), tensor));
        }
        for name in ["running_mean", "running_var", "num_batches_tracked"] {
            let tensor = self.tensors.of_state(&format!("{place}.{name}"), false)?;
            made.buffers.push((name.to_owned(), tensor));
        }
        Ok(made)
    }

    fn detect(&mut self, place: &str, inputs: &[i64]) -> Result<Parts> {
        let architecture = self.architecture;
        let levels = architecture.levels();
        let anchors = architecture.anchors_per_level() as i64;
        let outputs = architecture.outputs_per_anchor();
        let heads = inputs.iter().enumerate().map(|(level, input)| {
            let convolution = Convolution::new(*input, anchors * outputs, 1, 1);
            Ok(self
                .conv2d(&format!("{place}.m.{level}"), convolution, true)?
                .finish())
        });
        let heads = numbered(heads.collect::<Result<_>>()?);
        let strides: Vec<f32> = levels.iter().map(|level| level.stride as f32).collect();
        let mut empty = || {
            Py::List(
                levels
                    .iter()
                    .map(|_| self.tensors.of_numbers(&[]))
                    .collect(),
            )
        };
        let mut made = object("models.yolo", "Detect").with([
            ("nc", Py::Int(architecture.classes() as i64)),
            ("no", Py::Int(outputs)),
            ("nl", Py::Int(levels.len() as i64)),
            ("na", Py::Int(anchors)),
            ("grid", empty()),
            ("anchor_grid", empty()),
            ("inplace", Py::Bool(true)),
            ("stride", self.tensors.of_numbers(&strides)),
        ]);
        let anchors = self.tensors.of_state(&format!("{place}.anchors"), false)?;
        made.buffers.push(("anchors".to_owned(), anchors));
        Ok(made.part(
            "m",
            object("torch.nn.modules.container", "ModuleList").parts(heads),
        ))
    }
}

fn common(class: &'static str) -> Parts {
    object("models.common", class)
}

fn sequential(modules: Named) -> Parts {
    object("torch.nn.modules.container", "Sequential").parts(modules)
}

fn numbered(modules: Vec<Py>) -> Named {
    let each = modules.into_iter().enumerate();
    each.map(|(number, module)| (number.to_string(), module))
        .collect()
}

fn pair(numbers: [i64; 2]) -> Py {
    Py::Tuple(numbers.map(Py::Int).to_vec())
}

fn max_pool(window: Window) -> Parts {
    object("torch.nn.modules.pooling", "MaxPool2d").with([
        ("kernel_size", pair(window.kernel)),
        ("stride", pair(window.stride)),
        ("padding", pair(window.padding)),
        ("dilation", Py::Int(1)),
        ("return_indices", Py::Bool(false)),
        ("ceil_mode", Py::Bool(false)),
    ])
}

fn avg_pool(window: Window) -> Parts {
    object("torch.nn.modules.pooling", "AvgPool2d").with([
        ("kernel_size", pair(window.kernel)),
        ("stride", pair(window.stride)),
        ("padding", pair(window.padding)),
        ("ceil_mode", Py::Bool(false)),
        ("count_include_pad", Py::Bool(true)),
        ("divisor_override", Py::None),
    ])
}

fn upsample(factor: i64, interpolation: Interpolation) -> Parts {
    let mode = match interpolation {
        Interpolation::Nearest => "nearest",
        Interpolation::Bilinear => "bilinear",
    };
    object("torch.nn.modules.upsampling", "Upsample").with([
        ("name", "Upsample".into()),
        ("size", Py::None),
        ("scale_factor", Py::Float(factor as f64)),
        ("mode", mode.into()),
        ("align_corners", Py::None),
        ("recompute_scale_factor", Py::None),
    ])
}

fn activate(activation: Activation) -> Parts {
    let of = |class| object("torch.nn.modules.activation", class);
    let inplace = |class| of(class).with([("inplace", Py::Bool(true))]);
    match activation {
        Activation::Silu => inplace("SiLU"),
        Activation::Relu => inplace("ReLU"),
        Activation::Relu6 => {
            inplace("ReLU6").with([("min_val", Py::Float(0.0)), ("max_val", Py::Float(6.0))])
        }
        Activation::LeakyRelu(slope) => {
            inplace("LeakyReLU").with([("negative_slope", Py::Float(slope))])
        }
        Activation::Hardswish => inplace("Hardswish"),
        Activation::Mish => inplace("Mish"),
        Activation::Gelu => of("GELU").with([("approximate", "none".into())]),
        Activation::Elu(alpha) => inplace("ELU").with([("alpha", Py::Float(alpha))]),
        Activation::Identity => object("torch.nn.modules.linear", "Identity"),
    }
}
