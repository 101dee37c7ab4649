//! Batches, made ahead of time by a few threads.
//!
//! ```text
//! requests --next()--> tasks (one per image) --> threads --> finished samples --> batches in order
//! ```
//!
//! The consumer's own thread asks for requests, at most `prefetch_steps` ahead; so an epoch's order
//! may be computed lazily, and nothing is made that will not be used. Which thread makes which sample
//! does not matter, since a sample depends on its arguments alone.

mod pool;
mod worker;

pub use pool::PixelBuffer;

use crate::dataset::SkippedImage;
use crate::source::{EvaluatedImage, Sample, SampleSource, sample_bytes};
use pool::BufferPool;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use trainer_core::boxes::Xywh;
use worker::{Done, Task, Workers};

/// How the loader works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Threads that make samples; 0 counts as 1.
    pub threads: usize,
    /// Batches in the making or waiting besides the one that the consumer has; 0 counts as 1.
    pub prefetch_steps: usize,
}

/// Which images form a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepRequest {
    /// The epoch, from 0; part of the key of all random numbers.
    pub epoch: u64,
    /// The caller's number of the step; it comes back with the batch.
    pub step: u64,
    /// The images in order; none make an empty batch.
    pub indices: Vec<u32>,
    /// Where some images of the epoch take part more often than others.
    pub drawn: Option<StepDrawn>,
}

/// The images of a step of an epoch whose images were drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepDrawn {
    /// The epoch's images, each as often as it was drawn: mosaics are made of these.
    pub images: Arc<[u32]>,
    /// For each image of the step how often it was drawn before: no two samples are the same.
    pub before: Vec<u32>,
}

/// One object of a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// The image's place in the batch.
    pub image: u32,
    /// Class index.
    pub class: u16,
    /// Centre and size as fractions of the images' width and height.
    pub xywh: Xywh,
}

/// Images with everything that is known about them.
#[derive(Debug)]
pub struct Batch {
    /// The request's epoch.
    pub epoch: u64,
    /// The request's number.
    pub step: u64,
    /// The request's images.
    pub indices: Vec<u32>,
    /// Width of every image in pixels; 0 if there are none.
    pub width: u32,
    /// Height of every image in pixels.
    pub height: u32,
    /// Per image three planes (red, green, blue) of height by width bytes. The memory is used again
    /// for another batch after this one is dropped.
    pub images: PixelBuffer,
    /// The objects, by image.
    pub targets: Vec<Target>,
    /// Images that could not be read; grey took their place.
    pub skipped: Vec<SkippedImage>,
    /// For evaluation, one per image; empty for training.
    pub evaluated: Vec<EvaluatedImage>,
}

/// Why there is no next batch.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// The system gives no more threads.
    #[error("cannot start loader thread {number} of {threads}: lower training.loaderThreads")]
    Spawn {
        /// Which one, from 1.
        number: usize,
        /// How many are wanted.
        threads: usize,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The request names an image that does not exist.
    #[error("step {step} asks for image {index}, but the data set has {images} images, 0 to {}", images.saturating_sub(1))]
    UnknownImage {
        /// The request's number.
        step: u64,
        /// The image.
        index: u32,
        /// Images of the data set.
        images: usize,
    },
    /// The samples of a request's images do not have one size.
    #[error(
        "the images of step {step} have different sizes; this is a fault of the program, please report it"
    )]
    Sizes {
        /// The request's number.
        step: u64,
    },
    /// A sample could not be made because of a fault in this program.
    #[error(
        "making a sample of image {index} in epoch {epoch} failed: {message}; this is a fault of the program, please report it"
    )]
    WorkerPanicked {
        /// The epoch.
        epoch: u64,
        /// The image.
        index: u32,
        /// What the program said.
        message: String,
    },
    /// All threads are gone before they were told to stop.
    #[error("all loader threads ended early; this is a fault of the program, please report it")]
    ThreadsEnded,
}

/// A step in the making. The threads share its pixels.
struct Step {
    request: StepRequest,
    /// Width and height of the samples; none if they differ.
    size: Option<(u32, u32)>,
    pixels: Arc<Mutex<PixelBuffer>>,
    samples: Vec<Option<Sample>>,
    missing: usize,
}

/// Yields batches in the order of the requests. Dropping it stops its threads.
pub struct Loader<I> {
    requests: I,
    source: Arc<dyn SampleSource>,
    prefetch_steps: usize,
    pool: Arc<BufferPool>,
    steps: VecDeque<Step>,
    /// The number of the oldest step in `steps`.
    oldest: u64,
    tasks: Sender<Task>,
    done: Receiver<Done>,
    failed: bool,
    // Last, so that the threads are told to stop by the channel's end at the latest.
    workers: Workers,
}

impl<I: Iterator<Item = StepRequest>> Loader<I> {
    /// Starts the threads and the first batches.
    pub fn start(
        config: LoaderConfig,
        source: Arc<dyn SampleSource>,
        requests: I,
    ) -> Result<Self, LoaderError> {
        let prefetch_steps = config.prefetch_steps.max(1);
        let (tasks, task_receiver) = channel();
        let (done_sender, done) = channel();
        let workers = Workers::start(config.threads.max(1), &source, task_receiver, &done_sender)?;
        let mut loader = Self {
            requests,
            source,
            prefetch_steps,
            // Those in the making, the one handed out, and the one being handed out.
            pool: Arc::new(BufferPool::new(prefetch_steps + 2)),
            steps: VecDeque::new(),
            oldest: 0,
            tasks,
            done,
            failed: false,
            workers,
        };
        loader.request_more();
        Ok(loader)
    }

    /// Tells the requests something. If they had none left, and now have, the threads begin with these.
    pub fn tell(&mut self, tell: impl FnOnce(&mut I)) {
        tell(&mut self.requests);
        self.request_more();
    }

    /// Starts batches until enough are in the making.
    fn request_more(&mut self) {
        while self.steps.len() < self.prefetch_steps {
            let Some(request) = self.requests.next() else {
                return;
            };
            self.begin(request);
        }
    }

    fn begin(&mut self, request: StepRequest) {
        let number = self.oldest + self.steps.len() as u64;
        let count = request.indices.len();
        let size = self.common_size(&request.indices);
        let bytes = count * sample_bytes(size.unwrap_or_default());
        let pixels = Arc::new(Mutex::new(BufferPool::take(&self.pool, bytes)));
        // An impossible request fails when its turn comes; none of its samples is made.
        if size.is_some() {
            for (k, index) in request.indices.iter().enumerate() {
                let task = Task {
                    step: number,
                    k,
                    epoch: request.epoch,
                    index: *index,
                    drawn: request.drawn.as_ref().map(|drawn| {
                        let before = drawn.before.get(k).copied().unwrap_or_default();
                        (Arc::clone(&drawn.images), before)
                    }),
                    pixels: Arc::clone(&pixels),
                };
                // The threads outlive the loader's use of them, so there is a receiver.
                let _ = self.tasks.send(task);
            }
        }
        self.steps.push_back(Step {
            request,
            size,
            pixels,
            samples: vec![None; count],
            missing: count,
        });
    }

    /// The size of the samples of these images; none if they differ or do not exist.
    fn common_size(&self, indices: &[u32]) -> Option<(u32, u32)> {
        let Some(first) = indices.first() else {
            return Some((0, 0));
        };
        let exists = |index: &u32| (*index as usize) < self.source.len();
        let size = exists(first).then(|| self.source.size(*first))?;
        let fits = |index: &u32| exists(index) && self.source.size(*index) == size;
        indices.iter().all(fits).then_some(size)
    }

    /// Waits until the oldest step is complete.
    fn finish_oldest(&mut self) -> Result<Option<Batch>, LoaderError> {
        let Some(step) = self.steps.front() else {
            return Ok(None);
        };
        let images = self.source.len();
        if let Some(index) = step.request.indices.iter().find(|i| **i as usize >= images) {
            return Err(LoaderError::UnknownImage {
                step: step.request.step,
                index: *index,
                images,
            });
        }
        let Some(size) = step.size else {
            return Err(LoaderError::Sizes {
                step: step.request.step,
            });
        };
        while self.steps.front().is_some_and(|step| step.missing > 0) {
            let done = self.done.recv().map_err(|_| LoaderError::ThreadsEnded)?;
            let sample = done.sample?;
            let place = (done.step - self.oldest) as usize;
            if let Some(step) = self.steps.get_mut(place) {
                step.samples[done.k] = Some(sample);
                step.missing -= 1;
            }
        }
        self.oldest += 1;
        Ok(self.steps.pop_front().map(|step| step.into_batch(size)))
    }
}

impl<I: Iterator<Item = StepRequest>> Iterator for Loader<I> {
    type Item = Result<Batch, LoaderError>;

    /// The next batch; after an error, none.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        self.request_more();
        let result = self.finish_oldest().transpose()?;
        self.failed = result.is_err();
        if !self.failed {
            // The threads go on while the consumer uses this batch.
            self.request_more();
        }
        Some(result)
    }
}

impl<I> Drop for Loader<I> {
    fn drop(&mut self) {
        // What is already queued is not worth finishing.
        self.workers.stop();
        let (closed, _) = channel();
        self.tasks = closed;
        self.workers.join();
    }
}

impl Step {
    fn into_batch(self, (width, height): (u32, u32)) -> Batch {
        let mut pixels = self.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Batch {
            epoch: self.request.epoch,
            step: self.request.step,
            indices: self.request.indices,
            width,
            height,
            images: std::mem::take(&mut *pixels),
            targets: Vec::new(),
            skipped: Vec::new(),
            evaluated: Vec::new(),
        };
        for (image, sample) in (0..).zip(self.samples.into_iter().flatten()) {
            batch.targets.extend(sample.targets.iter().map(|t| Target {
                image,
                class: t.class,
                xywh: t.xywh,
            }));
            batch.skipped.extend(sample.skipped);
            batch.evaluated.extend(sample.evaluated);
        }
        batch
    }
}

#[cfg(test)]
mod tests;
