//! Modules as nodes.

use trainer_formats::onnx::Attribute;
use trainer_model::architecture::{
    Activation, Branch, CHAIN, Convolution, Csp, Form, Ghost, GhostBottleneck, Interpolation,
    Module, NORM_EPS, Pair, Pyramid, Window,
};

use super::{Emitter, Result};

impl Emitter<'_> {
    /// The output of a module whose tensors are at `place`.
    pub(super) fn module(
        &mut self,
        place: &str,
        module: &Module,
        inputs: &[String],
    ) -> Result<String> {
        let x = inputs[0].as_str();
        match module {
            Module::Conv {
                convolution,
                activation,
            } => self.conv(place, *convolution, *activation, x),
            Module::Focus {
                convolution,
                activation,
            } => {
                let x = self.focus(x);
                self.conv(&format!("{place}.conv"), *convolution, *activation, &x)
            }
            Module::Bottleneck(settings) => self.pair(place, &settings.pair(), x),
            Module::Cross(settings) => self.pair(place, &settings.pair(), x),
            Module::C3(csp) => self.c3(place, csp, x),
            Module::BottleneckCsp(csp) => self.bottleneck_csp(place, csp, x),
            Module::Spp(pyramid) => self.spp(place, pyramid, x),
            Module::Sppf(pyramid) => self.sppf(place, pyramid, x),
            Module::Ghost(ghost) => self.ghost(place, ghost, x),
            Module::GhostBottleneck(ghost) => self.ghost_bottleneck(place, ghost, x),
            Module::Upsample {
                factor,
                interpolation,
            } => Ok(self.upsample(*factor, *interpolation, x)),
            Module::Concat => Ok(self.concat(inputs, 1)),
            Module::Contract { gain } => {
                let size = vec![("blocksize", Attribute::Int(*gain))];
                Ok(self.onnx.node("SpaceToDepth", &[x], size))
            }
            Module::Expand { gain } => {
                let size = vec![
                    ("blocksize", Attribute::Int(*gain)),
                    ("mode", Attribute::Word("DCR")),
                ];
                Ok(self.onnx.node("DepthToSpace", &[x], size))
            }
            Module::MaxPool(window) => Ok(self.pool("MaxPool", *window, x)),
            Module::AvgPool(window) => Ok(self.pool("AveragePool", *window, x)),
            Module::Conv2d { convolution, bias } => self.conv2d(place, *convolution, *bias, x),
            Module::BatchNorm { .. } => self.batch_norm(place, x),
            Module::Activation(activation) => Ok(self.activate(*activation, x)),
            Module::Detect { .. } => self.detect(place, inputs),
        }
    }

    pub(super) fn conv2d(
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

    fn batch_norm(&mut self, place: &str, x: &str) -> Result<String> {
        let mut inputs = vec![x.to_owned()];
        for name in ["weight", "bias", "running_mean", "running_var"] {
            inputs.push(self.weights(&format!("{place}.{name}"))?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let epsilon = vec![("epsilon", Attribute::Float(NORM_EPS as f32))];
        Ok(self.onnx.node("BatchNormalization", &inputs, epsilon))
    }

    fn conv(
        &mut self,
        place: &str,
        convolution: Convolution,
        activation: Activation,
        x: &str,
    ) -> Result<String> {
        let is_fused = self.settings.form == Form::Fused;
        let mut x = self.conv2d(&format!("{place}.conv"), convolution, is_fused, x)?;
        if !is_fused {
            x = self.batch_norm(&format!("{place}.bn"), &x)?;
        }
        Ok(self.activate(activation, &x))
    }

    /// Two convolutions around which the input may be added.
    fn pair(&mut self, place: &str, pair: &Pair, x: &str) -> Result<String> {
        let [first, second] = pair.convolutions;
        let inner = self.conv(&format!("{place}.cv1"), first, pair.activation, x)?;
        let inner = self.conv(&format!("{place}.cv2"), second, pair.activation, &inner)?;
        Ok(if pair.adds_input {
            self.onnx.node("Add", &[x, &inner], vec![])
        } else {
            inner
        })
    }

    fn c3(&mut self, place: &str, csp: &Csp, x: &str) -> Result<String> {
        let main = self.conv(&format!("{place}.cv1"), csp.entry(), csp.activation, x)?;
        let main = self.branch(&format!("{place}.m"), csp, main)?;
        let past = self.conv(&format!("{place}.cv2"), csp.entry(), csp.activation, x)?;
        let joined = self.concat(&[main, past], 1);
        self.conv(&format!("{place}.cv3"), csp.exit(), csp.activation, &joined)
    }

    fn bottleneck_csp(&mut self, place: &str, csp: &Csp, x: &str) -> Result<String> {
        let between = Convolution::new(csp.hidden, csp.hidden, 1, 1);
        let main = self.conv(&format!("{place}.cv1"), csp.entry(), csp.activation, x)?;
        let main = self.branch(&format!("{place}.m"), csp, main)?;
        let main = self.conv2d(&format!("{place}.cv3"), between, false, &main)?;
        let past = self.conv2d(&format!("{place}.cv2"), csp.entry(), false, x)?;
        let joined = self.concat(&[main, past], 1);
        let joined = self.batch_norm(&format!("{place}.bn"), &joined)?;
        let joined = self.activate(Activation::Silu, &joined);
        self.conv(&format!("{place}.cv4"), csp.exit(), csp.activation, &joined)
    }

    fn branch(&mut self, place: &str, csp: &Csp, mut x: String) -> Result<String> {
        match csp.branch() {
            Branch::Row { repeats, module } => {
                for repeat in 0..repeats {
                    x = self.module(&format!("{place}.{repeat}"), &module, &[x])?;
                }
                Ok(x)
            }
            Branch::Pyramid(pyramid) => self.spp(place, &pyramid, &x),
            Branch::Transformer { channels, layers } => {
                self.transformer(place, channels, layers, &x)
            }
        }
    }

    fn spp(&mut self, place: &str, pyramid: &Pyramid, x: &str) -> Result<String> {
        let [first, last] = pyramid.convolutions(pyramid.kernels.len());
        let x = self.conv(&format!("{place}.cv1"), first, pyramid.activation, x)?;
        let mut all = vec![x.clone()];
        for side in &pyramid.kernels {
            all.push(self.pool("MaxPool", Window::keeping(*side), &x));
        }
        let joined = self.concat(&all, 1);
        self.conv(&format!("{place}.cv2"), last, pyramid.activation, &joined)
    }

    fn sppf(&mut self, place: &str, pyramid: &Pyramid, x: &str) -> Result<String> {
        let [first, last] = pyramid.convolutions(CHAIN);
        let window = Window::keeping(pyramid.kernels.first().copied().unwrap_or(1));
        let mut all = vec![self.conv(&format!("{place}.cv1"), first, pyramid.activation, x)?];
        for pooled in 0..CHAIN {
            all.push(self.pool("MaxPool", window, &all[pooled].clone()));
        }
        let joined = self.concat(&all, 1);
        self.conv(&format!("{place}.cv2"), last, pyramid.activation, &joined)
    }

    fn ghost(&mut self, place: &str, ghost: &Ghost, x: &str) -> Result<String> {
        let [first, cheap] = ghost.convolutions();
        let half = self.conv(&format!("{place}.cv1"), first, ghost.activation, x)?;
        let other = self.conv(&format!("{place}.cv2"), cheap, ghost.activation, &half)?;
        Ok(self.concat(&[half, other], 1))
    }

    fn ghost_bottleneck(
        &mut self,
        place: &str,
        ghost: &GhostBottleneck,
        x: &str,
    ) -> Result<String> {
        let [first, second] = ghost.ghosts();
        let none = Activation::Identity;
        let mut main = self.ghost(&format!("{place}.conv.0"), &first, x)?;
        let mut side = x.to_owned();
        if let Some(strided) = ghost.strided() {
            main = self.conv(&format!("{place}.conv.1"), strided.between, none, &main)?;
            for (number, convolution) in strided.shortcut.into_iter().enumerate() {
                side = self.conv(
                    &format!("{place}.shortcut.{number}"),
                    convolution,
                    none,
                    &side,
                )?;
            }
        }
        let main = self.ghost(&format!("{place}.conv.2"), &second, &main)?;
        Ok(self.onnx.node("Add", &[&main, &side], vec![]))
    }

    pub(super) fn concat(&mut self, inputs: &[String], axis: i64) -> String {
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.onnx
            .node("Concat", &inputs, vec![("axis", Attribute::Int(axis))])
    }

    fn pool(&mut self, operator: &str, window: Window, x: &str) -> String {
        let [rows, columns] = window.padding;
        let mut attributes = vec![
            ("kernel_shape", Attribute::Ints(window.kernel.to_vec())),
            ("strides", Attribute::Ints(window.stride.to_vec())),
            ("pads", Attribute::Ints(vec![rows, columns, rows, columns])),
        ];
        if operator == "AveragePool" {
            attributes.push(("count_include_pad", Attribute::Int(1)));
        }
        self.onnx.node(operator, &[x], attributes)
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
}
