//! The transformer over the cells of an image as nodes.

use tch::Tensor;
use trainer_formats::onnx::Attribute;
use trainer_model::architecture::HEADS;

use super::{Emitter, Result};

impl Emitter<'_> {
    /// As `trainer_model`'s transformer: cells as a sequence, a linear addition, then its layers.
    pub(super) fn transformer(
        &mut self,
        place: &str,
        channels: i64,
        layers: usize,
        x: &str,
    ) -> Result<String> {
        let shape = self.onnx.node("Shape", &[x], vec![]);
        let flat = self.onnx.ints(&[0, channels, -1]);
        let cells = self.onnx.node("Reshape", &[x, &flat], vec![]);
        let cells = self.transposed(&cells, &[0, 2, 1]);
        let more = self.linear(&format!("{place}.linear"), true, &cells)?;
        let mut cells = self.onnx.node("Add", &[&cells, &more], vec![]);
        for layer in 0..layers {
            cells = self.attending(&format!("{place}.tr.{layer}"), channels, &cells)?;
        }
        let cells = self.transposed(&cells, &[0, 2, 1]);
        Ok(self.onnx.node("Reshape", &[&cells, &shape], vec![]))
    }

    /// `x + attention(q(x), k(x), v(x))`, then `x + fc2(fc1(x))`.
    fn attending(&mut self, place: &str, channels: i64, x: &str) -> Result<String> {
        let weights = self.tensor(&format!("{place}.ma.in_proj_weight"))?;
        let biases = self.tensor(&format!("{place}.ma.in_proj_bias"))?;
        let heads = self.onnx.ints(&[0, 0, HEADS, channels / HEADS]);
        let mut projected = Vec::new();
        for (part, name) in (0..).zip(["q", "k", "v"]) {
            let own = self.linear(&format!("{place}.{name}"), false, x)?;
            let third = |all: &Tensor| {
                all.f_narrow(0, part * channels, channels)
                    .map_err(|source| trainer_model::Error::Copy {
                        name: format!("{place}.ma"),
                        source,
                    })
            };
            let (weight, bias) = (third(&weights)?, third(&biases)?);
            let name = format!("{place}.ma.{name}");
            let whole = self.times(&name, &weight, Some(&bias), &own)?;
            let parts = self.onnx.node("Reshape", &[&whole, &heads], vec![]);
            projected.push(self.transposed(&parts, &[0, 2, 1, 3]));
        }
        let scale = 1.0 / ((channels / HEADS) as f32).sqrt();
        let scale = self.numbers(&[], &[scale]);
        let keys = self.transposed(&projected[1], &[0, 1, 3, 2]);
        let queries = self.onnx.node("Mul", &[&projected[0], &scale], vec![]);
        let attention = self.onnx.node("MatMul", &[&queries, &keys], vec![]);
        let last = vec![("axis", Attribute::Int(-1))];
        let attention = self.onnx.node("Softmax", &[&attention], last);
        let mixed = self
            .onnx
            .node("MatMul", &[&attention, &projected[2]], vec![]);
        let mixed = self.transposed(&mixed, &[0, 2, 1, 3]);
        let whole = self.onnx.ints(&[0, 0, channels]);
        let mixed = self.onnx.node("Reshape", &[&mixed, &whole], vec![]);
        let mixed = self.linear(&format!("{place}.ma.out_proj"), true, &mixed)?;
        let x = self.onnx.node("Add", &[x, &mixed], vec![]);

        let deep = self.linear(&format!("{place}.fc1"), false, &x)?;
        let deep = self.linear(&format!("{place}.fc2"), false, &deep)?;
        Ok(self.onnx.node("Add", &[&x, &deep], vec![]))
    }

    fn linear(&mut self, place: &str, with_bias: bool, x: &str) -> Result<String> {
        let weight = self.tensor(&format!("{place}.weight"))?;
        let bias = if with_bias {
            Some(self.tensor(&format!("{place}.bias"))?)
        } else {
            None
        };
        self.times(place, &weight, bias.as_ref(), x)
    }

    /// `x` times `weight` turned, plus `bias`; the constants are called after `place`.
    fn times(
        &mut self,
        place: &str,
        weight: &Tensor,
        bias: Option<&Tensor>,
        x: &str,
    ) -> Result<String> {
        let turned = weight
            .f_transpose(0, 1)
            .map_err(|source| trainer_model::Error::Copy {
                name: place.to_owned(),
                source,
            })?;
        let weight = self.constant(&format!("{place}.weight"), &turned)?;
        let product = self.onnx.node("MatMul", &[x, &weight], vec![]);
        let Some(bias) = bias else {
            return Ok(product);
        };
        let bias = self.constant(&format!("{place}.bias"), bias)?;
        Ok(self.onnx.node("Add", &[&product, &bias], vec![]))
    }

    fn transposed(&mut self, x: &str, order: &[i64]) -> String {
        let order = vec![("perm", Attribute::Ints(order.to_vec()))];
        self.onnx.node("Transpose", &[x], order)
    }
}
