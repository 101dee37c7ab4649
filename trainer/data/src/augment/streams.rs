//! The random numbers of one sample.

use rand_chacha::ChaCha8Rng;
use trainer_core::rng::{Purpose, picture_key, stream};

/// Which of a sample's pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Layer {
    /// Its own.
    Own = 0,
    /// The one it is mixed with.
    Mixed = 1,
    /// The one of which a part is put into it.
    Inserted = 2,
}

/// Makes the streams of one sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    seed: u64,
    epoch: u64,
    image: u32,
}

impl Streams {
    /// Of image `image` in `epoch`.
    pub(super) fn new(seed: u64, epoch: u64, image: u32) -> Self {
        Self { seed, epoch, image }
    }

    /// For what is done once to a sample.
    pub(super) fn sample(self, purpose: Purpose) -> ChaCha8Rng {
        stream(self.seed, purpose, self.epoch, self.image.into())
    }

    /// The same for something of this probability; none if it never happens. A stream costs a hash,
    /// and most augmentations are off.
    pub(super) fn sample_if(self, probability: f64, purpose: Purpose) -> Option<ChaCha8Rng> {
        (probability > 0.0).then(|| self.sample(purpose))
    }

    /// For what is done to each of its pictures.
    pub(super) fn picture(self, purpose: Purpose, layer: Layer) -> ChaCha8Rng {
        let key = picture_key(self.image, layer as u32);
        stream(self.seed, purpose, self.epoch, key)
    }

    /// The same for something of this probability; none if it never happens.
    pub(super) fn picture_if(
        self,
        probability: f64,
        purpose: Purpose,
        layer: Layer,
    ) -> Option<ChaCha8Rng> {
        (probability > 0.0).then(|| self.picture(purpose, layer))
    }
}
