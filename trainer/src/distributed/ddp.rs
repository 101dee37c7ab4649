//! Gradients that are the same on every rank.

use tch::Tensor;
use torch_bridge::{Fault, Reducer, ReducerOptions, verify_params};
use trainer_model::network::Network;

use super::{Ranks, Result};

/// Averages gradients over the ranks during the backward pass; on one rank, nothing.
#[derive(Debug)]
pub struct Ddp {
    reducer: Option<Reducer>,
}

impl Ddp {
    /// Hooks into the gradients of `network`, after making sure that all ranks have the same one.
    pub fn new(ranks: &mut Ranks, network: &Network) -> Result<Self> {
        let Some(group) = ranks.group() else {
            return Ok(Self { reducer: None });
        };
        let state = network.state();
        let tensors = state.parameter_tensors();
        verify_params(group, &tensors)?;
        let named: Vec<(String, Tensor)> =
            state.parameter_names().into_iter().zip(tensors).collect();
        let reducer = Reducer::new(group, &named, ReducerOptions::default())?;
        Ok(Self {
            reducer: Some(reducer),
        })
    }

    /// Call it before each forward pass; `shared` when its gradients will be averaged.
    pub fn before_forward(&mut self, shared: bool) -> Result<()> {
        if let Some(reducer) = self.reducer.as_mut().filter(|_| shared) {
            reducer.prepare_for_forward()?;
            reducer.rebuild_buckets()?;
        }
        Ok(())
    }

    /// Adds the gradients of `loss` to those there are; if `shared`, averages all of them over the
    /// ranks.
    pub fn backward(&mut self, loss: &Tensor, shared: bool) -> Result<()> {
        match self.reducer.as_mut().filter(|_| shared) {
            None => loss
                .f_backward()
                .map_err(|error| torch_bridge::Error::Backward(Fault::from(&error))),
            Some(reducer) => {
                reducer.prepare_for_backward(&[])?;
                reducer.backward(loss)
            }
        }
    }
}
