//! The modules of the network as functions of tensors.

use tch::{TchError, Tensor};

use crate::architecture::{ANCHORS_PER_LEVEL, Convolution, Form, Module, inner_convolutions};
use crate::state::State;

/// Added to a variance before its root is taken (YOLOv5 v7.0; PyTorch's default is 1e-5).
pub(crate) const NORM_EPS: f64 = 1e-3;
/// Share of a batch in the running statistics (YOLOv5 v7.0; PyTorch's default is 0.1).
const NORM_MOMENTUM: f64 = 0.03;

/// What normalisations go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The batch itself; running statistics move towards it.
    Training,
    /// The running statistics.
    Evaluation,
}

/// A convolution, its normalisation, `SiLU`.
pub(crate) struct ConvBlock {
    settings: Convolution,
    weight: Tensor,
    normalisation: Normalisation,
}

enum Normalisation {
    Batch {
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
    },
    /// Only a bias is left.
    Folded(Tensor),
}

impl ConvBlock {
    fn new(state: &State, prefix: &str, settings: Convolution, form: Form) -> Option<Self> {
        let tensor = |name: &str| tensor(state, &format!("{prefix}.{name}"));
        let normalisation = match form {
            Form::Fused => Normalisation::Folded(tensor("conv.bias")?),
            Form::Trainable => Normalisation::Batch {
                scale: tensor("bn.weight")?,
                shift: tensor("bn.bias")?,
                mean: tensor("bn.running_mean")?,
                variance: tensor("bn.running_var")?,
            },
        };
        Some(Self {
            settings,
            weight: tensor("conv.weight")?,
            normalisation,
        })
    }

    fn forward(&self, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let Convolution {
            stride, padding, ..
        } = self.settings;
        let convolve = |bias: Option<&Tensor>| {
            x.f_conv2d(&self.weight, bias, [stride; 2], [padding; 2], [1; 2], 1)
        };
        let mut normalised = match &self.normalisation {
            Normalisation::Folded(bias) => convolve(Some(bias))?,
            Normalisation::Batch {
                scale,
                shift,
                mean,
                variance,
            } => convolve(None)?.f_batch_norm(
                Some(scale),
                Some(shift),
                Some(mean),
                Some(variance),
                phase == Phase::Training,
                NORM_MOMENTUM,
                NORM_EPS,
                true,
            )?,
        };
        match phase {
            Phase::Training => normalised.f_silu(),
            // Nothing else needs the values before the activation.
            Phase::Evaluation => normalised.f_silu_(),
        }
    }
}

/// A module with its tensors.
pub(crate) enum Block {
    Conv(ConvBlock),
    C3(Box<C3>),
    Sppf { cv1: ConvBlock, cv2: ConvBlock },
    Upsample,
    Concat,
    Detect { heads: Vec<Head> },
}

/// `cv3(cat(bottlenecks(cv1(x)), cv2(x)))`.
pub(crate) struct C3 {
    cv1: ConvBlock,
    cv2: ConvBlock,
    cv3: ConvBlock,
    /// 1x1, then 3x3.
    bottlenecks: Vec<[ConvBlock; 2]>,
    /// Whether a bottleneck adds its input to its output.
    shortcut: bool,
}

/// Weight and bias of one level of Detect.
pub(crate) struct Head {
    weight: Tensor,
    bias: Tensor,
}

impl Block {
    /// The block of `module` at position `index`; `None` if `state` lacks one of its tensors.
    pub(crate) fn new(state: &State, index: usize, module: &Module, form: Form) -> Option<Self> {
        let prefix = format!("model.{index}");
        let inner = inner_convolutions(module);
        let part = |name: &str| {
            let (_, settings) = inner.iter().find(|(inner, _)| inner == name)?;
            ConvBlock::new(state, &format!("{prefix}.{name}"), *settings, form)
        };
        Some(match module {
            Module::Conv(conv) => Self::Conv(ConvBlock::new(state, &prefix, *conv, form)?),
            Module::C3 {
                repeats, shortcut, ..
            } => {
                let bottleneck = |repeat| {
                    Some([
                        part(&format!("m.{repeat}.cv1"))?,
                        part(&format!("m.{repeat}.cv2"))?,
                    ])
                };
                Self::C3(Box::new(C3 {
                    cv1: part("cv1")?,
                    cv2: part("cv2")?,
                    cv3: part("cv3")?,
                    bottlenecks: (0..*repeats).map(bottleneck).collect::<Option<_>>()?,
                    shortcut: *shortcut,
                }))
            }
            Module::Sppf { .. } => Self::Sppf {
                cv1: part("cv1")?,
                cv2: part("cv2")?,
            },
            Module::Upsample => Self::Upsample,
            Module::Concat => Self::Concat,
            Module::Detect { inputs, .. } => {
                let head = |level| {
                    Some(Head {
                        weight: tensor(state, &format!("{prefix}.m.{level}.weight"))?,
                        bias: tensor(state, &format!("{prefix}.m.{level}.bias"))?,
                    })
                };
                Self::Detect {
                    heads: (0..inputs.len()).map(head).collect::<Option<_>>()?,
                }
            }
        })
    }

    /// The outputs: one, or the raw predictions of each level from Detect.
    pub(crate) fn forward(&self, x: &[&Tensor], phase: Phase) -> Result<Vec<Tensor>, TchError> {
        let single = match self {
            Self::Conv(conv) => conv.forward(x[0], phase),
            Self::C3(c3) => c3.forward(x[0], phase),
            Self::Sppf { cv1, cv2 } => sppf(cv1, cv2, x[0], phase),
            Self::Upsample => {
                let size = x[0].size();
                x[0].f_upsample_nearest2d([2 * size[2], 2 * size[3]], None, None)
            }
            Self::Concat => Tensor::f_cat(x, 1),
            Self::Detect { heads } => {
                return heads
                    .iter()
                    .zip(x)
                    .map(|(head, x)| head.forward(x))
                    .collect();
            }
        };
        Ok(vec![single?])
    }
}

fn tensor(state: &State, name: &str) -> Option<Tensor> {
    state.get(name).map(|entry| entry.tensor.shallow_clone())
}

impl C3 {
    fn forward(&self, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
        let mut main = self.cv1.forward(x, phase)?;
        for [first, second] in &self.bottlenecks {
            let out = second.forward(&first.forward(&main, phase)?, phase)?;
            main = if self.shortcut {
                main.f_add(&out)?
            } else {
                out
            };
        }
        let side = self.cv2.forward(x, phase)?;
        self.cv3.forward(&Tensor::f_cat(&[main, side], 1)?, phase)
    }
}

/// Spatial pyramid pooling: the input and its poolings over 5, 9 and 13 pixels side by side.
fn sppf(cv1: &ConvBlock, cv2: &ConvBlock, x: &Tensor, phase: Phase) -> Result<Tensor, TchError> {
    let pool = |x: &Tensor| x.f_max_pool2d([5; 2], [1; 2], [2; 2], [1; 2], false);
    let over_1 = cv1.forward(x, phase)?;
    let over_5 = pool(&over_1)?;
    let over_9 = pool(&over_5)?;
    let over_13 = pool(&over_9)?;
    cv2.forward(
        &Tensor::f_cat(&[over_1, over_5, over_9, over_13], 1)?,
        phase,
    )
}

impl Head {
    /// Raw predictions `[images, anchors, height, width, outputs]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let out = x.f_conv2d(&self.weight, Some(&self.bias), [1; 2], [0; 2], [1; 2], 1)?;
        let (images, channels, height, width) = out.size4()?;
        let anchors = ANCHORS_PER_LEVEL as i64;
        out.f_view([images, anchors, channels / anchors, height, width])?
            .f_permute([0, 1, 3, 4, 2])
    }
}
