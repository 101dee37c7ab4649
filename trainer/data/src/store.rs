//! Decoded images at the network's scale, kept in memory as far as they fit.

use crate::dataset::{Dataset, ImageRecord, SkippedImage};
use crate::decode::{DecodeError, Shrink, decode};
use image::{Rgb, RgbImage};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use trainer_core::letterbox::{Border, Enlarge, Letterbox, LetterboxOptions, resize_to_long_side};

/// The grey that fills what no image covers (YOLOv5's).
pub const FILL: u8 = 114;

/// To which size images are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizing {
    /// As training needs them: [`resize_to_long_side`], bilinear.
    Train,
    /// As evaluation in squares needs them: [`evaluation_letterbox`], averaging when smaller.
    Evaluate,
    /// As evaluation in rectangles needs them: [`resize_to_long_side`], averaging when smaller.
    Rectangle,
}

/// How an image of `width` by `height` pixels is laid into the square of `image_size`: as large as it
/// fits, in the middle. Like in v5, small images are enlarged.
pub fn evaluation_letterbox(size: (u32, u32), image_size: u32) -> Letterbox {
    let options = LetterboxOptions {
        target: (image_size, image_size),
        enlarge: Enlarge::Yes,
        border: Border::Full,
    };
    Letterbox::new(size.0, size.1, options)
}

/// The images of one data set at one size. Threads share it; keep it for the whole run, since it
/// owns the memory.
#[derive(Debug)]
pub struct ImageStore {
    dataset: Arc<Dataset>,
    image_size: u32,
    sizing: Sizing,
    cache: RamCache,
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
            cache,
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

    /// To which size images are decoded.
    pub fn sizing(&self) -> Sizing {
        self.sizing
    }

    /// Bytes of pixels now in memory.
    pub fn cached_bytes(&self) -> u64 {
        self.cache.used.load(Ordering::Relaxed)
    }

    /// Decodes the image of this number, or takes it from memory.
    pub fn load(&self, index: u32) -> LoadedImage<'_> {
        let Some(record) = self.dataset.image(index) else {
            return self.grey(SkippedImage {
                name: format!("image number {index}"),
                reason: format!("the data set has {} images", self.dataset.len()),
            });
        };
        match self.cache.get_or_make(index, || self.decode(record)) {
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

    fn decode(&self, record: &ImageRecord) -> Result<RgbImage, DecodeError> {
        let (size, shrink) = match self.sizing {
            Sizing::Train => (
                resize_to_long_side(record.size.0, record.size.1, self.image_size),
                Shrink::Bilinear,
            ),
            Sizing::Evaluate => (
                evaluation_letterbox(record.size, self.image_size).resized,
                Shrink::Area,
            ),
            Sizing::Rectangle => (
                resize_to_long_side(record.size.0, record.size.1, self.image_size),
                Shrink::Area,
            ),
        };
        decode(&record.path, size, shrink)
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

    /// The image in memory, or a new one, which stays if it fits. Two threads may make the same
    /// image at the same time; one of the two equal results stays.
    fn get_or_make<E>(
        &self,
        index: u32,
        make: impl FnOnce() -> Result<RgbImage, E>,
    ) -> Result<Arc<RgbImage>, E> {
        let slot = self.slots.get(index as usize);
        if let Some(image) = slot.and_then(OnceLock::get) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(make()?);
        if let Some(slot) = slot {
            let bytes = image.as_raw().len() as u64;
            let reserved = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.limit;
            if !reserved || slot.set(Arc::clone(&image)).is_err() {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
        Ok(image)
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
