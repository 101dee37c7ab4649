//! `GhostNet`'s blocks: half of the channels are made cheaply from the other half.

use tch::{TchError, Tensor};

use super::Phase;
use super::conv::Conv;
use super::scope::{Maker, Scope};
use crate::architecture::{self, Activation, GhostStride, Shape, Work};
use crate::error::Error;

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
        let [first, cheap] = settings.convolutions();
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), first, settings.activation)?,
            cv2: Conv::new(&mut scope.at("cv2"), cheap, settings.activation)?,
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
        let [first, second] = settings.ghosts();
        let strided = settings.strided();
        let none = Activation::Identity;
        // Tensors are made in the order of their names.
        let first = Ghost::new(&mut scope.at("conv.0"), &first)?;
        let between = match &strided {
            Some(strided) => Some(Conv::new(&mut scope.at("conv.1"), strided.between, none)?),
            None => None,
        };
        let second = Ghost::new(&mut scope.at("conv.2"), &second)?;
        let strided = match between.zip(strided) {
            Some((
                between,
                GhostStride {
                    shortcut: [deep, wide],
                    ..
                },
            )) => {
                let shortcut = [
                    Conv::new(&mut scope.at("shortcut.0"), deep, none)?,
                    Conv::new(&mut scope.at("shortcut.1"), wide, none)?,
                ];
                Some(Strided { between, shortcut })
            }
            None => None,
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
