//! How ranks, nodes and batches fit together, checked once.

use serde::{Deserialize, Serialize};

/// The numbers as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyRequest {
    /// Ranks of the whole job (`WORLD_SIZE`).
    pub world: u32,
    /// Ranks per worker (`LOCAL_WORLD_SIZE`).
    pub local_world: u32,
    /// Images per iteration over all ranks.
    pub batch: u32,
    /// Iterations per optimizer step.
    pub accumulate: u32,
    /// Whether ranks may get unequal parts of the batch.
    pub shares: Shares,
}

/// Whether the batch must divide evenly over the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Shares {
    /// Every rank gets the same number of images (YOLOv5 v7.0 behaviour).
    Equal,
    /// Shares may differ by one image: a job that lost or gained a worker goes on with its batch.
    Uneven,
}

/// Numbers that fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    request: TopologyRequest,
}

/// Numbers that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    /// A number is 0.
    #[error("{field} is 0, it must be at least 1 ({request})")]
    Zero {
        /// Which one.
        field: &'static str,
        /// All numbers.
        request: TopologyRequest,
    },
    /// Workers would have different numbers of ranks.
    #[error(
        "{world} ranks do not divide into workers of {local_world} ranks: start a multiple of \
         {local_world} ranks ({request})",
        world = request.world, local_world = request.local_world
    )]
    UnevenWorkers {
        /// All numbers.
        request: TopologyRequest,
    },
    /// Ranks would get different numbers of images.
    #[error(
        "a batch of {batch} does not divide over {world} ranks: use {lower} or {upper} ({request})",
        batch = request.batch, world = request.world,
        lower = (request.batch / request.world).max(1) * request.world,
        upper = (request.batch / request.world + 1) * request.world,
    )]
    UnevenBatch {
        /// All numbers.
        request: TopologyRequest,
    },
    /// Some ranks would never get an image.
    #[error(
        "a batch of {batch} leaves some of {world} ranks without images: use at least {world}, or \
         fewer ranks ({request})",
        batch = request.batch, world = request.world
    )]
    BatchBelowWorld {
        /// All numbers.
        request: TopologyRequest,
    },
}

impl std::fmt::Display for TopologyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            world,
            local_world,
            batch,
            accumulate,
            shares,
        } = self;
        write!(
            f,
            "world {world}, local world {local_world}, batch {batch}, accumulate {accumulate}, \
             shares {shares:?}"
        )
    }
}

impl Topology {
    /// Checks the numbers.
    pub fn new(request: TopologyRequest) -> Result<Self, TopologyError> {
        let fields = [
            ("world", request.world),
            ("local_world", request.local_world),
            ("batch", request.batch),
            ("accumulate", request.accumulate),
        ];
        if let Some((field, _)) = fields.into_iter().find(|(_, value)| *value == 0) {
            return Err(TopologyError::Zero { field, request });
        }
        if !request.world.is_multiple_of(request.local_world) {
            return Err(TopologyError::UnevenWorkers { request });
        }
        if request.batch < request.world {
            return Err(TopologyError::BatchBelowWorld { request });
        }
        if request.shares == Shares::Equal && !request.batch.is_multiple_of(request.world) {
            return Err(TopologyError::UnevenBatch { request });
        }
        Ok(Self { request })
    }

    /// Ranks of the whole job.
    pub fn world(&self) -> u32 {
        self.request.world
    }

    /// Ranks per worker.
    pub fn local_world(&self) -> u32 {
        self.request.local_world
    }

    /// Workers of the job.
    pub fn workers(&self) -> u32 {
        self.request.world / self.request.local_world
    }

    /// Images per iteration over all ranks.
    pub fn batch(&self) -> u32 {
        self.request.batch
    }

    /// Iterations per optimizer step.
    pub fn accumulate(&self) -> u32 {
        self.request.accumulate
    }

    /// Images per optimizer step over all ranks.
    pub fn optimizer_batch(&self) -> u64 {
        u64::from(self.request.batch) * u64::from(self.request.accumulate)
    }

    /// Images of `rank` in a full iteration; 0 for a rank that does not exist.
    pub fn rank_batch(&self, rank: u32) -> u32 {
        let (start, end) = crate::sampler::split(
            self.request.batch as usize,
            rank as usize,
            self.request.world as usize,
        );
        (end - start) as u32
    }

    /// The worker that `rank` runs on.
    pub fn worker_of(&self, rank: u32) -> u32 {
        rank / self.request.local_world
    }

    /// The number of `rank` within its worker.
    pub fn local_rank(&self, rank: u32) -> u32 {
        rank % self.request.local_world
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: TopologyRequest = TopologyRequest {
        world: 6,
        local_world: 2,
        batch: 12,
        accumulate: 5,
        shares: Shares::Equal,
    };

    #[test]
    fn a_good_topology_answers_every_question() {
        let t = Topology::new(GOOD).unwrap();
        assert_eq!((t.world(), t.local_world(), t.workers()), (6, 2, 3));
        assert_eq!((t.batch(), t.rank_batch(5), t.accumulate()), (12, 2, 5));
        assert_eq!(
            (t.worker_of(5), t.local_rank(5), t.optimizer_batch()),
            (2, 1, 60)
        );
    }

    #[test]
    fn each_mistake_has_its_message() {
        let message = |request| Topology::new(request).unwrap_err().to_string();
        let shown = |request: TopologyRequest, words: &str| {
            let text = message(request);
            assert!(
                text.contains(words) && text.contains(&request.to_string()),
                "{text}"
            );
        };
        shown(TopologyRequest { world: 0, ..GOOD }, "world is 0");
        shown(
            TopologyRequest {
                accumulate: 0,
                ..GOOD
            },
            "accumulate is 0",
        );
        shown(
            TopologyRequest {
                local_world: 4,
                ..GOOD
            },
            "do not divide into workers of 4 ranks",
        );
        shown(TopologyRequest { batch: 16, ..GOOD }, "use 12 or 18");
        shown(TopologyRequest { batch: 4, ..GOOD }, "use at least 6");
    }

    #[test]
    fn uneven_shares_add_up_to_the_batch() {
        let request = TopologyRequest {
            batch: 16,
            shares: Shares::Uneven,
            ..GOOD
        };
        let t = Topology::new(request).unwrap();
        let sizes: Vec<_> = (0..6).map(|rank| t.rank_batch(rank)).collect();
        assert_eq!(sizes, [3, 3, 3, 3, 2, 2]);
    }
}
