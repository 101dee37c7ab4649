//! Which images this rank works on, step by step.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use contract::spec::TrainerSpec;
use trainer_core::quad;
use trainer_core::rng::recovery_seed;
use trainer_core::sampler::{EpochOrder, Sampler};
use trainer_data::{StepDrawn, StepRequest};

use crate::checkpoint::RunState;
use crate::distributed::Ranks;
use crate::error::Error;

/// The order of `images` training images, epoch by epoch.
pub fn sampler(spec: &TrainerSpec, images: usize, state: &RunState) -> Result<Sampler, Error> {
    let seed = recovery_seed(spec.training.seed.into(), state.recovery);
    let batch = spec.training.batch_size as usize;
    let sampler = Sampler::new(seed, images, batch).map_err(Error::Sampler)?;
    Ok(if spec.training.quad {
        sampler.in_groups(quad::IMAGES)
    } else {
        sampler
    })
}

/// How an epoch orders the images.
pub enum Order {
    /// A new permutation each epoch.
    Shuffled,
    /// The same each epoch.
    Fixed(Vec<u32>),
    /// Drawn by weights, which are known when their epoch begins.
    Weighted(Option<EpochWeights>),
}

/// The weights of all images in one epoch.
pub struct EpochWeights {
    pub epoch: u32,
    pub weights: Vec<f64>,
}

/// This rank's images of each step, from a state to the end of the run, or to the end of the epoch whose weights
/// are known.
pub struct Requests {
    sampler: Sampler,
    kind: Order,
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
    /// The images of the present epoch, if image weights chose them, and how often each was drawn before.
    drawn: Option<(Arc<[u32]>, Vec<u32>)>,
}

impl Requests {
    pub fn new(
        sampler: Sampler,
        kind: Order,
        ranks: &Ranks,
        epochs: u32,
        state: &RunState,
    ) -> Self {
        Self {
            sampler,
            kind,
            excluded: state.excluded.iter().copied().collect(),
            excluded_epoch: state.excluded_epoch,
            rank: ranks.rank() as usize,
            world: ranks.world() as usize,
            epochs,
            epoch: state.epoch,
            position: state.position as usize,
            step: state.step,
            order: None,
            drawn: None,
        }
    }

    /// Gives the images of an epoch weights, if the order goes by weights.
    pub fn weigh(&mut self, weights: EpochWeights) {
        if let Order::Weighted(before) = &mut self.kind {
            *before = Some(weights);
        }
    }

    /// The order of the present epoch; none as long as its weights are not known.
    fn present(&mut self) -> Option<&EpochOrder> {
        if self.order.is_none() {
            let order = match &self.kind {
                Order::Shuffled => self.sampler.epoch(self.epoch.into()),
                Order::Fixed(indices) => self.sampler.given(indices.clone()),
                Order::Weighted(known) => {
                    let known = known.as_ref().filter(|known| known.epoch == self.epoch)?;
                    let order = self.sampler.drawn(self.epoch.into(), &known.weights);
                    let images: Arc<[u32]> = order.indices().into();
                    let before = before(&images);
                    self.drawn = Some((images, before));
                    order
                }
            };
            self.order = Some(order);
        }
        self.order.as_ref()
    }
}

impl Iterator for Requests {
    type Item = StepRequest;

    fn next(&mut self) -> Option<StepRequest> {
        while self.epoch < self.epochs {
            let (position, rank, world) = (self.position, self.rank, self.world);
            let order = self.present()?;
            if position >= order.len() {
                self.epoch += 1;
                self.position = 0;
                self.order = None;
                continue;
            }
            let share = order.share(position, rank, world);
            let (first, share) = (share.first, share.images.to_vec());
            let next = position + order.batch(position).len();
            let left_out =
                |image: u32| self.epoch == self.excluded_epoch && self.excluded.contains(&image);
            let kept = (first..).zip(share).filter(|(_, image)| !left_out(*image));
            let (places, indices): (Vec<_>, Vec<_>) = kept.unzip();
            let drawn = self.drawn.as_ref().map(|(images, before)| StepDrawn {
                images: Arc::clone(images),
                before: places.iter().map(|place| before[*place]).collect(),
            });
            let request = StepRequest {
                epoch: self.epoch.into(),
                step: self.step,
                indices,
                drawn,
            };
            self.position = next;
            self.step += 1;
            return Some(request);
        }
        None
    }
}

/// For each place of an epoch how often its image stands at an earlier one.
fn before(images: &[u32]) -> Vec<u32> {
    let mut seen = HashMap::new();
    let mut count = |image| {
        let times: &mut u32 = seen.entry(image).or_default();
        std::mem::replace(times, *times + 1)
    };
    images.iter().map(|image| count(*image)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cross_epochs_and_go_on_from_any_position() {
        let request = |position: usize, epoch: u32| Requests {
            sampler: Sampler::new(1, 10, 4).expect("valid"),
            kind: Order::Shuffled,
            excluded: BTreeSet::new(),
            excluded_epoch: 0,
            rank: 1,
            world: 2,
            epochs: 2,
            epoch,
            position,
            step: u64::from(epoch) * 3 + position as u64 / 4,
            order: None,
            drawn: None,
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
    #[test]
    fn weighted_epochs_wait_for_their_weights() {
        let mut requests = Requests {
            sampler: Sampler::new(1, 6, 4).expect("valid"),
            kind: Order::Weighted(None),
            excluded: BTreeSet::new(),
            excluded_epoch: 0,
            rank: 0,
            world: 1,
            epochs: 2,
            epoch: 0,
            position: 0,
            step: 0,
            order: None,
            drawn: None,
        };
        let weigh = |requests: &mut Requests, epoch, image: usize| {
            let mut weights = vec![0.0; 6];
            weights[image] = 1.0;
            requests.weigh(EpochWeights { epoch, weights });
        };
        assert_eq!(None, requests.next());
        for (epoch, image) in [(0, 5), (1, 2)] {
            weigh(&mut requests, epoch, image);
            let image = image as u32;
            let steps: Vec<_> = requests.by_ref().collect();
            let indices: Vec<_> = steps.iter().map(|step| step.indices.clone()).collect();
            assert_eq!([vec![image; 4], vec![image; 2]], indices[..]);
            let drawn = steps[1].drawn.as_ref().expect("drawn");
            assert_eq!([image; 6], drawn.images[..]);
            assert_eq!([4, 5], drawn.before[..]);
            assert_eq!(u64::from(epoch) * 2 + 1, steps[1].step);
        }
    }
}
