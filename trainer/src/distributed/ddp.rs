//! Gradients that are the same on every rank.

use tch::Tensor;
use torch_bridge::{Fault, Reducer, ReducerOptions, verify_params};

use super::{Ranks, Result};

/// What becomes of the gradients of a backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradients {
    /// They are added to those there are, and the sum is averaged over the ranks: the optimiser steps next.
    Averaged,
    /// They are added to those there are, on this rank only.
    Kept,
}

/// Averages gradients over the ranks while the backward pass still runs; on one rank, nothing.
pub struct Ddp {
    reducer: Option<Reducer>,
}

impl Ddp {
    /// Hooks into the gradients of the parameters, after making sure that all ranks have the same ones.
    ///
    /// After the first averaged backward pass libtorch orders its messages anew, by the arrival of the
    /// gradients, and with the order the last bits of the sums may change. So the first pass after every
    /// start is one whose gradients are thrown away.
    pub fn new(ranks: &mut Ranks, names: &[String], parameters: &[Tensor]) -> Result<Self> {
        let Some(group) = ranks.group() else {
            return Ok(Self { reducer: None });
        };
        verify_params(group, parameters)?;
        let named: Vec<(String, Tensor)> = names
            .iter()
            .cloned()
            .zip(parameters.iter().map(Tensor::shallow_clone))
            .collect();
        let options = ReducerOptions {
            gradient_as_bucket_view: true,
            ..ReducerOptions::default()
        };
        Ok(Self {
            reducer: Some(Reducer::new(group, &named, options)?),
        })
    }

    /// Whether there is only one rank.
    pub fn is_alone(&self) -> bool {
        self.reducer.is_none()
    }

    /// Comes before each forward pass.
    pub fn before_forward(&mut self, gradients: Gradients) -> Result<()> {
        if let (Some(reducer), Gradients::Averaged) = (&mut self.reducer, gradients) {
            reducer.prepare_for_forward()?;
            reducer.rebuild_buckets()?;
        }
        Ok(())
    }

    /// Computes the gradients of `loss`.
    pub fn backward(&mut self, loss: &Tensor, gradients: Gradients) -> Result<()> {
        match (&mut self.reducer, gradients) {
            (Some(reducer), Gradients::Averaged) => {
                reducer.prepare_for_backward(&[])?;
                reducer.backward(loss)
            }
            _ => loss
                .f_backward()
                .map_err(|error| torch_bridge::Error::Backward(Fault::from(&error))),
        }
    }
}
