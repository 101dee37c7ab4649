//! The modules of the network as functions of tensors.
//!
//! Each block describes itself once: which tensors it has ([`scope`]), what becomes of a shape (`trace`) and what
//! becomes of values (`forward`). `Block<()>` has no tensors; the planner works with it.

mod activation;
mod bottleneck;
mod conv;
mod csp;
mod ghost;
mod head;
mod pyramid;
mod resize;
pub(crate) mod scope;
mod transformer;

use tch::{TchError, Tensor};
use torch_bridge::SyncNorm;

use crate::architecture::{Activation, Interpolation, Module, Shape, Window, Work};
use crate::error::Error;
use bottleneck::Bottleneck;
use conv::{BatchNorm, Conv, Conv2d, Focus};
use csp::{BottleneckCsp, C3};
use ghost::{Ghost, GhostBottleneck};
use head::Detect;
use pyramid::{Spp, Sppf};
use scope::{Maker, Scope};

/// What normalisations go by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase<'a> {
    /// The batch itself; running statistics move towards it.
    Training,
    /// The same with the batches of all ranks.
    Together(SyncNorm<'a>),
    /// The running statistics.
    Evaluation,
}

/// A module with its tensors.
pub(crate) enum Block<T> {
    Conv(Conv<T>),
    Focus(Focus<T>),
    Bottleneck(Bottleneck<T>),
    C3(Box<C3<T>>),
    BottleneckCsp(Box<BottleneckCsp<T>>),
    Spp(Spp<T>),
    Sppf(Sppf<T>),
    Ghost(Ghost<T>),
    GhostBottleneck(Box<GhostBottleneck<T>>),
    Upsample(i64, Interpolation),
    Concat,
    Contract(i64),
    Expand(i64),
    MaxPool(Window),
    AvgPool(Window),
    Conv2d(Conv2d<T>),
    BatchNorm(BatchNorm<T>),
    Activation(Activation),
    Detect(Detect<T>),
}

impl<T> Block<T> {
    /// The block of `module`, whose tensors are at `scope`.
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        module: &Module,
    ) -> Result<Self, Error> {
        Ok(match module {
            Module::Conv {
                convolution,
                activation,
            } => Self::Conv(Conv::new(scope, *convolution, *activation)?),
            Module::Focus {
                convolution,
                activation,
            } => Self::Focus(Focus::new(scope, *convolution, *activation)?),
            Module::Bottleneck(settings) => {
                Self::Bottleneck(Bottleneck::new(scope, &settings.pair())?)
            }
            Module::Cross(settings) => Self::Bottleneck(Bottleneck::new(scope, &settings.pair())?),
            Module::C3(csp) => Self::C3(Box::new(C3::new(scope, csp)?)),
            Module::BottleneckCsp(csp) => {
                Self::BottleneckCsp(Box::new(BottleneckCsp::new(scope, csp)?))
            }
            Module::Spp(settings) => Self::Spp(Spp::new(scope, settings)?),
            Module::Sppf(settings) => Self::Sppf(Sppf::new(scope, settings)?),
            Module::Ghost(settings) => Self::Ghost(Ghost::new(scope, settings)?),
            Module::GhostBottleneck(settings) => {
                Self::GhostBottleneck(Box::new(GhostBottleneck::new(scope, settings)?))
            }
            Module::Upsample {
                factor,
                interpolation,
            } => Self::Upsample(*factor, *interpolation),
            Module::Concat => Self::Concat,
            Module::Contract { gain } => Self::Contract(*gain),
            Module::Expand { gain } => Self::Expand(*gain),
            Module::MaxPool(window) => Self::MaxPool(*window),
            Module::AvgPool(window) => Self::AvgPool(*window),
            Module::Conv2d {
                convolution,
                bias: true,
            } => Self::Conv2d(Conv2d::with_bias(scope, *convolution, |same| same)?),
            Module::Conv2d {
                convolution,
                bias: false,
            } => Self::Conv2d(Conv2d::new(scope, *convolution)?),
            Module::BatchNorm { channels } => Self::BatchNorm(BatchNorm::new(scope, *channels)?),
            Module::Activation(activation) => Self::Activation(*activation),
            Module::Detect {
                inputs,
                anchors,
                outputs,
                strides,
            } => Self::Detect(Detect::new(scope, inputs, *anchors, *outputs, strides)?),
        })
    }

    /// The blocks of a layer that does `module` `repeats` times in a row: below its own place if it is one, else
    /// below their numbers.
    pub(crate) fn of_layer<M: Maker<Tensor = T>>(
        maker: &mut M,
        index: usize,
        module: &Module,
        repeats: usize,
    ) -> Result<Vec<Self>, Error> {
        let mut scope = Scope::new(maker, format!("model.{index}"));
        if repeats == 1 {
            return Ok(vec![Self::new(&mut scope, module)?]);
        }
        (0..repeats)
            .map(|repeat| Self::new(&mut scope.at(&repeat.to_string()), module))
            .collect()
    }

    /// What becomes of shapes: one, or that of each level from Detect. An error says what does not fit.
    pub(crate) fn trace(&self, inputs: &[Shape], work: &mut Work) -> Result<Vec<Shape>, String> {
        let x = *inputs.first().ok_or("it has no input")?;
        let single = match self {
            Self::Conv(conv) => conv.trace(x, work),
            Self::Focus(focus) => focus.trace(x, work),
            Self::Bottleneck(bottleneck) => bottleneck.trace(x, work),
            Self::C3(c3) => c3.trace(x, work),
            Self::BottleneckCsp(csp) => csp.trace(x, work),
            Self::Spp(spp) => spp.trace(x, work),
            Self::Sppf(sppf) => sppf.trace(x, work),
            Self::Ghost(ghost) => ghost.trace(x, work),
            Self::GhostBottleneck(ghost) => ghost.trace(x, work),
            Self::Upsample(factor, _) => Ok(resize::trace_upsample(x, *factor)),
            Self::Concat => resize::trace_concat(inputs),
            Self::Contract(gain) => resize::trace_contract(x, *gain),
            Self::Expand(gain) => resize::trace_expand(x, *gain),
            Self::MaxPool(window) | Self::AvgPool(window) => resize::trace_pool(x, *window),
            Self::Conv2d(conv) => conv.trace(x, work),
            Self::BatchNorm(norm) => norm.trace(x),
            Self::Activation(_) => Ok(x),
            Self::Detect(detect) => return detect.trace(inputs, work),
        };
        Ok(vec![single?])
    }
}

impl Block<Tensor> {
    /// The bottleneck, if it is one.
    fn as_bottleneck(&self) -> Option<&Bottleneck<Tensor>> {
        match self {
            Self::Bottleneck(bottleneck) => Some(bottleneck),
            _ => None,
        }
    }

    /// The outputs for one input or, from Concat and Detect, for several: one output, or the raw predictions of each
    /// level from Detect.
    pub(crate) fn forward(
        &self,
        inputs: &[&Tensor],
        phase: Phase<'_>,
    ) -> Result<Vec<Tensor>, TchError> {
        let x = inputs[0];
        let single = match self {
            Self::Conv(conv) => conv.forward(x, phase),
            Self::Focus(focus) => focus.forward(x, phase),
            Self::Bottleneck(bottleneck) => bottleneck.forward(x, phase),
            Self::C3(c3) => c3.forward(x, phase),
            Self::BottleneckCsp(csp) => csp.forward(x, phase),
            Self::Spp(spp) => spp.forward(x, phase),
            Self::Sppf(sppf) => sppf.forward(x, phase),
            Self::Ghost(ghost) => ghost.forward(x, phase),
            Self::GhostBottleneck(ghost) => ghost.forward(x, phase),
            Self::Upsample(factor, interpolation) => resize::upsample(x, *factor, *interpolation),
            Self::Concat => Tensor::f_cat(inputs, 1),
            Self::Contract(gain) => resize::contract(x, *gain),
            Self::Expand(gain) => resize::expand(x, *gain),
            Self::MaxPool(window) => resize::max_pool(x, *window),
            Self::AvgPool(window) => resize::avg_pool(x, *window),
            Self::Conv2d(conv) => conv.forward(x),
            Self::BatchNorm(norm) => norm.forward(x, phase),
            Self::Activation(activation) => activation::activate(*activation, x),
            Self::Detect(detect) => return detect.forward(inputs),
        };
        Ok(vec![single?])
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
mod tests;
