//! `GhostNet`'s blocks: half of the channels are made cheaply from the other half.

use tch::{TchError, Tensor};

use super::Phase;
use super::conv::Conv;
use super::scope::{Maker, Scope};
use crate::architecture::{self, Activation, Convolution, Shape, Work};
use crate::error::Error;

/// Side of the kernel that makes the second half.
const CHEAP_KERNEL: i64 = 5;

/// `cat(cv1(x), cv2(cv1(x)))`.
pub(crate) struct Ghost<T> {
    cv1: Conv<T>,
    cv2: Conv<T>,
}

/// Two ghost convolutions, plus the input.
pub(crate) struct GhostBottleneck<T> {
    first: Ghost<T>,
    second: Ghost<T>,
    /// With a stride: between the two, and on the input.
    strided: Option<Strided<T>>,
}

/// What a ghost bottleneck with a stride has more.
struct Strided<T> {
    between: Conv<T>,
    shortcut: [Conv<T>; 2],
}

impl<T> Ghost<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &architecture::Ghost,
    ) -> Result<Self, Error> {
        let architecture::Ghost {
            input,
            output,
            kernel,
            stride,
            groups,
            activation,
        } = *settings;
        let half = output / 2;
        let first = Convolution::new(input, half, kernel, stride).grouped(groups);
        let cheap = Convolution::new(half, half, CHEAP_KERNEL, 1).grouped(half);
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), first, activation)?,
            cv2: Conv::new(&mut scope.at("cv2"), cheap, activation)?,
        })
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        let half = self.cv1.trace(input, work)?;
        let other = self.cv2.trace(half, work)?;
        Ok(half.with_channels(half.channels + other.channels))
    }
}

impl Ghost<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let half = self.cv1.forward(x, phase)?;
        let other = self.cv2.forward(&half, phase)?;
        Tensor::f_cat(&[half, other], 1)
    }
}

impl<T> GhostBottleneck<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &architecture::GhostBottleneck,
    ) -> Result<Self, Error> {
        let architecture::GhostBottleneck {
            input,
            output,
            kernel,
            stride,
            activation,
        } = *settings;
        let half = output / 2;
        let ghost = |input, output, activation| architecture::Ghost {
            input,
            output,
            kernel: 1,
            stride: 1,
            groups: 1,
            activation,
        };
        let none = Activation::Identity;
        let each =
            |channels| Convolution::new(channels, channels, kernel, stride).grouped(channels);
        let first = Ghost::new(&mut scope.at("conv.0"), &ghost(input, half, activation))?;
        let between = if stride == 1 {
            None
        } else {
            Some(Conv::new(&mut scope.at("conv.1"), each(half), none)?)
        };
        let second = Ghost::new(&mut scope.at("conv.2"), &ghost(half, output, none))?;
        let strided = match between {
            None => None,
            Some(between) => {
                let widen = Convolution::new(input, output, 1, 1);
                let shortcut = [
                    Conv::new(&mut scope.at("shortcut.0"), each(input), none)?,
                    Conv::new(&mut scope.at("shortcut.1"), widen, none)?,
                ];
                Some(Strided { between, shortcut })
            }
        };
        Ok(Self {
            first,
            second,
            strided,
        })
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        let mut main = self.first.trace(input, work)?;
        let mut side = input;
        if let Some(Strided { between, shortcut }) = &self.strided {
            main = between.trace(main, work)?;
            for conv in shortcut {
                side = conv.trace(side, work)?;
            }
        }
        let main = self.second.trace(main, work)?;
        if main != side {
            return Err(format!(
                "it adds {} channels of {} cells to {} of {}: write as many channels out as in, or stride 2",
                side.channels,
                side.sides(),
                main.channels,
                main.sides()
            ));
        }
        Ok(main)
    }
}

impl GhostBottleneck<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let main = self.first.forward(x, phase)?;
        let Some(Strided { between, shortcut }) = &self.strided else {
            return self.second.forward(&main, phase)?.f_add(x);
        };
        let main = self
            .second
            .forward(&between.forward(&main, phase)?, phase)?;
        let [deep, wide] = shortcut;
        main.f_add(&wide.forward(&deep.forward(x, phase)?, phase)?)
    }
}
