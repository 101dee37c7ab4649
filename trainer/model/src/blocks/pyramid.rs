//! Spatial pyramid pooling: an input and its maxima over larger and larger windows side by side.

use tch::{TchError, Tensor};

use super::Phase;
use super::conv::Conv;
use super::scope::{Maker, Scope};
use crate::architecture::{CHAIN, Pyramid, Shape, Work};
use crate::error::Error;

/// `cv2(cat(y, pool_1(y), pool_2(y), ...))` with `y = cv1(x)`.
pub(crate) struct Spp<T> {
    cv1: Conv<T>,
    cv2: Conv<T>,
    kernels: Vec<i64>,
}

/// `cv2(cat(y, pool(y), pool(pool(y)), pool(pool(pool(y)))))` with `y = cv1(x)`.
pub(crate) struct Sppf<T> {
    cv1: Conv<T>,
    cv2: Conv<T>,
    kernel: i64,
}

/// The convolutions around `poolings` poolings.
fn around<M: Maker>(
    scope: &mut Scope<'_, M>,
    settings: &Pyramid,
    poolings: usize,
) -> Result<[Conv<M::Tensor>; 2], Error> {
    let [first, last] = settings.convolutions(poolings);
    Ok([
        Conv::new(&mut scope.at("cv1"), first, settings.activation)?,
        Conv::new(&mut scope.at("cv2"), last, settings.activation)?,
    ])
}

/// The maximum over windows of `kernel`, an odd number; the size stays.
fn pool(x: &Tensor, kernel: i64) -> Result<Tensor, TchError> {
    x.f_max_pool2d([kernel; 2], [1; 2], [kernel / 2; 2], [1; 2], false)
}

impl<T> Spp<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &Pyramid,
    ) -> Result<Self, Error> {
        let [cv1, cv2] = around(scope, settings, settings.kernels.len())?;
        let kernels = settings.kernels.clone();
        Ok(Self { cv1, cv2, kernels })
    }

    pub(crate) fn trace(&self, x: Shape, work: &mut Work) -> Result<Shape, String> {
        let x = self.cv1.trace(x, work)?;
        let all = x.channels * (1 + self.kernels.len() as i64);
        self.cv2.trace(x.with_channels(all), work)
    }
}

impl Spp<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let x = self.cv1.forward(x, phase)?;
        let mut all = Vec::with_capacity(1 + self.kernels.len());
        for kernel in &self.kernels {
            all.push(pool(&x, *kernel)?);
        }
        all.insert(0, x);
        self.cv2.forward(&Tensor::f_cat(&all, 1)?, phase)
    }
}

impl<T> Sppf<T> {
    pub(crate) fn new<M: Maker<Tensor = T>>(
        scope: &mut Scope<'_, M>,
        settings: &Pyramid,
    ) -> Result<Self, Error> {
        let [cv1, cv2] = around(scope, settings, CHAIN)?;
        let kernel = settings.kernels.first().copied().unwrap_or(1);
        Ok(Self { cv1, cv2, kernel })
    }

    pub(crate) fn trace(&self, x: Shape, work: &mut Work) -> Result<Shape, String> {
        let x = self.cv1.trace(x, work)?;
        let all = x.channels * (1 + CHAIN as i64);
        self.cv2.trace(x.with_channels(all), work)
    }
}

impl Sppf<Tensor> {
    pub(crate) fn forward(&self, x: &Tensor, phase: Phase<'_>) -> Result<Tensor, TchError> {
        let mut all = vec![self.cv1.forward(x, phase)?];
        for pooled in 0..CHAIN {
            all.push(pool(&all[pooled], self.kernel)?);
        }
        self.cv2.forward(&Tensor::f_cat(&all, 1)?, phase)
    }
}
