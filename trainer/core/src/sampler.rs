//! Which images each rank trains on, as a pure function of the seed and the position.
//!
//! There is one order of the data set per (seed, epoch). The global step takes the next `batch`
//! images of it, and each rank takes its contiguous share of those: ranks in order, their shares
//! joined, are the batch of a single rank. Unlike v5's `DistributedSampler`, no image is repeated to
//! fill up the last batch: it is short, it is split over the ranks, and a rank may get none of it.

use crate::image_weights;
use crate::rng::{Purpose, shuffle, stream};

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
    images: u32,
    batch: usize,
    /// Images of a batch that one rank takes together.
    together: usize,
}

/// The order of one epoch.
///
/// A **position** counts the images of the epoch that earlier steps consumed. It is what a
/// checkpoint stores, and it stays valid when the batch size or the number of ranks changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochOrder {
    indices: Vec<u32>,
    batch: usize,
    together: usize,
}

impl Sampler {
    /// A sampler of `images` images in global batches of `batch`.
    pub fn new(seed: u64, images: usize, batch: usize) -> Result<Self, SamplerError> {
        if images == 0 {
            return Err(SamplerError::NoImages);
        }
        if batch == 0 {
            return Err(SamplerError::NoBatch);
        }
        let images = u32::try_from(images).map_err(|_| SamplerError::TooManyImages { images })?;
        Ok(Self {
            seed,
            images,
            batch,
            together: 1,
        })
    }

    /// The same with ranks that take their images of a batch in groups of `size`, such as quads.
    #[must_use]
    pub fn in_groups(self, size: usize) -> Self {
        Self {
            together: size.max(1),
            ..self
        }
    }

    /// Steps per epoch, the last short one included.
    pub fn steps_per_epoch(&self) -> usize {
        (self.images as usize).div_ceil(self.batch)
    }

    /// A new permutation of all images for each `epoch` (from 0). Costs O(images); call it once per epoch.
    pub fn epoch(&self, epoch: u64) -> EpochOrder {
        let mut indices: Vec<u32> = (0..self.images).collect();
        let mut rng = stream(self.seed, Purpose::Order, epoch, 0);
        shuffle(&mut rng, &mut indices);
        self.given(indices)
    }

    /// The images of `epoch` as image weights draw them, see [`image_weights::draw`].
    pub fn drawn(&self, epoch: u64, weights: &[f64]) -> EpochOrder {
        self.given(image_weights::draw(self.seed, epoch, weights))
    }

    /// An order given from outside, for example sorted by shape.
    pub fn given(&self, indices: Vec<u32>) -> EpochOrder {
        EpochOrder {
            indices,
            batch: self.batch,
            together: self.together,
        }
    }
}

impl EpochOrder {
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
        let groups = batch.len().div_ceil(self.together);
        let (start, end) = split(groups, rank, world);
        let [start, end] = [start, end].map(|group| (group * self.together).min(batch.len()));
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
