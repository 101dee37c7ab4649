//! Two convolutions around which the input may be added.

use tch::{TchError, Tensor};

use super::Phase;
use super::conv::Conv;
use super::scope::{Maker, Scope};
use crate::architecture::{Pair, Shape, Work};
use crate::error::Error;

/// `cv2(cv1(x))`, plus x if it is told and possible.
pub(crate) struct Bottleneck<T> {
    pub(super) cv1: Conv<T>,
    pub(super) cv2: Conv<T>,
    pub(super) adds_input: bool,
}

impl<T> Bottleneck<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        pair: &Pair,
    ) -> Result<Self, Error> {
        let [first, second] = pair.convolutions;
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), first, pair.activation)?,
            cv2: Conv::new(&mut scope.at("cv2"), second, pair.activation)?,
            adds_input: pair.adds_input,
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
