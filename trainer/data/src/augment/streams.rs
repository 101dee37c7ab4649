//! The random numbers of one sample.

use rand_chacha::ChaCha8Rng;
use trainer_core::rng::{Purpose, below, picture_key, stream};

/// What [`picture_key`] uses: an image's number, and a layer of three.
const BITS_OF_PICTURE: u32 = 34;

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

/// The images that a sample may take others from.
#[derive(Clone, Copy, Debug)]
pub enum Pool<'a> {
    /// All of so many.
    All(u32),
    /// Those that an epoch uses, each as often as it does.
    Of(&'a [u32]),
}

impl Pool<'_> {
    /// One of them; one draw. Of an empty pool the image 0.
    pub fn draw(self, rng: &mut ChaCha8Rng) -> u32 {
        match self {
            Self::All(images) => below(rng, images.into()) as u32,
            Self::Of(images) => {
                let place = below(rng, images.len() as u64) as usize;
                images.get(place).copied().unwrap_or_default()
            }
        }
    }
}

/// Makes the streams of one sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams<'a> {
    seed: u64,
    epoch: u64,
    /// Whose sample it is.
    pub(super) image: u32,
    /// How many samples of the epoch are of this image, before this one.
    before: u32,
    /// Where other images come from.
    pub(super) pool: Pool<'a>,
}

impl<'a> Streams<'a> {
    /// Of image `image` in `epoch`.
    pub(super) fn new(seed: u64, epoch: u64, image: u32, pool: Pool<'a>) -> Self {
        Self {
            seed,
            epoch,
            image,
            before: 0,
            pool,
        }
    }

    /// The same after so many samples of the image: another one, by numbers of its own.
    pub(super) fn after(self, before: u32) -> Self {
        Self { before, ..self }
    }

    /// The index of a picture's streams; that of what is done once to a sample is its own picture's.
    fn key(self, layer: Layer) -> u64 {
        u64::from(self.before) << BITS_OF_PICTURE | picture_key(self.image, layer as u32)
    }

    /// For what is done once to a sample.
    pub(super) fn sample(self, purpose: Purpose) -> ChaCha8Rng {
        stream(self.seed, purpose, self.epoch, self.key(Layer::Own))
    }

    /// The same for something of this probability; none if it never happens. A stream costs a hash,
    /// and most augmentations are off.
    pub(super) fn sample_if(self, probability: f64, purpose: Purpose) -> Option<ChaCha8Rng> {
        (probability > 0.0).then(|| self.sample(purpose))
    }

    /// For what is done to each of its pictures.
    pub(super) fn picture(self, purpose: Purpose, layer: Layer) -> ChaCha8Rng {
        stream(self.seed, purpose, self.epoch, self.key(layer))
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
