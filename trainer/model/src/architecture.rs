//! The YOLOv5 v7.0 networks n, s, m, l, x as data: layers, and the tensors that belong to them.
//!
//! ```text
//!  images ─ 0 ─ 1 ─ 2 ─ 3 ─ 4 ─ 5 ─ 6 ─ 7 ─ 8 ─ 9 (SPPF) ─ 10 ┐        backbone, stride 2..32
//!                           │       │                      │  └ 11 up
//!                           │       └────────── 12 concat ─┼─── 13 ─ 14 ┐
//!                           └────── 16 concat ─ 15 up ─────┼──────── │ ─┘
//!                                      └ 17 (P3) ─ 18 ─ 19 concat ───┘ ... 20 (P4) ─ 21 ─ 22 concat
//!                                                         22 also takes 10 ┘           └ 23 (P5)
//!                                   24 Detect takes 17, 20, 23: strides 8, 16, 32
//! ```

use contract::spec::ModelSize;
use trainer_core::anchors::STRIDES;

/// Anchors of each level.
pub const ANCHORS_PER_LEVEL: usize = 3;
/// Levels of predictions.
pub const LEVELS: usize = 3;
/// Pixels per cell of the coarsest level; image sides are multiples of it.
pub const LARGEST_STRIDE: i64 = 32;

/// A layer's kind and settings. Channels are those of its input and output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// Convolution without bias, batch normalisation, `SiLU`.
    Conv(Convolution),
    /// Three 1x1 convolutions around `repeats` bottlenecks.
    C3 {
        /// Channels in.
        input: i64,
        /// Channels out; half of it inside.
        output: i64,
        /// Number of bottlenecks.
        repeats: usize,
        /// Whether bottlenecks add their input to their output.
        shortcut: bool,
    },
    /// Three chained 5x5 poolings between two 1x1 convolutions.
    Sppf {
        /// Channels in; half of it inside.
        input: i64,
        /// Channels out.
        output: i64,
    },
    /// Each pixel becomes four.
    Upsample,
    /// Inputs side by side in their channels.
    Concat,
    /// A 1x1 convolution with bias on each of three inputs.
    Detect {
        /// Channels of the inputs.
        inputs: [i64; LEVELS],
        /// Numbers predicted for each anchor: box, objectness, classes.
        outputs: i64,
    },
}

/// The settings of one convolution block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Side of the square kernel.
    pub kernel: i64,
    /// Pixels from one output to the next.
    pub stride: i64,
    /// Zeros added at each edge.
    pub padding: i64,
}

impl Convolution {
    /// A block whose output has the size of its input divided by `stride`.
    pub fn new(input: i64, output: i64, kernel: i64, stride: i64) -> Self {
        Self {
            input,
            output,
            kernel,
            stride,
            padding: kernel / 2,
        }
    }
}

impl Module {
    /// YOLOv5's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Conv(_) => "Conv",
            Self::C3 { .. } => "C3",
            Self::Sppf { .. } => "SPPF",
            Self::Upsample => "Upsample",
            Self::Concat => "Concat",
            Self::Detect { .. } => "Detect",
        }
    }
}

/// One layer and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Indices of the layers whose outputs it takes; `None` is the images.
    pub from: Vec<Option<usize>>,
    /// What it does.
    pub module: Module,
}

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A trained offset: of a normalisation or of Detect. Never decayed.
    Bias,
    /// A trained convolution kernel; the only role with weight decay.
    Weight,
    /// A trained scale of a normalisation. Never decayed.
    Norm,
    /// A running mean or variance.
    Statistic,
    /// How many batches a normalisation has seen (64-bit integer).
    Counter,
    /// The anchors in grid cells.
    Anchors,
}

impl Role {
    /// Whether gradients change it.
    pub fn is_parameter(self) -> bool {
        matches!(self, Self::Bias | Self::Weight | Self::Norm)
    }
}

/// How a tensor begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// As a blank network has it: 0, or the network's anchors.
    Blank,
    /// The same value everywhere.
    Constant(f64),
    /// Evenly between ± `bound`.
    Uniform {
        /// The largest magnitude.
        bound: f64,
    },
    /// Evenly between ± `bound`, plus what makes objects and classes rare at first.
    DetectBias {
        /// The largest magnitude of the random part.
        bound: f64,
        /// Pixels per cell of the level.
        stride: u32,
    },
}

/// A tensor of the network before it exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Slot {
    /// State-dict name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its shape.
    pub shape: Vec<i64>,
    /// How it begins.
    pub initial: Initial,
}

impl Slot {
    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.shape.iter().product::<i64>() as u64
    }

    /// Whether it has no elements; no network has such a tensor.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether normalisations are layers of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As trained: every convolution is followed by batch normalisation.
    Trainable,
    /// As used: normalisations are folded into kernels and biases.
    Fused,
}

/// Numbers predicted for each anchor.
pub fn outputs_per_anchor(classes: usize) -> i64 {
    5 + classes as i64
}

/// The 25 layers of a network.
pub fn layers(size: ModelSize, classes: usize) -> Vec<Layer> {
    let (depth, width) = size.multiples();
    // Channels are rounded up to a multiple of 8, repeats to the nearest number but at least 1.
    let channels = |nominal: f64| ((nominal * width / 8.0).ceil() * 8.0) as i64;
    let repeats = |nominal: f64| (nominal * depth).round_ties_even().max(1.0) as usize;
    let [c64, c128, c256, c512, c1024] = [64.0, 128.0, 256.0, 512.0, 1024.0].map(channels);
    let [r3, r6, r9] = [3.0, 6.0, 9.0].map(repeats);

    let conv = |input, output, kernel, stride| {
        Module::Conv(Convolution::new(input, output, kernel, stride))
    };
    let backbone_c3 = |channels, repeats| Module::C3 {
        input: channels,
        output: channels,
        repeats,
        shortcut: true,
    };
    let head_c3 = |input, output| Module::C3 {
        input,
        output,
        repeats: r3,
        shortcut: false,
    };
    let stem = Module::Conv(Convolution {
        input: 3,
        output: c64,
        kernel: 6,
        stride: 2,
        padding: 2,
    });

    let rows: [(&[usize], Module); 24] = [
        (&[0], conv(c64, c128, 3, 2)),
        (&[1], backbone_c3(c128, r3)),
        (&[2], conv(c128, c256, 3, 2)),
        (&[3], backbone_c3(c256, r6)),
        (&[4], conv(c256, c512, 3, 2)),
        (&[5], backbone_c3(c512, r9)),
        (&[6], conv(c512, c1024, 3, 2)),
        (&[7], backbone_c3(c1024, r3)),
        (
            &[8],
            Module::Sppf {
                input: c1024,
                output: c1024,
            },
        ),
        (&[9], conv(c1024, c512, 1, 1)),
        (&[10], Module::Upsample),
        (&[11, 6], Module::Concat),
        (&[12], head_c3(2 * c512, c512)),
        (&[13], conv(c512, c256, 1, 1)),
        (&[14], Module::Upsample),
        (&[15, 4], Module::Concat),
        (&[16], head_c3(2 * c256, c256)),
        (&[17], conv(c256, c256, 3, 2)),
        (&[18, 14], Module::Concat),
        (&[19], head_c3(2 * c256, c512)),
        (&[20], conv(c512, c512, 3, 2)),
        (&[21, 10], Module::Concat),
        (&[22], head_c3(2 * c512, c1024)),
        (
            &[17, 20, 23],
            Module::Detect {
                inputs: [c256, c512, c1024],
                outputs: outputs_per_anchor(classes),
            },
        ),
    ];
    let rest = rows.into_iter().map(|(from, module)| Layer {
        from: from.iter().copied().map(Some).collect(),
        module,
    });
    std::iter::once(Layer {
        from: vec![None],
        module: stem,
    })
    .chain(rest)
    .collect()
}

/// The tensors of `layers`, in YOLOv5's order.
pub fn slots(layers: &[Layer], form: Form) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let prefix = format!("model.{index}");
        match &layer.module {
            Module::Conv(conv) => push_conv(&mut slots, &prefix, conv, form),
            Module::C3 { .. } | Module::Sppf { .. } => {
                for (name, conv) in inner_convolutions(&layer.module) {
                    push_conv(&mut slots, &format!("{prefix}.{name}"), &conv, form);
                }
            }
            Module::Upsample | Module::Concat => {}
            Module::Detect { inputs, outputs } => {
                push_detect(&mut slots, &prefix, *inputs, *outputs);
            }
        }
    }
    slots
}

/// The convolution blocks inside a C3 or SPPF, by name, in YOLOv5's order; none for other modules.
pub(crate) fn inner_convolutions(module: &Module) -> Vec<(String, Convolution)> {
    match *module {
        Module::C3 {
            input,
            output,
            repeats,
            ..
        } => {
            let hidden = output / 2;
            let outer = [
                ("cv1", Convolution::new(input, hidden, 1, 1)),
                ("cv2", Convolution::new(input, hidden, 1, 1)),
                ("cv3", Convolution::new(2 * hidden, output, 1, 1)),
            ];
            let inner = (0..repeats).flat_map(|repeat| {
                [
                    (
                        format!("m.{repeat}.cv1"),
                        Convolution::new(hidden, hidden, 1, 1),
                    ),
                    (
                        format!("m.{repeat}.cv2"),
                        Convolution::new(hidden, hidden, 3, 1),
                    ),
                ]
            });
            outer
                .map(|(name, conv)| (name.to_owned(), conv))
                .into_iter()
                .chain(inner)
                .collect()
        }
        Module::Sppf { input, output } => vec![
            ("cv1".to_owned(), Convolution::new(input, input / 2, 1, 1)),
            ("cv2".to_owned(), Convolution::new(2 * input, output, 1, 1)),
        ],
        _ => Vec::new(),
    }
}

fn push_conv(slots: &mut Vec<Slot>, prefix: &str, conv: &Convolution, form: Form) {
    let Convolution {
        input,
        output,
        kernel,
        ..
    } = *conv;
    let mut push = |name: &str, role, shape, initial| {
        slots.push(Slot {
            name: format!("{prefix}.{name}"),
            role,
            shape,
            initial,
        });
    };
    let bound = uniform_bound(input * kernel * kernel);
    let shape = vec![output, input, kernel, kernel];
    push(
        "conv.weight",
        Role::Weight,
        shape,
        Initial::Uniform { bound },
    );
    match form {
        Form::Fused => push("conv.bias", Role::Bias, vec![output], Initial::Blank),
        Form::Trainable => {
            push(
                "bn.weight",
                Role::Norm,
                vec![output],
                Initial::Constant(1.0),
            );
            push("bn.bias", Role::Bias, vec![output], Initial::Blank);
            push(
                "bn.running_mean",
                Role::Statistic,
                vec![output],
                Initial::Blank,
            );
            push(
                "bn.running_var",
                Role::Statistic,
                vec![output],
                Initial::Constant(1.0),
            );
            push(
                "bn.num_batches_tracked",
                Role::Counter,
                vec![],
                Initial::Blank,
            );
        }
    }
}

fn push_detect(slots: &mut Vec<Slot>, prefix: &str, inputs: [i64; LEVELS], outputs: i64) {
    let anchors = ANCHORS_PER_LEVEL as i64;
    slots.push(Slot {
        name: format!("{prefix}.anchors"),
        role: Role::Anchors,
        shape: vec![LEVELS as i64, anchors, 2],
        initial: Initial::Blank,
    });
    for ((level, input), stride) in inputs.into_iter().enumerate().zip(STRIDES) {
        let bound = uniform_bound(input);
        slots.push(Slot {
            name: format!("{prefix}.m.{level}.weight"),
            role: Role::Weight,
            shape: vec![anchors * outputs, input, 1, 1],
            initial: Initial::Uniform { bound },
        });
        slots.push(Slot {
            name: format!("{prefix}.m.{level}.bias"),
            role: Role::Bias,
            shape: vec![anchors * outputs],
            initial: Initial::DetectBias { bound, stride },
        });
    }
}

/// PyTorch's default for convolutions: Kaiming-uniform with a = √5, which is ± 1/√fan-in, for the
/// kernel and for the bias.
fn uniform_bound(fan_in: i64) -> f64 {
    1.0 / (fan_in as f64).sqrt()
}

#[cfg(test)]
#[path = "architecture_tests.rs"]
mod tests;
