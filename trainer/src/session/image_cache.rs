//! Where the decoded images of a run are kept: nowhere, in the memory of this process, or in a file that the
//! processes of a worker share.
//!
//! A single process keeps them in its own memory, from where they are used without copying. Several share a file
//! that their agent made before it started them.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use contract::env::{CACHE_FD, RankEnv};
use contract::spec::{Cache, Training};
use trainer_cache::{CacheFile, Key, MakeError, make, memory, take_over};
use trainer_data::{Dataset, ImageStore, Sizing};

use super::data::{Data, digest};

/// Where decoded images may be kept.
#[derive(Clone, Debug)]
pub struct CachePlaces {
    /// The value of [`CACHE_FD`].
    pub handed_down: Option<String>,
    /// The folder for a file of this process.
    pub scratch: PathBuf,
}

/// Decoded images have no place.
#[derive(Debug, thiserror::Error)]
pub enum ImageCacheError {
    /// No file.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The agent's file.
    #[error("the agent's file of decoded images cannot be opened ({CACHE_FD}='{number}')")]
    TakeOver {
        /// The value of the variable.
        number: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is there.
    #[error(
        "the file of decoded images cannot be used: check the scratch volume, or choose training.cache none"
    )]
    Use(#[source] io::Error),
}

/// Where the decoded images of both splits are kept. Training images come first: a mosaic takes each several times
/// an epoch.
#[derive(Clone, Debug)]
pub(crate) struct ImageCache {
    kind: Cache,
    /// How training images are decoded.
    sizing: Sizing,
    limit: u64,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// Bytes of the memory of this process, for either split.
    Own { train: u64, val: u64 },
    Shared {
        file: Arc<CacheFile>,
        processes: u32,
    },
}

impl ImageCache {
    pub(super) fn open(
        training: &Training,
        rank: &RankEnv,
        places: &CachePlaces,
        data: &Data,
    ) -> Result<Self, ImageCacheError> {
        let (kind, size, sizing) = (training.cache, training.image_size, sizing(training));
        let processes = rank.local_world_size.max(1);
        let (file, processes) = match (&places.handed_down, kind) {
            (_, Cache::None) => return Ok(Self::own(training, 0, data)),
            (Some(number), _) => {
                let file = take_over(number).map_err(|source| ImageCacheError::TakeOver {
                    number: number.clone(),
                    source,
                })?;
                (Some(file), processes)
            }
            (None, Cache::Ram) => {
                let limit = training.cache_limit_bytes();
                let limit = limit.unwrap_or_else(memory::cache_budget) / u64::from(processes);
                return Ok(Self::own(training, limit, data));
            }
            (None, Cache::Disk) => (make(training, &places.scratch, processes)?, 1),
        };
        let Some(file) = file else {
            return Ok(Self::own(training, 0, data));
        };
        let sizes = data.train.decoded_sizes(size);
        let sizes = sizes.chain(data.val.decoded_sizes(size));
        let key = key(data, size, sizing);
        let file = CacheFile::open(file, &key, sizes).map_err(ImageCacheError::Use)?;
        let limit = file.limit().map_err(ImageCacheError::Use)?;
        let file = Arc::new(file);
        Ok(Self {
            kind,
            sizing,
            limit,
            place: Place::Shared { file, processes },
        })
    }

    fn own(training: &Training, limit: u64, data: &Data) -> Self {
        let train = data.train.decoded_bytes(training.image_size).min(limit);
        let val = limit - train;
        Self {
            kind: training.cache,
            sizing: sizing(training),
            limit,
            place: Place::Own { train, val },
        }
    }

    pub(super) fn train_store(&self, data: &Data, size: u32) -> ImageStore {
        let dataset = Arc::clone(&data.train);
        match &self.place {
            Place::Own { train, .. } => ImageStore::new(dataset, size, self.sizing, *train),
            Place::Shared { file, .. } => {
                ImageStore::shared(dataset, size, self.sizing, Arc::clone(file), 0)
            }
        }
    }

    pub(super) fn val_store(&self, data: &Data, size: u32) -> ImageStore {
        let dataset = Arc::clone(&data.val);
        match &self.place {
            Place::Own { val, .. } => ImageStore::new(dataset, size, Sizing::Evaluate, *val),
            Place::Shared { file, .. } => {
                let first = data.train.len() as u32;
                ImageStore::shared(dataset, size, Sizing::Evaluate, Arc::clone(file), first)
            }
        }
    }

    /// One line on what is kept where.
    pub(super) fn describe(&self, data: &Data, size: u32) -> String {
        let fits = |dataset: &Dataset, limit: u64| {
            let mut left = limit;
            let fitting = dataset.decoded_sizes(size).take_while(|bytes| {
                let fits = *bytes <= left;
                left = left.saturating_sub(*bytes);
                fits
            });
            fitting.count()
        };
        let images = data.train.len();
        let (place, train, val) = match &self.place {
            _ if self.kind == Cache::None => {
                return "decoded images are not kept (training.cache is none)".to_owned();
            }
            Place::Own { train, val } => {
                let place = "in memory".to_owned();
                (place, fits(&data.train, *train), fits(&data.val, *val))
            }
            Place::Shared { file, processes } => {
                let kept = file.kept() as usize;
                let medium = if self.kind == Cache::Ram {
                    "in memory"
                } else {
                    "on disk"
                };
                let place = match processes {
                    1 => medium.to_owned(),
                    several => format!("{medium}, shared by {several} processes"),
                };
                (place, kept.min(images), kept.saturating_sub(images))
            }
        };
        let need = data.train.decoded_bytes(size) + data.val.decoded_bytes(size);
        format!(
            "decoded images are kept {place}: {train} of {images} training and {val} of {} validation images; all take {}, the limit is {}",
            data.val.len(),
            size_text(need),
            size_text(self.limit),
        )
    }

    /// What kept images from being written, once.
    pub(super) fn problem(&self) -> Option<String> {
        let Place::Shared { file, .. } = &self.place else {
            return None;
        };
        let error = file.take_failure()?;
        Some(format!(
            "decoded images cannot be kept ({error}) and are decoded each time: make space on the scratch volume, or lower training.cacheLimit"
        ))
    }
}

fn size_text(bytes: u64) -> String {
    const MI: f64 = (1 << 20) as f64;
    let mebibytes = bytes as f64 / MI;
    if mebibytes < 1000.0 {
        format!("{mebibytes:.1} MiB")
    } else {
        format!("{:.1} GiB", mebibytes / 1024.0)
    }
}

fn sizing(training: &Training) -> Sizing {
    if training.scaled_decoding {
        Sizing::TrainScaled
    } else {
        Sizing::Train
    }
}

/// All that the pixels of either split depend on.
fn key(data: &Data, size: u32, sizing: Sizing) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(&[u8::from(sizing == Sizing::TrainScaled)]);
    hasher.update(data.digest.as_bytes());
    hasher.update(digest(&data.val).as_bytes());
    *hasher.finalize().as_bytes()
}
