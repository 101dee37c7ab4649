//! Activations as nodes.

use trainer_formats::onnx::Attribute;
use trainer_model::architecture::Activation;

use super::Emitter;

impl Emitter<'_> {
    /// The activation of `x`.
    pub(super) fn activate(&mut self, activation: Activation, x: &str) -> String {
        let number = |emitter: &mut Self, number| emitter.numbers(&[], &[number]);
        match activation {
            Activation::Silu => {
                let gate = self.onnx.node("Sigmoid", &[x], vec![]);
                self.onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Relu => self.onnx.node("Relu", &[x], vec![]),
            Activation::Relu6 => {
                let (low, high) = (number(self, 0.0), number(self, 6.0));
                self.onnx.node("Clip", &[x, &low, &high], vec![])
            }
            Activation::LeakyRelu(slope) => self.onnx.node(
                "LeakyRelu",
                &[x],
                vec![("alpha", Attribute::Float(slope as f32))],
            ),
            Activation::Hardswish => {
                let alpha = ("alpha", Attribute::Float(1.0 / 6.0));
                let gate = self.onnx.node(
                    "HardSigmoid",
                    &[x],
                    vec![alpha, ("beta", Attribute::Float(0.5))],
                );
                self.onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Mish => {
                let soft = self.onnx.node("Softplus", &[x], vec![]);
                let gate = self.onnx.node("Tanh", &[&soft], vec![]);
                self.onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Gelu => {
                let root = number(self, std::f32::consts::FRAC_1_SQRT_2);
                let (one, half) = (number(self, 1.0), number(self, 0.5));
                let scaled = self.onnx.node("Mul", &[x, &root], vec![]);
                let erf = self.onnx.node("Erf", &[&scaled], vec![]);
                let sum = self.onnx.node("Add", &[&erf, &one], vec![]);
                let gate = self.onnx.node("Mul", &[&sum, &half], vec![]);
                self.onnx.node("Mul", &[x, &gate], vec![])
            }
            Activation::Elu(alpha) => {
                self.onnx
                    .node("Elu", &[x], vec![("alpha", Attribute::Float(alpha as f32))])
            }
            Activation::Identity => x.to_owned(),
        }
    }
}
