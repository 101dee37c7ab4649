//! What compound modules are made of: the same for the network and for every file that is written of one.

use super::activation::Activation;
use super::module::{
    Bottleneck, Convolution, Cross, Csp, Ghost, GhostBottleneck, Inner, Module, Pyramid, Window,
};

/// Added to a variance before its root is taken (YOLOv5 v7.0; PyTorch's default is 1e-5).
pub const NORM_EPS: f64 = 1e-3;
/// Share of a batch in the running statistics (YOLOv5 v7.0; PyTorch's default is 0.1).
pub const NORM_MOMENTUM: f64 = 0.03;
/// Parts of a transformer's channels that attend on their own.
pub const HEADS: i64 = 4;
/// Side of the kernel that makes the second half of a [`Ghost`].
const CHEAP_KERNEL: i64 = 5;
/// Poolings in a row of the fast pyramid; with windows of 5 they reach over 5, 9 and 13 cells.
pub const CHAIN: usize = 3;

/// The first branch of a [`Csp`], between its first convolution and the place where the branches join.
#[derive(Clone, Debug, PartialEq)]
pub enum Branch {
    /// The same module in a row; their tensors are below their numbers.
    Row {
        /// How many.
        repeats: usize,
        /// What each does.
        module: Box<Module>,
    },
    /// One pyramid.
    Pyramid(Pyramid),
    /// A transformer.
    Transformer {
        /// Channels in and out.
        channels: i64,
        /// Its layers.
        layers: usize,
    },
}

/// Two convolutions in a row, `cv1` and `cv2`, around which the input may be added.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// The convolutions.
    pub convolutions: [Convolution; 2],
    /// What follows each of them.
    pub activation: Activation,
    /// Whether the input is added to the output.
    pub adds_input: bool,
}

impl Bottleneck {
    /// 1x1, then 3x3.
    pub fn pair(&self) -> Pair {
        Pair {
            convolutions: [
                Convolution::new(self.input, self.hidden, 1, 1),
                Convolution::new(self.hidden, self.output, 3, 1).grouped(self.groups),
            ],
            activation: self.activation,
            adds_input: self.shortcut && self.input == self.output,
        }
    }
}

impl Cross {
    /// A row of `k`, then a column of `k`.
    pub fn pair(&self) -> Pair {
        let (kernel, stride) = (self.kernel, self.stride);
        Pair {
            convolutions: [
                Convolution::rectangular(self.input, self.hidden, [1, kernel], [1, stride]),
                Convolution::rectangular(self.hidden, self.output, [kernel, 1], [stride, 1])
                    .grouped(self.groups),
            ],
            activation: self.activation,
            adds_input: self.shortcut && self.input == self.output,
        }
    }
}

impl Csp {
    /// The convolution from the input to a branch, `cv1` and `cv2`.
    pub fn entry(&self) -> Convolution {
        Convolution::new(self.input, self.hidden, 1, 1)
    }

    /// The last convolution, of both branches side by side.
    pub fn exit(&self) -> Convolution {
        Convolution::new(2 * self.hidden, self.output, 1, 1)
    }

    /// What the first branch does.
    pub fn branch(&self) -> Branch {
        let (channels, activation) = (self.hidden, self.activation);
        let row = |repeats, module| Branch::Row {
            repeats,
            module: Box::new(module),
        };
        match self.inner {
            Inner::Bottlenecks {
                repeats,
                shortcut,
                groups,
            } => {
                let bottleneck = Bottleneck {
                    input: channels,
                    output: channels,
                    hidden: channels,
                    groups,
                    shortcut,
                    activation,
                };
                row(repeats, Module::Bottleneck(bottleneck))
            }
            Inner::Crosses {
                repeats,
                shortcut,
                groups,
            } => {
                let cross = Cross {
                    input: channels,
                    output: channels,
                    hidden: channels,
                    kernel: 3,
                    stride: 1,
                    groups,
                    shortcut,
                    activation,
                };
                row(repeats, Module::Cross(cross))
            }
            Inner::Ghosts { repeats } => {
                let ghost = GhostBottleneck {
                    input: channels,
                    output: channels,
                    kernel: 3,
                    stride: 1,
                    activation,
                };
                row(repeats, Module::GhostBottleneck(ghost))
            }
            Inner::Transformer { repeats } => Branch::Transformer {
                channels,
                layers: repeats,
            },
            Inner::Pyramid { ref kernels } => Branch::Pyramid(Pyramid {
                input: channels,
                output: channels,
                kernels: kernels.clone(),
                activation,
            }),
        }
    }
}

impl Window {
    /// A square of an odd side that leaves as many cells as there are.
    pub fn keeping(side: i64) -> Self {
        Self {
            kernel: [side; 2],
            stride: [1; 2],
            padding: [side / 2; 2],
        }
    }
}

impl Pyramid {
    /// `cv1` before and `cv2` after `poolings` poolings.
    pub fn convolutions(&self, poolings: usize) -> [Convolution; 2] {
        let hidden = self.input / 2;
        [
            Convolution::new(self.input, hidden, 1, 1),
            Convolution::new((1 + poolings as i64) * hidden, self.output, 1, 1),
        ]
    }
}

impl Ghost {
    /// `cv1`, then `cv2`, which makes the other half of it.
    pub fn convolutions(&self) -> [Convolution; 2] {
        let half = self.output / 2;
        [
            Convolution::new(self.input, half, self.kernel, self.stride).grouped(self.groups),
            Convolution::new(half, half, CHEAP_KERNEL, 1).grouped(half),
        ]
    }
}

/// What a [`GhostBottleneck`] with a stride has more. No activation follows these convolutions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GhostStride {
    /// Between the two ghost convolutions.
    pub between: Convolution,
    /// On the input, before it is added.
    pub shortcut: [Convolution; 2],
}

impl GhostBottleneck {
    /// The first and the second ghost convolution.
    pub fn ghosts(&self) -> [Ghost; 2] {
        let half = self.output / 2;
        let ghost = |input, output, activation| Ghost {
            input,
            output,
            kernel: 1,
            stride: 1,
            groups: 1,
            activation,
        };
        [
            ghost(self.input, half, self.activation),
            ghost(half, self.output, Activation::Identity),
        ]
    }

    /// What it has more if it moves by a stride.
    pub fn strided(&self) -> Option<GhostStride> {
        let each = |channels| {
            Convolution::new(channels, channels, self.kernel, self.stride).grouped(channels)
        };
        (self.stride != 1).then(|| GhostStride {
            between: each(self.output / 2),
            shortcut: [
                each(self.input),
                Convolution::new(self.input, self.output, 1, 1),
            ],
        })
    }
}
