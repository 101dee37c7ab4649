//! Cross stage partial blocks: one branch does the work, the other goes past it.

use tch::{TchError, Tensor};

use super::Phase;
use super::activation::activate;
use super::bottleneck::Bottleneck;
use super::conv::{BatchNorm, Conv, Conv2d};
use super::ghost::GhostBottleneck;
use super::pyramid::Spp;
use super::scope::{Maker, Scope};
use super::transformer::Transformer;
use crate::architecture::{self, Activation, Convolution, Csp, Inner, Shape, Work};
use crate::error::Error;

/// `cv3(cat(branch(cv1(x)), cv2(x)))`.
pub(crate) struct C3<T> {
    cv1: Conv<T>,
    cv2: Conv<T>,
    cv3: Conv<T>,
    branch: Branch<T>,
}

/// `cv4(act(bn(cat(cv3(branch(cv1(x))), cv2(x)))))`. Only cv1 and cv4 have a normalisation of their own;
/// the activation is `SiLU` whatever the network's is.
pub(crate) struct BottleneckCsp<T> {
    cv1: Conv<T>,
    cv2: Conv2d<T>,
    cv3: Conv2d<T>,
    cv4: Conv<T>,
    normalisation: BatchNorm<T>,
    branch: Branch<T>,
}

/// What the first branch does.
enum Branch<T> {
    Bottlenecks(Vec<Bottleneck<T>>),
    Ghosts(Vec<GhostBottleneck<T>>),
    Transformer(Transformer<T>),
    Pyramid(Box<Spp<T>>),
}

impl<T> Branch<T> {
    fn new<M: Maker<Tensor = T>>(scope: &mut Scope<'_, M>, csp: &Csp) -> Result<Self, Error> {
        let channels = csp.hidden;
        let activation = csp.activation;
        Ok(match csp.inner {
            Inner::Bottlenecks {
                repeats,
                shortcut,
                groups,
            } => {
                let settings = architecture::Bottleneck {
                    input: channels,
                    output: channels,
                    hidden: channels,
                    groups,
                    shortcut,
                    activation,
                };
                let all = (0..repeats)
                    .map(|index| Bottleneck::new(&mut scope.at(&index.to_string()), &settings));
                Self::Bottlenecks(all.collect::<Result<_, _>>()?)
            }
            Inner::Crosses {
                repeats,
                shortcut,
                groups,
            } => {
                let settings = architecture::Cross {
                    input: channels,
                    output: channels,
                    hidden: channels,
                    kernel: 3,
                    stride: 1,
                    groups,
                    shortcut,
                    activation,
                };
                let all = (0..repeats)
                    .map(|index| Bottleneck::cross(&mut scope.at(&index.to_string()), &settings));
                Self::Bottlenecks(all.collect::<Result<_, _>>()?)
            }
            Inner::Ghosts { repeats } => {
                let settings = architecture::GhostBottleneck {
                    input: channels,
                    output: channels,
                    kernel: 3,
                    stride: 1,
                    activation,
                };
                let all = (0..repeats).map(|index| {
                    GhostBottleneck::new(&mut scope.at(&index.to_string()), &settings)
                });
                Self::Ghosts(all.collect::<Result<_, _>>()?)
            }
            Inner::Transformer { repeats } => {
                Self::Transformer(Transformer::new(scope, channels, repeats)?)
            }
            Inner::Pyramid { ref kernels } => {
                let settings = architecture::Pyramid {
                    input: channels,
                    output: channels,
                    kernels: kernels.clone(),
                    activation,
                };
                Self::Pyramid(Box::new(Spp::new(scope, &settings)?))
            }
        })
    }

    fn trace(&self, mut x: Shape, work: &mut Work) -> Result<Shape, String> {
        match self {
            Self::Bottlenecks(all) => {
                for one in all {
                    x = one.trace(x, work)?;
                }
                Ok(x)
            }
            Self::Ghosts(all) => {
                for one in all {
                    x = one.trace(x, work)?;
                }
                Ok(x)
            }
            Self::Transformer(transformer) => transformer.trace(x, work),
            Self::Pyramid(pyramid) => pyramid.trace(x, work),
        }
    }
}

impl Branch<Tensor> {
    fn forward(&self, mut x: Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        match self {
            Self::Bottlenecks(all) => {
                for one in all {
                    x = one.forward(&x, phase)?;
                }
                Ok(x)
            }
            Self::Ghosts(all) => {
                for one in all {
                    x = one.forward(&x, phase)?;
                }
                Ok(x)
            }
            Self::Transformer(transformer) => transformer.forward(&x),
            Self::Pyramid(pyramid) => pyramid.forward(&x, phase),
        }
    }
}

impl<T> C3<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        csp: &Csp,
    ) -> Result<Self, Error> {
        let mut conv = |name, input, output| {
            let settings = Convolution::new(input, output, 1, 1);
            Conv::new(&mut scope.at(name), settings, csp.activation)
        };
        Ok(Self {
            cv1: conv("cv1", csp.input, csp.hidden)?,
            cv2: conv("cv2", csp.input, csp.hidden)?,
            cv3: conv("cv3", 2 * csp.hidden, csp.output)?,
            branch: Branch::new(&mut scope.at("m"), csp)?,
        })
    }

    pub(crate) fn trace(&self, x: Shape, work: &mut Work) -> Result<Shape, String> {
        let main = self.cv1.trace(x, work)?;
        let main = self.branch.trace(main, work)?;
        let side = self.cv2.trace(x, work)?;
        let both = main.with_channels(main.channels + side.channels);
        self.cv3.trace(both, work)
    }
}

impl C3<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let main = self.branch.forward(self.cv1.forward(x, phase)?, phase)?;
        let side = self.cv2.forward(x, phase)?;
        self.cv3.forward(&Tensor::f_cat(&[main, side], 1)?, phase)
    }
}

impl<T> BottleneckCsp<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        csp: &Csp,
    ) -> Result<Self, Error> {
        let Csp {
            input,
            output,
            hidden,
            activation,
            ..
        } = *csp;
        let plain = |input| Convolution::new(input, hidden, 1, 1);
        let last = Convolution::new(2 * hidden, output, 1, 1);
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), plain(input), activation)?,
            cv2: Conv2d::new(&mut scope.at("cv2"), plain(input))?,
            cv3: Conv2d::new(&mut scope.at("cv3"), plain(hidden))?,
            cv4: Conv::new(&mut scope.at("cv4"), last, activation)?,
            normalisation: BatchNorm::new(&mut scope.at("bn"), 2 * hidden)?,
            branch: Branch::new(&mut scope.at("m"), csp)?,
        })
    }

    pub(crate) fn trace(&self, x: Shape, work: &mut Work) -> Result<Shape, String> {
        let main = self.cv1.trace(x, work)?;
        let main = self.branch.trace(main, work)?;
        let main = self.cv3.trace(main, work)?;
        let side = self.cv2.trace(x, work)?;
        let both = main.with_channels(main.channels + side.channels);
        self.cv4.trace(self.normalisation.trace(both)?, work)
    }
}

impl BottleneckCsp<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let main = self.branch.forward(self.cv1.forward(x, phase)?, phase)?;
        let main = self.cv3.forward(&main)?;
        let side = self.cv2.forward(x)?;
        let both = Tensor::f_cat(&[main, side], 1)?;
        let both = self.normalisation.forward(&both, phase)?;
        self.cv4.forward(&activate(Activation::Silu, &both)?, phase)
    }
}
