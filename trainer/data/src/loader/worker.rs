use super::LoaderError;
use super::pool::PixelBuffer;
use crate::source::{Drawn, Sample, SampleSource, sample_bytes};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

/// One sample to make.
pub(super) struct Task {
    /// The loader's number of the step.
    pub step: u64,
    /// The sample's place in the step.
    pub k: usize,
    pub epoch: u64,
    pub index: u32,
    /// The epoch's images, and how often this one was drawn before; see [`Drawn`].
    pub drawn: Option<(Arc<[u32]>, u32)>,
    /// The step's pixels.
    pub pixels: Arc<Mutex<PixelBuffer>>,
}

/// One sample made; its pixels are already in the step's.
pub(super) struct Done {
    pub step: u64,
    pub k: usize,
    pub sample: Result<Sample, LoaderError>,
}

/// The threads.
pub(super) struct Workers {
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    pub(super) fn start(
        threads: usize,
        source: &Arc<dyn SampleSource>,
        tasks: Receiver<Task>,
        done: &Sender<Done>,
    ) -> Result<Self, LoaderError> {
        let mut workers = Self {
            stopping: Arc::new(AtomicBool::new(false)),
            threads: Vec::with_capacity(threads),
        };
        let tasks = Arc::new(Mutex::new(tasks));
        for number in 1..=threads {
            let worker = Worker {
                source: Arc::clone(source),
                tasks: Arc::clone(&tasks),
                done: done.clone(),
                stopping: Arc::clone(&workers.stopping),
            };
            let thread = Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || worker.run())
                .map_err(|source| LoaderError::Spawn {
                    number,
                    threads,
                    source,
                })?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// No further sample is begun.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Waits for the threads, which end when the sender of tasks is gone.
    pub(super) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A thread catches its panics; if one got away, the batches it owed are missing anyway.
            let _ = thread.join();
        }
    }
}

struct Worker {
    source: Arc<dyn SampleSource>,
    tasks: Arc<Mutex<Receiver<Task>>>,
    done: Sender<Done>,
    stopping: Arc<AtomicBool>,
}

impl Worker {
    fn run(self) {
        // Made here and then copied, since threads cannot write into one buffer at the same time.
        // The copy is some 1 % of the work, and these bytes stay in this core's cache.
        let mut pixels = Vec::new();
        while let Some(task) = self.next_task() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            let Task { step, k, .. } = task;
            // Samples may differ in size; what is left of the one before is overwritten.
            pixels.resize(sample_bytes(self.source.size(task.index)), 0);
            let sample = self.make(&task, &mut pixels);
            drop(task);
            if self.done.send(Done { step, k, sample }).is_err() {
                return;
            }
        }
    }

    fn next_task(&self) -> Option<Task> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.recv().ok()
    }

    fn make(&self, task: &Task, pixels: &mut [u8]) -> Result<Sample, LoaderError> {
        let make = AssertUnwindSafe(|| {
            let drawn = task.drawn.as_ref();
            let drawn = drawn.map(|(images, before)| Drawn {
                images,
                before: *before,
            });
            self.source.sample(task.epoch, task.index, drawn, pixels)
        });
        let sample = catch_unwind(make).map_err(|panic| LoaderError::WorkerPanicked {
            epoch: task.epoch,
            index: task.index,
            message: message(&*panic),
        })?;
        let mut all = task.pixels.lock().unwrap_or_else(PoisonError::into_inner);
        let start = task.k * pixels.len();
        all[start..start + pixels.len()].copy_from_slice(pixels);
        Ok(sample)
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
