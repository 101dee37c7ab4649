//! Which images this rank works on, step by step.

use std::collections::BTreeSet;

use contract::spec::TrainerSpec;
use trainer_core::rng::recovery_seed;
use trainer_core::sampler::{EpochOrder, OrderKind, Sampler};
use trainer_data::StepRequest;

use crate::checkpoint::RunState;
use crate::distributed::Ranks;
use crate::error::Error;

/// The order of `images` training images, epoch by epoch.
pub fn sampler(spec: &TrainerSpec, images: usize, state: &RunState) -> Result<Sampler, Error> {
    let seed = recovery_seed(spec.training.seed.into(), state.recovery);
    let batch = spec.training.batch_size as usize;
    Sampler::new(seed, OrderKind::Shuffled, images, batch).map_err(Error::Sampler)
}

/// This rank's images of each step, from a state to the end of the run.
pub struct Requests {
    sampler: Sampler,
    /// Images that the present epoch does without, see [`RunState::excluded`].
    excluded: BTreeSet<u32>,
    excluded_epoch: u32,
    rank: usize,
    world: usize,
    epochs: u32,
    epoch: u32,
    position: usize,
    step: u64,
    order: Option<EpochOrder>,
}

impl Requests {
    pub fn new(sampler: Sampler, ranks: &Ranks, epochs: u32, state: &RunState) -> Self {
        Self {
            sampler,
            excluded: state.excluded.iter().copied().collect(),
            excluded_epoch: state.excluded_epoch,
            rank: ranks.rank() as usize,
            world: ranks.world() as usize,
            epochs,
            epoch: state.epoch,
            position: state.position as usize,
            step: state.step,
            order: None,
        }
    }
}

impl Iterator for Requests {
    type Item = StepRequest;

    fn next(&mut self) -> Option<StepRequest> {
        while self.epoch < self.epochs {
            let epoch = u64::from(self.epoch);
            let order = self.order.get_or_insert_with(|| self.sampler.epoch(epoch));
            if self.position >= order.len() {
                self.epoch += 1;
                self.position = 0;
                self.order = None;
                continue;
            }
            let share = order.share(self.position, self.rank, self.world).images;
            let left_out =
                |image: &u32| self.epoch == self.excluded_epoch && self.excluded.contains(image);
            let request = StepRequest {
                epoch,
                step: self.step,
                indices: share.iter().copied().filter(|i| !left_out(i)).collect(),
            };
            self.position += order.batch(self.position).len();
            self.step += 1;
            return Some(request);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cross_epochs_and_go_on_from_any_position() {
        let request = |position: usize, epoch: u32| Requests {
            sampler: Sampler::new(1, OrderKind::Shuffled, 10, 4).expect("valid"),
            excluded: BTreeSet::new(),
            excluded_epoch: 0,
            rank: 1,
            world: 2,
            epochs: 2,
            epoch,
            position,
            step: u64::from(epoch) * 3 + position as u64 / 4,
            order: None,
        };
        let all: Vec<_> = request(0, 0).collect();
        assert_eq!(6, all.len());
        assert_eq!(all[2..], request(8, 0).collect::<Vec<_>>());
        // At the end of an epoch, its evaluation may be left to do, but no step.
        let after: Vec<_> = request(10, 0).map(|r| (r.epoch, r.indices)).collect();
        let expected: Vec<_> = all[3..]
            .iter()
            .map(|r| (r.epoch, r.indices.clone()))
            .collect();
        assert_eq!(expected, after);
        assert_eq!([2, 2, 1], [0, 1, 2].map(|step| all[step].indices.len()));

        let mut without = request(0, 0);
        without.excluded = all[1].indices.iter().copied().collect();
        let without: Vec<_> = without.collect();
        assert!(without[1].indices.is_empty());
        assert_eq!((&all[0], &all[2..]), (&without[0], &without[2..]));
    }
}
