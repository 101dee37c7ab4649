//! The exponential moving average of the weights, which is what is evaluated and kept.

use std::collections::BTreeMap;

use tch::Tensor;
use trainer_core::ema::decay;

use crate::error::Error;
use crate::network::Network;
use crate::state::State;

/// A second network that follows the trained one.
///
/// YOLOv5 v7.0 behaviour: parameters and running statistics are averaged with a decay that grows
/// with the number of updates; counters keep the values they had when the average began.
pub struct Ema {
    network: Network,
    updates: u64,
}

impl Ema {
    /// An average that begins as a copy of `network`.
    pub fn new(network: &Network) -> Result<Self, Error> {
        Ok(Self {
            network: network.copy_of()?,
            updates: 0,
        })
    }

    /// Moves the average towards `network`; call it after each step of the optimiser.
    pub fn update(&mut self, network: &Network) -> Result<(), Error> {
        self.updates += 1;
        let weight = 1.0 - decay(self.updates);
        let mut averaged = averaged_tensors(self.network.state());
        let sources = averaged_tensors(network.state());
        torch_bridge::optim::foreach_lerp(&mut averaged, &sources, weight).map_err(Error::Ema)
    }

    /// How often the average has moved.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The averaged network, to evaluate with.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The averaged tensors.
    pub fn state(&self) -> &State {
        self.network.state()
    }

    /// Takes over an average that was exported after `updates` updates.
    pub fn restore(
        &mut self,
        updates: u64,
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<(), Error> {
        self.network.state_mut().import(tensors)?;
        self.updates = updates;
        Ok(())
    }
}

/// Handles of everything that is averaged. The anchors are constant.
fn averaged_tensors(state: &State) -> Vec<Tensor> {
    let mut tensors = state.parameter_tensors();
    tensors.push(state.statistics().shallow_clone());
    tensors
}

#[cfg(test)]
#[path = "ema_tests.rs"]
mod tests;
