//! Decoded images at the network's scale, kept as far as they fit: in the memory of the process, or in a file
//! that several processes share.

use crate::dataset::{Dataset, ImageRecord, SkippedImage};
use crate::decode::{DecodeError, Shrink, decode_rows};
use image::{Rgb, RgbImage};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use trainer_cache::CacheFile;
use trainer_core::letterbox::resize_to_long_side;

/// The grey that fills what no image covers (YOLOv5's).
pub const FILL: u8 = 114;

/// To which size images are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// As training needs them: [`resize_to_long_side`], bilinear.
    Train,
    /// As training, from JPEGs decoded at a part of their size where that is large enough ([`Shrink::Scaled`]).
    TrainScaled,
    /// As evaluation needs them: [`resize_to_long_side`], averaging when smaller.
    Evaluate,
}

/// The images of one data set at one size. Threads share it; keep it for the whole run, since it
/// owns the memory.
#[derive(Debug)]
pub struct ImageStore {
    dataset: Arc<Dataset>,
    image_size: u32,
    sizing: Sizing,
    cache: Cache,
}

/// Where a store keeps images.
#[derive(Debug)]
enum Cache {
    Own(RamCache),
    /// The number of the store's first image there.
    Shared(Arc<CacheFile>, u32),
}

/// An image from the store.
#[derive(Clone, Debug)]
pub struct LoadedImage<'a> {
    /// Its pixels; a grey square if the file could not be read.
    pub pixels: Arc<RgbImage>,
    /// Its record, or why it could not be read. Grey has no labels.
    pub record: Result<&'a ImageRecord, SkippedImage>,
}

impl ImageStore {
    /// A store of the images of `dataset` with their long side at `image_size` pixels, which keeps
    /// up to `cache_bytes` of them in memory.
    ///
    /// Images that come first stay: as every epoch uses every image once, throwing out the least
    /// recently used would always throw out the next one needed. [`Dataset::decoded_bytes`] tells what
    /// all of them take.
    pub fn new(dataset: Arc<Dataset>, image_size: u32, sizing: Sizing, cache_bytes: u64) -> Self {
        let cache = RamCache::new(dataset.len(), cache_bytes);
        Self {
            dataset,
            image_size,
            sizing,
            cache: Cache::Own(cache),
        }
    }

    /// As [`Self::new`], with images kept in `file`, in which the store's first image is number `first` and each takes
    /// as many bytes as [`Dataset::decoded_sizes`] says.
    pub fn shared(
        dataset: Arc<Dataset>,
        image_size: u32,
        sizing: Sizing,
        file: Arc<CacheFile>,
        first: u32,
    ) -> Self {
        Self {
            dataset,
            image_size,
            sizing,
            cache: Cache::Shared(file, first),
        }
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The long side of every image, in pixels.
    pub fn image_size(&self) -> u32 {
        self.image_size
    }

    /// Bytes of pixels now in the memory of this process.
    pub fn cached_bytes(&self) -> u64 {
        match &self.cache {
            Cache::Own(cache) => cache.used.load(Ordering::Relaxed),
            Cache::Shared(..) => 0,
        }
    }

    /// Width and height of the image of this number as [`Self::load`] gives it; for training, found
    /// without touching its file.
    pub fn size(&self, index: u32) -> (u32, u32) {
        let size = self.dataset.image(index).map(|record| self.target(record));
        size.unwrap_or((self.image_size, self.image_size))
    }

    /// Decodes the image of this number, or takes it from memory.
    pub fn load(&self, index: u32) -> LoadedImage<'_> {
        self.load_rows(index, u32::MAX)
    }

    /// As [`Self::load`], but only the first `rows` rows of pixels are sure to be right: the rest may
    /// not be decoded. What the first rows are does not depend on how many are asked for, nor on the
    /// memory; of a damaged file they may be readable when all are not.
    pub fn load_rows(&self, index: u32, rows: u32) -> LoadedImage<'_> {
        let Some(record) = self.dataset.image(index) else {
            return self.grey(SkippedImage {
                name: format!("image number {index}"),
                reason: format!("the data set has {} images", self.dataset.len()),
            });
        };
        let (width, height) = self.target(record);
        let row = 3 * u64::from(width);
        let bytes = row * u64::from(height);
        let decode = || self.decode(record, u32::MAX);
        let from_cache = match &self.cache {
            Cache::Own(cache) => cache.get_or_make(index, bytes, decode),
            Cache::Shared(file, first) => {
                let image = first + index;
                let kept = file.get(image, row * u64::from(rows.min(height)));
                let kept = kept.and_then(|kept| RgbImage::from_raw(width, rows.min(height), kept));
                match kept {
                    Some(pixels) => Some(Ok(Arc::new(pixels))),
                    None if file.keeps(image) => {
                        let made = decode();
                        if let Ok(pixels) = &made {
                            file.put(image, pixels);
                        }
                        Some(made.map(Arc::new))
                    }
                    None => None,
                }
            }
        };
        let result = match from_cache {
            Some(Ok(pixels)) => Ok(pixels),
            // A damaged file is the same with and without a cache: whole when all rows are asked for.
            Some(Err(error)) if rows >= height => Err(error),
            Some(Err(_)) | None => self.decode(record, rows).map(Arc::new),
        };
        match result {
            Ok(pixels) => LoadedImage {
                pixels,
                record: Ok(record),
            },
            Err(error) => self.grey(SkippedImage {
                name: record.name.clone(),
                reason: chain(&error),
            }),
        }
    }

    /// The size that an image is decoded to.
    fn target(&self, record: &ImageRecord) -> (u32, u32) {
        resize_to_long_side(record.size.0, record.size.1, self.image_size)
    }

    fn decode(&self, record: &ImageRecord, rows: u32) -> Result<RgbImage, DecodeError> {
        let shrink = match self.sizing {
            Sizing::Train => Shrink::Bilinear,
            Sizing::TrainScaled => Shrink::Scaled,
            Sizing::Evaluate => Shrink::Area,
        };
        decode_rows(&record.path, self.target(record), shrink, rows)
    }

    /// What takes the place of a file that cannot be read: batches keep their size and order, so
    /// that all ranks stay in step.
    fn grey(&self, skipped: SkippedImage) -> LoadedImage<'_> {
        let side = self.image_size;
        LoadedImage {
            pixels: Arc::new(RgbImage::from_pixel(side, side, Rgb([FILL; 3]))),
            record: Err(skipped),
        }
    }
}

/// Pixels by image number, up to a limit of bytes.
#[derive(Debug)]
struct RamCache {
    slots: Vec<OnceLock<Arc<RgbImage>>>,
    used: AtomicU64,
    limit: u64,
}

impl RamCache {
    fn new(images: usize, limit: u64) -> Self {
        let slots = if limit == 0 { 0 } else { images };
        Self {
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            used: AtomicU64::new(0),
            limit,
        }
    }

    /// The image in memory, or a new one of this many bytes, which stays; none if it does not fit. Two
    /// threads may make the same image at the same time; one of the two equal results stays.
    fn get_or_make<E>(
        &self,
        index: u32,
        bytes: u64,
        make: impl FnOnce() -> Result<RgbImage, E>,
    ) -> Option<Result<Arc<RgbImage>, E>> {
        let slot = self.slots.get(index as usize)?;
        if let Some(image) = slot.get() {
            return Some(Ok(Arc::clone(image)));
        }
        let release = || self.used.fetch_sub(bytes, Ordering::Relaxed);
        if self.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.limit {
            release();
            return None;
        }
        let made = make().map(Arc::new);
        let stays = matches!(&made, Ok(image) if slot.set(Arc::clone(image)).is_ok());
        if !stays {
            release();
        }
        Some(made)
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
