//! ONNX: the network with folded normalisations, node by node, operator set 12.

use tch::Tensor;
use trainer_formats::onnx::{Attribute, OnnxBuilder, Side};
use trainer_model::architecture::{
    Activation, Architecture, Bottleneck, Convolution, Csp, Inner, Interpolation, Layer, Level,
    Module, Window,
};
use trainer_model::network::Network;

use super::{ExportError, Input, largest_stride, python_names};
use crate::checkpoint::NamedTensors;
use crate::weights::WeightsInfo;

type Result<T> = std::result::Result<T, ExportError>;

/// The bytes of a model with the input `images` and the output `output0`: boxes in pixels and probabilities, as
/// `Network::evaluate` gives them.
pub fn bytes(network: &Network, info: &WeightsInfo, input: Input) -> Result<Vec<u8>> {
    let fused = network.fuse()?;
    let architecture = &fused.options().architecture;
    let mut emitter = Emitter {
        onnx: OnnxBuilder::default(),
        state: fused.state().export()?.into_iter().collect(),
        input,
    };
    let free = |name: &str, number: i64| {
        if input.dynamic {
            Side::Free(name.to_owned())
        } else {
            Side::Fixed(number)
        }
    };
    let (batch, side) = (free("batch", input.images), input.side);
    let sides = vec![
        batch.clone(),
        Side::Fixed(3),
        free("height", side),
        free("width", side),
    ];
    emitter.onnx.input("images", sides);

    let mut outputs: Vec<String> = Vec::new();
    for (index, layer) in architecture.layers().iter().enumerate() {
        let sources = layer.from.iter();
        let inputs: Vec<String> = sources
            .map(|from| from.map_or("images".to_owned(), |from| outputs[from].clone()))
            .collect();
        let output = emitter.layer(architecture, index, layer, &inputs)?;
        outputs.push(output);
    }
    let cells = |level: &Level| (side / i64::from(level.stride)).pow(2);
    let rows: i64 = architecture.levels().iter().map(cells).sum();
    let rows = rows * architecture.anchors_per_level() as i64;
    let outputs = Side::Fixed(architecture.outputs_per_anchor());
    emitter
        .onnx
        .output("output0", vec![batch, free("anchors", rows), outputs]);
    let metadata = [
        ("stride", largest_stride(architecture.levels()).to_string()),
        ("names", python_names(&info.names)),
    ];
    Ok(emitter.onnx.finish(info.model.name(), &metadata))
}

struct Emitter {
    onnx: OnnxBuilder,
    state: NamedTensors,
    input: Input,
}

impl Emitter {
    fn layer(
        &mut self,
        architecture: &Architecture,
        index: usize,
        layer: &Layer,
        inputs: &[String],
    ) -> Result<String> {
        let place = format!("model.{index}");
        if let Module::Detect { .. } = layer.module {
            return self.detect(&place, architecture, inputs);
        }
        let mut x = inputs.to_vec();
        for repeat in 0..layer.repeats {
            let place = if layer.repeats == 1 {
                place.clone()
            } else {
                format!("{place}.{repeat}")
            };
            let made = self.module(&place, &layer.module, &x)?;
            x = vec![made.ok_or_else(|| ExportError::Module {
                index,
                module: layer.name.clone(),
                format: "onnx",
            })?];
        }
        Ok(x.swap_remove(0))
    }

    /// The output of a module; `None` if it cannot be written.
    fn module(
        &mut self,
        place: &str,
        module: &Module,
        inputs: &[String],
    ) -> Result<Option<String>> {
        let x = inputs[0].as_str();
        Ok(Some(match module {
            Module::Conv {
                convolution,
                activation,
            } => self.conv(place, *convolution, *activation, x)?,
            Module::Focus {
                convolution,
                activation,
            } => {
                let x = self.focus(x);
                self.conv(&format!("{place}.conv"), *convolution, *activation, &x)?
            }
            Module::Bottleneck(settings) => self.bottleneck(place, settings, x)?,
            Module::C3(csp) => return self.c3(place, csp, x),
            Module::Spp(pyramid) | Module::Sppf(pyramid) => {
                let chained = matches!(module, Module::Sppf(_));
                let hidden = pyramid.input / 2;
                let first = Convolution::new(pyramid.input, hidden, 1, 1);
                let first = self.conv(&format!("{place}.cv1"), first, pyramid.activation, x)?;
                let mut all = vec![first.clone()];
                let windows = pyramid.kernels.iter().copied();
                let windows: Vec<i64> = if chained {
                    windows.cycle().take(3).collect()
                } else {
                    windows.collect()
                };
                for side in windows {
                    let window = Window {
                        kernel: [side; 2],
                        stride: [1; 2],
                        padding: [side / 2; 2],
                    };
                    let from = if chained { all.last().cloned() } else { None };
                    let pooled = self.max_pool(window, &from.unwrap_or_else(|| first.clone()));
                    all.push(pooled);
                }
                let second = Convolution::new(hidden * all.len() as i64, pyramid.output, 1, 1);
                let joined = self.concat(&all, 1);
                self.conv(&format!("{place}.cv2"), second, pyramid.activation, &joined)?
            }
            Module::Upsample {
                factor,
                interpolation,
            } => self.upsample(*factor, *interpolation, x),
            Module::Concat => self.concat(inputs, 1),
            Module::MaxPool(window) => self.max_pool(*window, x),
            Module::Conv2d { convolution, bias } => self.conv2d(place, *convolution, *bias, x)?,
            Module::Activation(activation) => self.activate(*activation, x),
            Module::Cross(_)
            | Module::BottleneckCsp(_)
            | Module::Ghost(_)
            | Module::GhostBottleneck(_)
            | Module::Contract { .. }
            | Module::Expand { .. }
            | Module::AvgPool(_)
            | Module::BatchNorm { .. }
            | Module::Detect { .. } => return Ok(None),
        }))
    }

    /// The tensor of the state called `name`, as a constant.
    fn weights(&mut self, name: &str) -> Result<String> {
        let tensor = self.state.get(name).map(Tensor::shallow_clone);
        let tensor = tensor.ok_or_else(|| trainer_model::Error::StateMissing {
            name: name.to_owned(),
        })?;
        let mut bytes = vec![0; tensor.numel() * size_of::<f32>()];
        tensor
            .f_copy_data_u8(&mut bytes, tensor.numel())
            .map_err(|source| trainer_model::Error::Copy {
                name: name.to_owned(),
                source,
            })?;
        Ok(self.onnx.tensor(name, tensor.size(), bytes))
    }

    fn conv2d(
        &mut self,
        place: &str,
        convolution: Convolution,
        bias: bool,
        x: &str,
    ) -> Result<String> {
        let weight = self.weights(&format!("{place}.weight"))?;
        let mut inputs = vec![x, &weight];
        let bias = if bias {
            Some(self.weights(&format!("{place}.bias"))?)
        } else {
            None
        };
        inputs.extend(bias.as_deref());
        let [rows, columns] = convolution.padding;
        let attributes = vec![
            ("kernel_shape", Attribute::Ints(convolution.kernel.to_vec())),
            ("strides", Attribute::Ints(convolution.stride.to_vec())),
            ("pads", Attribute::Ints(vec![rows, columns, rows, columns])),
            ("dilations", Attribute::Ints(convolution.dilation.to_vec())),
            ("group", Attribute::Int(convolution.groups)),
        ];
        Ok(self.onnx.node("Conv", &inputs, attributes))
    }

    fn conv(
        &mut self,
        place: &str,
        convolution: Convolution,
        activation: Activation,
        x: &str,
    ) -> Result<String> {
        let x = self.conv2d(&format!("{place}.conv"), convolution, true, x)?;
        Ok(self.activate(activation, &x))
    }

    fn bottleneck(&mut self, place: &str, settings: &Bottleneck, x: &str) -> Result<String> {
        let Bottleneck {
            input,
            output,
            hidden,
            groups,
            shortcut,
            activation,
        } = *settings;
        let first = Convolution::new(input, hidden, 1, 1);
        let second = Convolution::new(hidden, output, 3, 1).grouped(groups);
        let inner = self.conv(&format!("{place}.cv1"), first, activation, x)?;
        let inner = self.conv(&format!("{place}.cv2"), second, activation, &inner)?;
        Ok(if shortcut && input == output {
            self.onnx.node("Add", &[x, &inner], vec![])
        } else {
            inner
        })
    }

    fn c3(&mut self, place: &str, csp: &Csp, x: &str) -> Result<Option<String>> {
        let Inner::Bottlenecks {
            repeats,
            shortcut,
            groups,
        } = csp.inner
        else {
            return Ok(None);
        };
        let inner = Bottleneck {
            input: csp.hidden,
            output: csp.hidden,
            hidden: csp.hidden,
            groups,
            shortcut,
            activation: csp.activation,
        };
        let narrow = Convolution::new(csp.input, csp.hidden, 1, 1);
        let mut branch = self.conv(&format!("{place}.cv1"), narrow, csp.activation, x)?;
        for repeat in 0..repeats {
            branch = self.bottleneck(&format!("{place}.m.{repeat}"), &inner, &branch)?;
        }
        let past = self.conv(&format!("{place}.cv2"), narrow, csp.activation, x)?;
        let joined = self.concat(&[branch, past], 1);
        let last = Convolution::new(2 * csp.hidden, csp.output, 1, 1);
        self.conv(&format!("{place}.cv3"), last, csp.activation, &joined)
            .map(Some)
    }

    fn concat(&mut self, inputs: &[String], axis: i64) -> String {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.onnx
            .node("Concat", &inputs, vec![("axis", Attribute::Int(axis))])
    }

    fn max_pool(&mut self, window: Window, x: &str) -> String {
        let [rows, columns] = window.padding;
        let attributes = vec![
            ("kernel_shape", Attribute::Ints(window.kernel.to_vec())),
            ("strides", Attribute::Ints(window.stride.to_vec())),
            ("pads", Attribute::Ints(vec![rows, columns, rows, columns])),
        ];
        self.onnx.node("MaxPool", &[x], attributes)
    }

    fn upsample(&mut self, factor: i64, interpolation: Interpolation, x: &str) -> String {
        let scales = self
            .onnx
            .floats(&[4], &[1.0, 1.0, factor as f32, factor as f32]);
        let attributes = match interpolation {
            Interpolation::Nearest => vec![
                ("mode", Attribute::Word("nearest")),
                (
                    "coordinate_transformation_mode",
                    Attribute::Word("asymmetric"),
                ),
                ("nearest_mode", Attribute::Word("floor")),
            ],
            Interpolation::Bilinear => vec![
                ("mode", Attribute::Word("linear")),
                (
                    "coordinate_transformation_mode",
                    Attribute::Word("half_pixel"),
                ),
            ],
        };
        let roi = self.onnx.floats(&[0], &[]);
        self.onnx.node("Resize", &[x, &roi, &scales], attributes)
    }

    /// Every second cell in four ways: rows and columns from 0 and 0, 1 and 0, 0 and 1, 1 and 1.
    fn focus(&mut self, x: &str) -> String {
        let parts: Vec<String> = [[0, 0], [1, 0], [0, 1], [1, 1]]
            .iter()
            .map(|start| {
                let starts = self.onnx.ints(start);
                let ends = self.onnx.ints(&[i64::MAX; 2]);
                let axes = self.onnx.ints(&[2, 3]);
                let steps = self.onnx.ints(&[2, 2]);
                self.onnx
                    .node("Slice", &[x, &starts, &ends, &axes, &steps], vec![])
            })
            .collect();
        self.concat(&parts, 1)
    }

    fn activate(&mut self, activation: Activation, x: &str) -> String {
        let onnx = &mut self.onnx;
        match activation {
            Activation::Silu => {
                let gate = onnx.node("Sigmoid", &[x], vec![]);
                onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Relu => onnx.node("Relu", &[x], vec![]),
            Activation::Relu6 => {
                let (low, high) = (onnx.floats(&[], &[0.0]), onnx.floats(&[], &[6.0]));
                onnx.node("Clip", &[x, &low, &high], vec![])
            }
            Activation::LeakyRelu(slope) => onnx.node(
                "LeakyRelu",
                &[x],
                vec![("alpha", Attribute::Float(slope as f32))],
            ),
            Activation::Hardswish => {
                let alpha = ("alpha", Attribute::Float(1.0 / 6.0));
                let gate = onnx.node(
                    "HardSigmoid",
                    &[x],
                    vec![alpha, ("beta", Attribute::Float(0.5))],
                );
                onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Mish => {
                let soft = onnx.node("Softplus", &[x], vec![]);
                let gate = onnx.node("Tanh", &[&soft], vec![]);
                onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Gelu => {
                let root = onnx.floats(&[], &[std::f32::consts::FRAC_1_SQRT_2]);
                let (one, half) = (onnx.floats(&[], &[1.0]), onnx.floats(&[], &[0.5]));
                let scaled = onnx.node("Mul", &[x, &root], vec![]);
                let erf = onnx.node("Erf", &[&scaled], vec![]);
                let sum = onnx.node("Add", &[&erf, &one], vec![]);
                let gate = onnx.node("Mul", &[&sum, &half], vec![]);
                onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Elu(alpha) => {
                onnx.node("Elu", &[x], vec![("alpha", Attribute::Float(alpha as f32))])
            }
            Activation::Identity => x.to_owned(),
        }
    }

    /// Boxes and probabilities: see `trainer_model::network` for the formulas.
    fn detect(
        &mut self,
        place: &str,
        architecture: &Architecture,
        inputs: &[String],
    ) -> Result<String> {
        let (anchors, outputs) = (
            architecture.anchors_per_level() as i64,
            architecture.outputs_per_anchor(),
        );
        let mut levels = Vec::new();
        for (number, (level, x)) in architecture.levels().iter().zip(inputs).enumerate() {
            let channels = self.state.get(&format!("{place}.m.{number}.weight"));
            let channels = channels.map_or(0, |weight| weight.size()[1]);
            let head = Convolution::new(channels, anchors * outputs, 1, 1);
            let raw = self.conv2d(&format!("{place}.m.{number}"), head, true, x)?;
            levels.push(self.decode(level, anchors, outputs, &raw));
        }
        let inputs: Vec<&str> = levels.iter().map(String::as_str).collect();
        self.onnx.named(
            "Concat",
            &inputs,
            "output0",
            vec![("axis", Attribute::Int(1))],
        );
        Ok("output0".to_owned())
    }

    fn decode(&mut self, level: &Level, anchors: i64, outputs: i64, raw: &str) -> String {
        let [height, width] = self.cells(level, raw);
        let shape = if let (Some(height), Some(width)) = (&height.length, &width.length) {
            let front = self.onnx.ints(&[0, anchors, outputs]);
            self.concat(&[front, height.clone(), width.clone()], 0)
        } else {
            let side = self.input.side / i64::from(level.stride);
            self.onnx.ints(&[0, anchors, outputs, side, side])
        };
        let onnx = &mut self.onnx;
        let x = onnx.node("Reshape", &[raw, &shape], vec![]);
        let order = ("perm", Attribute::Ints(vec![0, 1, 3, 4, 2]));
        let x = onnx.node("Transpose", &[&x], vec![order]);
        let x = onnx.node("Sigmoid", &[&x], vec![]);
        let parts = ("split", Attribute::Ints(vec![1, 1, 2, outputs - 4]));
        let parts = onnx.nodes("Split", &[&x], 4, vec![parts, ("axis", Attribute::Int(4))]);

        let two = onnx.floats(&[], &[2.0]);
        let stride = onnx.floats(&[], &[level.stride as f32]);
        let mut decoded: Vec<String> = [(&parts[0], &width.cells), (&parts[1], &height.cells)]
            .into_iter()
            .map(|(centre, cells)| {
                let double = onnx.node("Mul", &[centre, &two], vec![]);
                let moved = onnx.node("Add", &[&double, cells], vec![]);
                onnx.node("Mul", &[&moved, &stride], vec![])
            })
            .collect();
        let sizes = onnx.floats(&[1, anchors, 1, 1, 2], level.anchors.as_flattened());
        let double = onnx.node("Mul", &[&parts[2], &two], vec![]);
        let square = onnx.node("Mul", &[&double, &double], vec![]);
        decoded.push(onnx.node("Mul", &[&square, &sizes], vec![]));
        decoded.push(parts[3].clone());
        let joined = self.concat(&decoded, 4);
        let rows = self.onnx.ints(&[0, -1, outputs]);
        self.onnx.node("Reshape", &[&joined, &rows], vec![])
    }

    /// The numbers of the rows and of the columns of cells, each minus a half, ready to be added to
    /// `[images, anchors, height, width, 1]`.
    fn cells(&mut self, level: &Level, raw: &str) -> [Axis; 2] {
        let side = self.input.side / i64::from(level.stride);
        // Which side of `raw`, and where the numbers lie in the result.
        [(2, [1, 1, -1, 1, 1]), (3, [1, 1, 1, -1, 1])].map(|(axis, place)| {
            if !self.input.dynamic {
                let shape = place.map(|length| if length < 0 { side } else { length });
                let numbers: Vec<f32> = (0..side).map(|cell| cell as f32 - 0.5).collect();
                let cells = self.onnx.floats(&shape, &numbers);
                return Axis {
                    cells,
                    length: None,
                };
            }
            let onnx = &mut self.onnx;
            let sides = onnx.node("Shape", &[raw], vec![]);
            let index = onnx.ints(&[axis]);
            let length = onnx.node("Gather", &[&sides, &index], vec![]);
            let scalar = onnx.node(
                "Squeeze",
                &[&length],
                vec![("axes", Attribute::Ints(vec![0]))],
            );
            let (zero, one) = (onnx.int(0), onnx.int(1));
            let numbers = onnx.node("Range", &[&zero, &scalar, &one], vec![]);
            let numbers = onnx.node("Cast", &[&numbers], vec![("to", Attribute::Int(1))]);
            let half = onnx.floats(&[], &[0.5]);
            let numbers = onnx.node("Sub", &[&numbers, &half], vec![]);
            let place = onnx.ints(&place);
            let cells = onnx.node("Reshape", &[&numbers, &place], vec![]);
            Axis {
                cells,
                length: Some(length),
            }
        })
    }
}

/// The cells along one side of a level.
struct Axis {
    /// Their numbers minus a half.
    cells: String,
    /// How many, where the model itself must find out.
    length: Option<String>,
}
