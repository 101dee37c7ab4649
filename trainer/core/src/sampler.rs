//! Which images each rank trains on, as a pure function of the seed and the position.
//!
//! There is one order of the data set per (seed, epoch). The global step takes the next `batch`
//! images of it, and each rank takes its contiguous share of those: ranks in order, their shares
//! joined, are the batch of a single rank. Unlike v5's `DistributedSampler`, no image is repeated to
//! fill up the last batch: it is short, it is split over the ranks, and a rank may get none of it.

use crate::rng::{Purpose, shuffle, stream};
use serde::{Deserialize, Serialize};

/// How an epoch orders the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OrderKind {
    /// A new permutation each epoch.
    Shuffled,
    /// 0, 1, 2, ... in every epoch: evaluation, and rectangular training.
    Sequential,
}

/// Why a sampler cannot exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// The data set is empty.
    #[error("the data set has no images: check its path and its train list")]
    NoImages,
    /// The images cannot be numbered with 32 bits.
    #[error("the data set has {images} images, more than {max}: split it", max = u32::MAX)]
    TooManyImages {
        /// The number of images.
        images: usize,
    },
    /// The batch is empty.
    #[error("the batch size is 0: set it to at least the number of ranks")]
    NoBatch,
}

/// The order of all epochs of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    seed: u64,
    kind: OrderKind,
    images: u32,
    batch: usize,
}

/// The order of one epoch.
///
/// A **position** counts the images of the epoch that earlier steps consumed. It is what a
/// checkpoint stores, and it stays valid when the batch size or the number of ranks changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    indices: Vec<u32>,
    batch: usize,
}

impl Sampler {
    /// A sampler of `images` images in global batches of `batch`.
    pub fn new(
        seed: u64,
        kind: OrderKind,
        images: usize,
        batch: usize,
    ) -> Result<Self, SamplerError> {
        if images == 0 {
            return Err(SamplerError::NoImages);
        }
        if batch == 0 {
            return Err(SamplerError::NoBatch);
        }
        let images = u32::try_from(images).map_err(|_| SamplerError::TooManyImages { images })?;
        Ok(Self {
            seed,
            kind,
            images,
            batch,
        })
    }

    /// Steps per epoch, the last short one included.
    pub fn steps_per_epoch(&self) -> usize {
        (self.images as usize).div_ceil(self.batch)
    }

    /// The order of `epoch` (from 0). Costs O(images); call it once per epoch.
    pub fn epoch(&self, epoch: u64) -> EpochOrder {
        let mut indices: Vec<u32> = (0..self.images).collect();
        if self.kind == OrderKind::Shuffled {
            shuffle(
                &mut stream(self.seed, Purpose::Order, epoch, 0),
                &mut indices,
            );
        }
        EpochOrder::from_indices(indices, self.batch)
    }
}

impl EpochOrder {
    /// An order given from outside, for example sorted by shape or drawn by image weights.
    ///
    /// A `batch` of 0 counts as 1.
    pub fn from_indices(indices: Vec<u32>, batch: usize) -> Self {
        Self {
            indices,
            batch: batch.max(1),
        }
    }

    /// Number of images of the epoch.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether the epoch has no images.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// Images of the epoch in order.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Steps that remain from `position` on, the last short one included.
    pub fn steps_from(&self, position: usize) -> usize {
        self.len().saturating_sub(position).div_ceil(self.batch)
    }

    /// The images of the global step that starts at `position`; empty when the epoch is over.
    pub fn batch(&self, position: usize) -> &[u32] {
        let start = position.min(self.len());
        let end = start.saturating_add(self.batch).min(self.len());
        &self.indices[start..end]
    }

    /// The position after the step that starts at `position`, or none if that step ends the epoch.
    pub fn next(&self, position: usize) -> Option<usize> {
        let next = position.saturating_add(self.batch);
        (next < self.len()).then_some(next)
    }

    /// The images of rank `rank` of `world` in the global step that starts at `position`, and the
    /// position in the epoch of the first of them.
    ///
    /// The index for [`crate::rng::stream`] of the k-th image of the share is `first + k`: it does
    /// not depend on the number of ranks.
    pub fn share(&self, position: usize, rank: usize, world: usize) -> Share<'_> {
        let batch = self.batch(position);
        let (start, end) = split(batch.len(), rank, world);
        Share {
            first: position.min(self.len()) + start,
            images: &batch[start..end],
        }
    }
}

/// One rank's images of one global step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// Position in the epoch of the first image.
    pub first: usize,
    /// The images; may be empty.
    pub images: &'a [u32],
}

/// The part `start..end` of `count` things that rank `rank` of `world` takes: contiguous, in rank
/// order, sizes that differ by at most one with the larger ones first.
///
/// A rank outside `0..world` takes nothing.
pub fn split(count: usize, rank: usize, world: usize) -> (usize, usize) {
    if rank >= world {
        return (count, count);
    }
    let (base, extra) = (count / world, count % world);
    let start = rank * base + rank.min(extra);
    (start, start + base + usize::from(rank < extra))
}

#[cfg(test)]
#[path = "sampler_tests.rs"]
mod tests;
