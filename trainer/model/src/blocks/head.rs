//! The predictions of each level.

use tch::{TchError, Tensor};

use super::conv::Conv2d;
use super::scope::{Maker, Scope};
use crate::architecture::{Convolution, Initial, Role, Shape, Work};
use crate::error::Error;

/// A 1x1 convolution for each level.
pub(crate) struct Detect<T> {
    levels: Vec<Conv2d<T>>,
    anchors: usize,
}

impl<T> Detect<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        inputs: &[i64],
        anchors: usize,
        outputs: i64,
        strides: &[u32],
    ) -> Result<Self, Error> {
        let shape = vec![inputs.len() as i64, anchors as i64, 2];
        scope.tensor("anchors", Role::Anchors, shape, Initial::Blank)?;
        let levels = inputs
            .iter()
            .zip(strides)
            .enumerate()
            .map(|(level, (input, stride))| {
                let settings = Convolution::new(*input, anchors as i64 * outputs, 1, 1);
                let bias = |uniform| match uniform {
                    Initial::Uniform { bound } => Initial::DetectBias {
                        bound,
                        stride: *stride,
                        anchors,
                    },
                    other => other,
                };
                let mut scope = scope.at(&format!("m.{level}"));
                Conv2d::with_bias(&mut scope, settings, bias)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { levels, anchors })
    }

    pub(crate) fn trace(&self, inputs: &[Shape], work: &mut Work) -> Result<Vec<Shape>, String> {
        let levels = self.levels.iter().zip(inputs);
        levels.map(|(level, x)| level.trace(*x, work)).collect()
    }
}

impl Detect<Tensor> {
    /// Raw predictions `[images, anchors, height, width, outputs]` of each level.
    pub(crate) fn forward(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, TchError> {
        let levels = self.levels.iter().zip(inputs);
        levels
            .map(|(level, x)| {
                let out = level.forward(x)?;
                let (images, channels, height, width) = out.size4()?;
                let anchors = self.anchors as i64;
                out.f_view([images, anchors, channels / anchors, height, width])?
                    .f_permute([0, 1, 3, 4, 2])
            })
            .collect()
    }
}
