//! Two convolutions around which the input may be added.

use tch::{TchError, Tensor};

use super::Phase;
use super::conv::Conv;
use super::scope::{Maker, Scope};
use crate::architecture::{self, Convolution, Shape, Work};
use crate::error::Error;

/// `cv2(cv1(x))`, plus x if it is told and possible.
pub(crate) struct Bottleneck<T> {
    cv1: Conv<T>,
    cv2: Conv<T>,
    adds_input: bool,
}

impl<T> Bottleneck<T> {
    /// 1x1, then 3x3.
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &architecture::Bottleneck,
    ) -> Result<Self, Error> {
        let architecture::Bottleneck {
            input,
            output,
            hidden,
            groups,
            shortcut,
            activation,
        } = *settings;
        let second = Convolution::new(hidden, output, 3, 1).grouped(groups);
        Ok(Self {
            cv1: Conv::new(
                &mut scope.at("cv1"),
                Convolution::new(input, hidden, 1, 1),
                activation,
            )?,
            cv2: Conv::new(&mut scope.at("cv2"), second, activation)?,
            adds_input: shortcut && input == output,
        })
    }

    /// A row of `k`, then a column of `k`.
    pub(crate) fn cross<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &architecture::Cross,
    ) -> Result<Self, Error> {
        let architecture::Cross {
            input,
            output,
            hidden,
            kernel,
            stride,
            groups,
            shortcut,
            activation,
        } = *settings;
        let first = Convolution::rectangular(input, hidden, [1, kernel], [1, stride]);
        let second = Convolution::rectangular(hidden, output, [kernel, 1], [stride, 1]);
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), first, activation)?,
            cv2: Conv::new(&mut scope.at("cv2"), second.grouped(groups), activation)?,
            adds_input: shortcut && input == output,
        })
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        let output = self.cv2.trace(self.cv1.trace(input, work)?, work)?;
        if self.adds_input && output != input {
            return Err(format!(
                "it adds its input of {} cells to its output of {}: write False for shortcut, or an odd kernel and stride 1",
                input.sides(),
                output.sides()
            ));
        }
        Ok(output)
    }
}

impl Bottleneck<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let out = self.cv2.forward(&self.cv1.forward(x, phase)?, phase)?;
        if self.adds_input {
            x.f_add(&out)
        } else {
            Ok(out)
        }
    }
}
