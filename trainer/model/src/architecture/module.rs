//! What layers do, with all their settings.

use super::activation::Activation;

/// The settings of one convolution, rows before columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Sides of the kernel.
    pub kernel: [i64; 2],
    /// Cells from one output to the next.
    pub stride: [i64; 2],
    /// Zeros added at each edge.
    pub padding: [i64; 2],
    /// Cells between the taps of the kernel.
    pub dilation: [i64; 2],
    /// Parts into which channels are divided; each output sees one part of the input.
    pub groups: i64,
}

impl Convolution {
    /// A square kernel whose output has the size of its input divided by `stride`.
    pub fn new(input: i64, output: i64, kernel: i64, stride: i64) -> Self {
        Self::rectangular(input, output, [kernel; 2], [stride; 2])
    }

    /// A kernel whose output has the size of its input divided by `stride`.
    pub fn rectangular(input: i64, output: i64, kernel: [i64; 2], stride: [i64; 2]) -> Self {
        Self {
            input,
            output,
            kernel,
            stride,
            padding: kernel.map(|side| side / 2),
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// The same in `groups` groups.
    #[must_use]
    pub fn grouped(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    /// The cells from the first tap of the kernel to the last.
    pub fn extent(&self) -> [i64; 2] {
        [0, 1].map(|axis| self.dilation[axis] * (self.kernel[axis] - 1) + 1)
    }
}

/// A 1x1 convolution, then one of 3x3, around which the input may be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bottleneck {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Channels between.
    pub hidden: i64,
    /// Groups of the second convolution.
    pub groups: i64,
    /// Whether the input is added, where it has as many channels as the output.
    pub shortcut: bool,
    /// After each convolution.
    pub activation: Activation,
}

/// A convolution along rows, then one along columns, around which the input may be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cross {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Channels between.
    pub hidden: i64,
    /// Length of the kernels.
    pub kernel: i64,
    /// Cells from one output to the next.
    pub stride: i64,
    /// Groups of the second convolution.
    pub groups: i64,
    /// Whether the input is added, where it has as many channels as the output.
    pub shortcut: bool,
    /// After each convolution.
    pub activation: Activation,
}

/// A branch of `inner` modules and one past them, joined (cross stage partial networks).
#[derive(Clone, Debug, PartialEq)]
pub struct Csp {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Channels of each branch.
    pub hidden: i64,
    /// What the first branch does.
    pub inner: Inner,
    /// After each convolution.
    pub activation: Activation,
}

/// What the first branch of a [`Csp`] does, with as many channels out as in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inner {
    /// Bottlenecks (C3).
    Bottlenecks {
        /// How many.
        repeats: usize,
        /// Whether they add their input to their output.
        shortcut: bool,
        /// Groups of their second convolution.
        groups: i64,
    },
    /// Cross convolutions of three cells (`C3x`).
    Crosses {
        /// How many.
        repeats: usize,
        /// Whether they add their input to their output.
        shortcut: bool,
        /// Groups of their second convolution.
        groups: i64,
    },
    /// Ghost bottlenecks (`C3Ghost`).
    Ghosts {
        /// How many.
        repeats: usize,
    },
    /// A transformer of four heads (C3TR).
    Transformer {
        /// Its layers.
        repeats: usize,
    },
    /// Pyramid pooling (C3SPP).
    Pyramid {
        /// Windows of the poolings.
        kernels: Vec<i64>,
    },
}

/// Pooling over several windows between two 1x1 convolutions.
#[derive(Clone, Debug, PartialEq)]
pub struct Pyramid {
    /// Channels in; half of it inside.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Windows of the poolings, each of the input; a fast pyramid has one, applied three times in a row.
    pub kernels: Vec<i64>,
    /// After each convolution.
    pub activation: Activation,
}

/// A convolution for half of the output, from which a cheap one makes the other half (`GhostNet`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ghost {
    /// Channels in.
    pub input: i64,
    /// Channels out.
    pub output: i64,
    /// Side of the first kernel.
    pub kernel: i64,
    /// Cells from one output to the next.
    pub stride: i64,
    /// Groups of the first convolution.
    pub groups: i64,
    /// After each convolution.
    pub activation: Activation,
}

/// Two ghost convolutions around which the input is added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GhostBottleneck {
    /// Channels in.
    pub input: i64,
    /// Channels out; half of it inside.
    pub output: i64,
    /// Side of the kernels that move by the stride; without a stride there are none.
    pub kernel: i64,
    /// 1 or 2 cells from one output to the next.
    pub stride: i64,
    /// After the first convolution.
    pub activation: Activation,
}

/// A window moved over the input, rows before columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Sides of the window.
    pub kernel: [i64; 2],
    /// Cells from one output to the next.
    pub stride: [i64; 2],
    /// Cells added at each edge.
    pub padding: [i64; 2],
}

/// How new cells are made between old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// Copies of the nearest.
    Nearest,
    /// Mixed from the four around.
    Bilinear,
}

/// What a layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum Module {
    /// Convolution without bias, batch normalisation, activation.
    Conv {
        /// The convolution.
        convolution: Convolution,
        /// After the normalisation.
        activation: Activation,
    },
    /// Every second cell in four ways side by side, then as [`Module::Conv`].
    Focus {
        /// The convolution, which sees four times the channels of the input.
        convolution: Convolution,
        /// After the normalisation.
        activation: Activation,
    },
    /// See [`Bottleneck`].
    Bottleneck(Bottleneck),
    /// See [`Cross`].
    Cross(Cross),
    /// C3 and its variants: three convolutions around the branches.
    C3(Csp),
    /// The older form with a normalisation of its own where the branches join.
    BottleneckCsp(Csp),
    /// Poolings of the same input.
    Spp(Pyramid),
    /// The same result for one window in a chain of three poolings, with fewer comparisons.
    Sppf(Pyramid),
    /// See [`Ghost`].
    Ghost(Ghost),
    /// See [`GhostBottleneck`].
    GhostBottleneck(GhostBottleneck),
    /// Each cell becomes `factor` times `factor`.
    Upsample {
        /// How many.
        factor: i64,
        /// With which values.
        interpolation: Interpolation,
    },
    /// Inputs side by side in their channels.
    Concat,
    /// Squares of `gain` cells become channels.
    Contract {
        /// Side of the squares.
        gain: i64,
    },
    /// Channels become squares of `gain` cells.
    Expand {
        /// Side of the squares.
        gain: i64,
    },
    /// The largest value of each window.
    MaxPool(Window),
    /// The mean of each window, zeros at the edges included.
    AvgPool(Window),
    /// A convolution alone.
    Conv2d {
        /// The convolution.
        convolution: Convolution,
        /// Whether it has a bias.
        bias: bool,
    },
    /// Batch normalisation alone.
    BatchNorm {
        /// Channels.
        channels: i64,
    },
    /// An activation alone.
    Activation(Activation),
    /// A 1x1 convolution with bias on each input.
    Detect {
        /// Channels of the inputs.
        inputs: Vec<i64>,
        /// Anchors of each level.
        anchors: usize,
        /// Numbers predicted for each anchor: box, objectness, classes.
        outputs: i64,
        /// Pixels per cell of each level.
        strides: Vec<u32>,
    },
}

impl Module {
    /// The activations that follow the convolutions and normalisations in it.
    pub fn activations(&self) -> Vec<Activation> {
        match self {
            Self::Conv { activation, .. }
            | Self::Focus { activation, .. }
            | Self::Bottleneck(Bottleneck { activation, .. })
            | Self::Cross(Cross { activation, .. })
            | Self::Spp(Pyramid { activation, .. })
            | Self::Sppf(Pyramid { activation, .. })
            | Self::Ghost(Ghost { activation, .. }) => vec![*activation],
            // Its last convolution has none.
            Self::GhostBottleneck(GhostBottleneck { activation, .. })
            | Self::C3(Csp {
                activation,
                inner: Inner::Ghosts { .. },
                ..
            }) => vec![*activation, Activation::Identity],
            Self::C3(csp) => vec![csp.activation],
            // That of its own normalisation is always the same.
            Self::BottleneckCsp(csp) => vec![csp.activation, Activation::Silu],
            _ => Vec::new(),
        }
    }
}
