//! Cross stage partial blocks: one branch does the work, the other goes past it.

use tch::{TchError, Tensor};

use torch_bridge::{Besides, Split, can_norm_silu};

use super::activation::activate;
use super::bottleneck::Bottleneck;
use super::conv::{BatchNorm, Conv, Conv2d};
use super::pyramid::Spp;
use super::scope::{Maker, Scope};
use super::transformer::Transformer;
use super::{Block, Phase};
use crate::architecture::{self, Activation, Convolution, Csp, Shape, Work};
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
    Row(Vec<Block<T>>),
    Transformer(Transformer<T>),
    Pyramid(Box<Spp<T>>),
}

impl<T> Branch<T> {
    fn new<M: Maker<Tensor = T>>(scope: &mut Scope<'_, M>, csp: &Csp) -> Result<Self, Error> {
        Ok(match csp.branch() {
            architecture::Branch::Row { repeats, module } => {
                let all = (0..repeats)
                    .map(|index| Block::new(&mut scope.at(&index.to_string()), &module));
                Self::Row(all.collect::<Result<_, _>>()?)
            }
            architecture::Branch::Transformer { channels, layers } => {
                Self::Transformer(Transformer::new(scope, channels, layers)?)
            }
            architecture::Branch::Pyramid(pyramid) => {
                Self::Pyramid(Box::new(Spp::new(scope, &pyramid)?))
            }
        })
    }

    fn trace(&self, mut x: Shape, work: &mut Work) -> Result<Shape, String> {
        match self {
            Self::Row(all) => {
                for one in all {
                    x = one.trace(&[x], work)?[0];
                }
                Ok(x)
            }
            Self::Transformer(transformer) => transformer.trace(x, work),
            Self::Pyramid(pyramid) => pyramid.trace(x, work),
        }
    }
}

impl Branch<Tensor> {
    /// The branch as a row of bottlenecks, if it is one.
    fn bottlenecks(&self) -> Option<Vec<&Bottleneck<Tensor>>> {
        match self {
            Self::Row(all) if !all.is_empty() => all.iter().map(Block::as_bottleneck).collect(),
            _ => None,
        }
    }

    fn forward(&self, mut x: Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        match self {
            Self::Row(all) => {
                for one in all {
                    x = one.forward(&[&x], phase)?.swap_remove(0);
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
        let mut conv = |name, settings| Conv::new(&mut scope.at(name), settings, csp.activation);
        Ok(Self {
            cv1: conv("cv1", csp.entry())?,
            cv2: conv("cv2", csp.entry())?,
            cv3: conv("cv3", csp.exit())?,
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
        let both = if let Some(both) = self.forward_together(x, phase)? {
            both
        } else {
            let main = self.branch.forward(self.cv1.forward(x, phase)?, phase)?;
            Tensor::f_cat(&[main, self.cv2.forward(x, phase)?], 1)?
        };
        self.cv3.forward(&both, phase)
    }

    /// The input of cv3, with fewer walks through memory: cv1 and cv2 are one convolution, and the bottlenecks' sums and
    /// what lies side by side are written where they belong. `None` where that cannot be done.
    fn forward_together(&self, x: &Tensor, phase: Phase<'_>) -> Result<Option<Tensor>, TchError> {
        let Some(bottlenecks) = self.branch.bottlenecks() else {
            return Ok(None);
        };
        let ends = [&self.cv1, &self.cv2];
        let known = ends.into_iter().all(Conv::is_norm_silu)
            && bottlenecks.iter().all(|one| one.cv2.is_norm_silu());
        if !matches!(phase, Phase::Training) || !known || !can_norm_silu(x) {
            return Ok(None);
        }
        let adds = |index: usize| bottlenecks.get(index).is_some_and(|one| one.adds_input);
        let Some(Split { mut first, last }) = self.cv1.forward_both(&self.cv2, x, adds(0))? else {
            return Ok(None);
        };
        for (index, one) in bottlenecks.iter().enumerate() {
            let hidden = one.cv1.forward(&first.result, phase)?;
            let is_last = index + 1 == bottlenecks.len();
            let besides = Besides {
                added: first.again.as_ref(),
                beside: is_last.then_some(&last),
                twice: adds(index + 1),
            };
            first = one.cv2.forward_with(&hidden, &besides)?;
        }
        Ok(Some(first.result))
    }
}

impl<T> BottleneckCsp<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        csp: &Csp,
    ) -> Result<Self, Error> {
        let between = Convolution::new(csp.hidden, csp.hidden, 1, 1);
        Ok(Self {
            cv1: Conv::new(&mut scope.at("cv1"), csp.entry(), csp.activation)?,
            cv2: Conv2d::new(&mut scope.at("cv2"), csp.entry())?,
            cv3: Conv2d::new(&mut scope.at("cv3"), between)?,
            cv4: Conv::new(&mut scope.at("cv4"), csp.exit(), csp.activation)?,
            normalisation: BatchNorm::new(&mut scope.at("bn"), 2 * csp.hidden)?,
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
