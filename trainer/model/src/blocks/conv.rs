//! Convolutions and normalisations.

use tch::{TchError, Tensor};
use torch_bridge::{
    Besides, Normalisation, Split, Twice, can_norm_silu, norm_silu, norm_silu_with, split_norm_silu,
};

use super::Phase;
use super::activation::{activate, activate_own};
use super::scope::{Maker, Scope};
use crate::architecture::{
    Activation, Convolution, Form, Initial, NORM_EPS, NORM_MOMENTUM, Role, Shape, Work,
};
use crate::error::{Error, bridged};

/// A convolution alone, or with a bias.
pub(crate) struct Conv2d<T> {
    settings: Convolution,
    weight: T,
    bias: Option<T>,
}

/// Batch normalisation.
pub(crate) struct BatchNorm<T> {
    channels: i64,
    scale: T,
    shift: T,
    mean: T,
    variance: T,
}

/// A convolution, its normalisation, an activation.
pub(crate) struct Conv<T> {
    convolution: Conv2d<T>,
    /// None once it is folded into the convolution.
    normalisation: Option<BatchNorm<T>>,
    activation: Activation,
}

/// The cells of the input that [`Focus`] puts side by side: first row and column of every second.
const FOCUS: [[i64; 2]; 4] = [[0, 0], [1, 0], [0, 1], [1, 1]];

/// Every second cell in four ways, and a [`Conv`] of these.
pub(crate) struct Focus<T>(Conv<T>);

impl<T> Conv2d<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: Convolution,
    ) -> Result<Self, Error> {
        Self::begin(scope, settings).map(|(made, _)| made)
    }

    /// The same with a bias, which begins as `initial` makes of what the kernel begins with.
    pub(crate) fn with_bias<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: Convolution,
        initial: impl FnOnce(Initial) -> Initial,
    ) -> Result<Self, Error> {
        let (made, of_kernel) = Self::begin(scope, settings)?;
        let shape = vec![settings.output];
        let bias = scope.tensor("bias", Role::Bias, shape, initial(of_kernel))?;
        Ok(Self {
            bias: Some(bias),
            ..made
        })
    }

    fn begin<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: Convolution,
    ) -> Result<(Self, Initial), Error> {
        let Convolution {
            input,
            output,
            kernel: [rows, columns],
            groups,
            ..
        } = settings;
        let fan_in = input / groups;
        let initial = Initial::of_fan_in(fan_in * rows * columns);
        let shape = vec![output, fan_in, rows, columns];
        let made = Self {
            settings,
            weight: scope.tensor("weight", Role::Weight, shape, initial)?,
            bias: None,
        };
        Ok((made, initial))
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        let settings = &self.settings;
        if input.channels != settings.input {
            return Err(format!(
                "it takes {} channels, but its input has {}",
                settings.input, input.channels
            ));
        }
        let output = input
            .windows(settings.extent(), settings.stride, settings.padding)?
            .with_channels(settings.output);
        let [rows, columns] = settings.kernel;
        let fan_in = settings.input / settings.groups;
        work.add(&[output.channels, output.cells(), fan_in, rows, columns]);
        Ok(output)
    }
}

impl Conv2d<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        self.forward_with_weight(&self.weight, self.bias.as_ref(), x)
    }

    fn forward_with_weight(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        x: &Tensor,
    ) -> Result<Tensor, TchError> {
        let Convolution {
            stride,
            padding,
            dilation,
            groups,
            ..
        } = self.settings;
        x.f_conv2d(weight, bias, stride, padding, dilation, groups)
    }
}

impl<T> BatchNorm<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        channels: i64,
    ) -> Result<Self, Error> {
        let mut tensor = |name: &str, role, initial| {
            let shape = if role == Role::Counter {
                vec![]
            } else {
                vec![channels]
            };
            scope.tensor(name, role, shape, initial)
        };
        let made = Self {
            channels,
            scale: tensor("weight", Role::Norm, Initial::Constant(1.0))?,
            shift: tensor("bias", Role::Bias, Initial::Blank)?,
            mean: tensor("running_mean", Role::Statistic, Initial::Blank)?,
            variance: tensor("running_var", Role::Statistic, Initial::Constant(1.0))?,
        };
        // All counters are raised together; no block reads its own.
        tensor("num_batches_tracked", Role::Counter, Initial::Blank)?;
        Ok(made)
    }

    pub(crate) fn trace(&self, input: Shape) -> Result<Shape, String> {
        if input.channels == self.channels {
            Ok(input)
        } else {
            Err(format!(
                "its normalisation takes {} channels, but its input has {}",
                self.channels, input.channels
            ))
        }
    }
}

impl BatchNorm<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        if let Phase::Together(ranks) = phase {
            return bridged(ranks.batch_norm(x, &self.tensors()));
        }
        x.f_batch_norm(
            Some(&self.scale),
            Some(&self.shift),
            Some(&self.mean),
            Some(&self.variance),
            matches!(phase, Phase::Training),
            NORM_MOMENTUM,
            NORM_EPS,
            true,
        )
    }
}

impl BatchNorm<Tensor> {
    /// [`BatchNorm::forward`] in training, and `SiLU`.
    fn forward_with_silu(&self, x: &Tensor) -> Result<Tensor, TchError> {
        bridged(norm_silu(x, &self.tensors()))
    }

    fn tensors(&self) -> Normalisation<'_> {
        Normalisation {
            scale: &self.scale,
            shift: &self.shift,
            mean: &self.mean,
            variance: &self.variance,
            momentum: NORM_MOMENTUM,
            eps: NORM_EPS,
        }
    }
}

impl<T> Conv<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: Convolution,
        activation: Activation,
    ) -> Result<Self, Error> {
        let (convolution, normalisation) = match scope.form() {
            Form::Fused => {
                let mut scope = scope.at("conv");
                (
                    Conv2d::with_bias(&mut scope, settings, |_| Initial::Blank)?,
                    None,
                )
            }
            Form::Trainable => {
                let convolution = Conv2d::new(&mut scope.at("conv"), settings)?;
                let normalisation = BatchNorm::new(&mut scope.at("bn"), settings.output)?;
                (convolution, Some(normalisation))
            }
        };
        Ok(Self {
            convolution,
            normalisation,
            activation,
        })
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        self.convolution.trace(input, work)
    }
}

impl Conv<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        self.finish(self.convolution.forward(x)?, phase)
    }

    /// What follows the convolution.
    fn finish(&self, mut x: Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        if let Some(normalisation) = &self.normalisation {
            if matches!(phase, Phase::Training)
                && self.activation == Activation::Silu
                && can_norm_silu(&x)
            {
                return normalisation.forward_with_silu(&x);
            }
            x = normalisation.forward(&x, phase)?;
        }
        match phase {
            Phase::Training | Phase::Together(_) => activate(self.activation, &x),
            // Nothing else needs the values before the activation.
            Phase::Evaluation => activate_own(self.activation, x),
        }
    }
}

/// What is computed together in training on CPUs, where the channels of a pixel lie next to each other.
impl Conv<Tensor> {
    /// Whether its normalisation and activation are one operation in training.
    pub(crate) fn is_norm_silu(&self) -> bool {
        self.normalisation.is_some() && self.activation == Activation::Silu
    }

    /// [`Conv::forward`] in training, with what else can be done meanwhile.
    pub(crate) fn forward_with(
        &self,
        x: &Tensor,
        besides: &Besides<'_>,
    ) -> Result<Twice, TchError> {
        let hidden = self.convolution.forward(x)?;
        if let Some(normalisation) = &self.normalisation
            && can_norm_silu(&hidden)
        {
            return bridged(norm_silu_with(&hidden, &normalisation.tensors(), besides));
        }
        let mut result = self.finish(hidden, Phase::Training)?;
        if let Some(added) = besides.added {
            result = added.f_add(&result)?;
        }
        if let Some(beside) = besides.beside {
            result = Tensor::f_cat(&[&result, beside], 1)?;
        }
        let again = besides.twice.then(|| result.shallow_clone());
        Ok(Twice { result, again })
    }

    /// This and another one of the same input, as one convolution; `None` where they cannot be one.
    pub(crate) fn forward_both(
        &self,
        other: &Self,
        x: &Tensor,
        twice: bool,
    ) -> Result<Option<Split>, TchError> {
        let (Some(first), Some(last)) = (&self.normalisation, &other.normalisation) else {
            return Ok(None);
        };
        let weight = Tensor::f_cat(&[&self.convolution.weight, &other.convolution.weight], 0)?;
        let both = self.convolution.forward_with_weight(&weight, None, x)?;
        if !can_norm_silu(&both) {
            return Ok(None);
        }
        bridged(split_norm_silu(
            &both,
            &first.tensors(),
            &last.tensors(),
            twice,
        ))
        .map(Some)
    }
}

impl<T> Focus<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: Convolution,
        activation: Activation,
    ) -> Result<Self, Error> {
        Ok(Self(Conv::new(
            &mut scope.at("conv"),
            settings,
            activation,
        )?))
    }

    pub(crate) fn trace(&self, input: Shape, work: &mut Work) -> Result<Shape, String> {
        if input.height % 2 != 0 || input.width % 2 != 0 {
            return Err(format!(
                "its input has {} cells, which cannot be halved",
                input.sides()
            ));
        }
        let halved = Shape {
            channels: 4 * input.channels,
            height: input.height / 2,
            width: input.width / 2,
        };
        self.0.trace(halved, work)
    }
}

impl Focus<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let parts = FOCUS
            .iter()
            .map(|[row, column]| x.f_slice(2, *row, None, 2)?.f_slice(3, *column, None, 2))
            .collect::<Result<Vec<_>, _>>()?;
        self.0.forward(&Tensor::f_cat(&parts, 1)?, phase)
    }
}
