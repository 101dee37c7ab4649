//! A transformer over the cells of an image: attention and a linear pair, without layer normalisation.

use tch::{Kind, TchError, Tensor};

use super::scope::{Maker, Scope};
use crate::architecture::{HEADS, Initial, Role, Shape, Work};
use crate::error::Error;

/// Cells as a sequence: `tr(p + linear(p))`.
pub(crate) struct Transformer<T> {
    channels: i64,
    /// A learnt addition that depends on what is in a cell.
    linear: Linear<T>,
    layers: Vec<Layer<T>>,
}

/// `x + attention(q(x), k(x), v(x))`, then `x + fc2(fc1(x))`.
struct Layer<T> {
    q: Linear<T>,
    k: Linear<T>,
    v: Linear<T>,
    attention: Attention<T>,
    fc1: Linear<T>,
    fc2: Linear<T>,
}

/// Multi-head attention with `PyTorch`'s names: the projections of q, k and v lie in one matrix.
struct Attention<T> {
    projections: Linear<T>,
    out: Linear<T>,
}

struct Linear<T> {
    weight: T,
    bias: Option<T>,
}

impl<T> Linear<T> {
    fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        channels: i64,
        with_bias: bool,
    ) -> Result<Self, Error> {
        let initial = Initial::of_fan_in(channels);
        let shape = vec![channels, channels];
        Ok(Self {
            weight: scope.tensor("weight", Role::Weight, shape, initial)?,
            bias: if with_bias {
                Some(scope.tensor("bias", Role::Bias, vec![channels], initial)?)
            } else {
                None
            },
        })
    }
}

impl Linear<Tensor> {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_linear(&self.weight, self.bias.as_ref())
    }
}

impl<T> Attention<T> {
    fn new<M: Maker<Tensor = T>>(scope: &mut Scope<'_, M>, channels: i64) -> Result<Self, Error> {
        // Xavier-uniform over the three projections as one matrix, as PyTorch begins it.
        let projections = Initial::Uniform {
            bound: (6.0 / (4 * channels) as f64).sqrt(),
        };
        let shape = vec![3 * channels, channels];
        let projections = Linear {
            weight: scope.tensor("in_proj_weight", Role::Weight, shape, projections)?,
            bias: Some(scope.tensor(
                "in_proj_bias",
                Role::Bias,
                vec![3 * channels],
                Initial::Blank,
            )?),
        };
        let mut out = scope.at("out_proj");
        let initial = Initial::of_fan_in(channels);
        let shape = vec![channels, channels];
        let out = Linear {
            weight: out.tensor("weight", Role::Weight, shape, initial)?,
            bias: Some(out.tensor("bias", Role::Bias, vec![channels], Initial::Blank)?),
        };
        Ok(Self { projections, out })
    }
}

impl Attention<Tensor> {
    /// `softmax(q kᵀ / √d) v` in each head; all are `[images, cells, channels]`.
    fn forward(&self, inputs: [&Tensor; 3]) -> Result<Tensor, TchError> {
        let (images, cells, channels) = inputs[0].size3()?;
        let weights = self.projections.weight.f_chunk(3, 0)?;
        let biases = match &self.projections.bias {
            Some(bias) => bias.f_chunk(3, 0)?,
            None => Vec::new(),
        };
        let project = |part: usize| {
            inputs[part]
                .f_linear(&weights[part], biases.get(part))?
                .f_view([images, cells, HEADS, channels / HEADS])?
                .f_transpose(1, 2)
        };
        let (q, k, v) = (project(0)?, project(1)?, project(2)?);
        let scale = 1.0 / ((channels / HEADS) as f64).sqrt();
        let attention = q
            .f_mul_scalar(scale)?
            .f_matmul(&k.f_transpose(2, 3)?)?
            .f_softmax(-1, None::<Kind>)?;
        let mixed = attention
            .f_matmul(&v)?
            .f_transpose(1, 2)?
            .f_reshape([images, cells, channels])?;
        self.out.forward(&mixed)
    }
}

impl<T> Transformer<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        channels: i64,
        layers: usize,
    ) -> Result<Self, Error> {
        let linear = Linear::new(&mut scope.at("linear"), channels, true)?;
        let layers = (0..layers)
            .map(|layer| {
                let mut scope = scope.at(&format!("tr.{layer}"));
                let mut part = |name| Linear::new(&mut scope.at(name), channels, false);
                let (q, k, v) = (part("q")?, part("k")?, part("v")?);
                let attention = Attention::new(&mut scope.at("ma"), channels)?;
                let mut part = |name| Linear::new(&mut scope.at(name), channels, false);
                Ok(Layer {
                    q,
                    k,
                    v,
                    attention,
                    fc1: part("fc1")?,
                    fc2: part("fc2")?,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            channels,
            linear,
            layers,
        })
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        if input.channels != self.channels || self.channels % HEADS != 0 {
            return Err(format!(
                "its transformer works on {} channels, a multiple of {HEADS}, but gets {}",
                self.channels, input.channels
            ));
        }
        let (cells, channels) = (input.cells(), self.channels);
        work.add(&[cells, channels, channels]);
        for _ in &self.layers {
            // q, k, v, three projections, out, fc1, fc2; then what attends to what, and the mixture.
            work.add(&[9, cells, channels, channels]);
            work.add(&[2, cells, cells, channels]);
        }
        Ok(input)
    }
}

impl Transformer<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (images, channels, height, width) = x.size4()?;
        let cells = x
            .f_reshape([images, channels, height * width])?
            .f_transpose(1, 2)?;
        let mut cells = cells.f_add(&self.linear.forward(&cells)?)?;
        for layer in &self.layers {
            cells = layer.forward(&cells)?;
        }
        cells
            .f_transpose(1, 2)?
            .f_reshape([images, channels, height, width])
    }
}

impl Layer<Tensor> {
    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let (q, k, v) = (self.q.forward(x)?, self.k.forward(x)?, self.v.forward(x)?);
        let x = x.f_add(&self.attention.forward([&q, &k, &v])?)?;
        x.f_add(&self.fc2.forward(&self.fc1.forward(&x)?)?)
    }
}
