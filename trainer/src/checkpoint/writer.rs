//! Writes checkpoints and weights while training goes on.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;

use tch::Tensor;

use super::state::RunState;
use super::store::{CheckpointError, CheckpointStore, Pointer, Written};
use super::tensors::encode;
use super::{EMA, MODEL, OPTIMIZER, STATE};
use crate::durable;
use crate::error::Error;
use crate::run_folder::RunFolder;
use crate::weights::WeightsInfo;

/// Copies of the state to write; nothing in them is shared with the training loop.
#[derive(Debug)]
pub struct Job {
    /// How far the run is.
    pub state: RunState,
    /// The network; empty when only weights are to be written.
    pub model: Vec<(String, Tensor)>,
    /// The averaged network.
    pub ema: Vec<(String, Tensor)>,
    /// The optimiser's momentum.
    pub optimizer: Vec<(String, Tensor)>,
    /// Whether to write a checkpoint, and not only weights.
    pub checkpoint: bool,
    /// Files that receive the averaged weights with what one needs to use them.
    pub weights: Vec<PathBuf>,
    /// What one needs to use them.
    pub info: WeightsInfo,
}

/// A checkpoint that is whole on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Training steps done when it was taken.
    pub step: u64,
    /// Where it is.
    pub written: Written,
}

/// One thread that writes one job at a time.
#[derive(Debug)]
pub struct Writer {
    jobs: SyncSender<Job>,
    results: Receiver<Result<Option<Saved>, Error>>,
    thread: JoinHandle<()>,
    under_way: usize,
}

impl Writer {
    /// Starts the thread for a run's folder. It keeps `keep_last` checkpoints besides the best one.
    pub fn of_run(folder: RunFolder, store: CheckpointStore, keep_last: usize) -> Self {
        Self::start(move |job| write(&folder, &store, keep_last, job))
    }

    /// Starts the thread, which does this with each job.
    pub fn start(write: impl Fn(&Job) -> Result<Option<Saved>, Error> + Send + 'static) -> Self {
        let (jobs, incoming) = sync_channel::<Job>(0);
        // Room for all results that can be waiting: the loop collects before it hands over.
        let (outgoing, results) = sync_channel(2);
        let thread = std::thread::spawn(move || {
            for job in incoming {
                if outgoing.send(write(&job)).is_err() {
                    return;
                }
            }
        });
        Self {
            jobs,
            results,
            thread,
            under_way: 0,
        }
    }

    /// Hands a job over; first waits for the one before it, whose result is returned.
    pub fn write(&mut self, job: Job) -> Result<Option<Saved>, Error> {
        let before = self.wait()?;
        if self.jobs.send(job).is_ok() {
            self.under_way += 1;
        }
        Ok(before)
    }

    /// The result of a job that has ended since the last question.
    pub fn poll(&mut self) -> Result<Option<Saved>, Error> {
        match self.results.try_recv() {
            Ok(result) => {
                self.under_way -= 1;
                result
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::WriterEnded),
        }
    }

    /// Whether something is under way, as far as was asked.
    pub fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    /// Waits until nothing is under way.
    pub fn wait(&mut self) -> Result<Option<Saved>, Error> {
        let mut last = None;
        while self.under_way > 0 {
            let result = self.results.recv().map_err(|_| Error::WriterEnded)?;
            self.under_way -= 1;
            last = result?.or(last);
        }
        Ok(last)
    }

    /// Waits for everything and ends the thread.
    pub fn finish(mut self) -> Result<Option<Saved>, Error> {
        let last = self.wait();
        drop(self.jobs);
        self.thread.join().map_err(|_| Error::WriterEnded)?;
        last
    }
}

impl Job {
    /// Writes the state as a checkpoint.
    pub fn write(&self, store: &CheckpointStore) -> Result<Saved, Error> {
        let step = self.state.step;
        let state = serde_json::to_vec_pretty(&self.state)
            .expect("plain structs with string keys always become JSON");
        let files = [
            (MODEL, bytes(MODEL, &self.model, None)?),
            (EMA, bytes(EMA, &self.ema, None)?),
            (OPTIMIZER, bytes(OPTIMIZER, &self.optimizer, None)?),
            (STATE, state),
        ];
        let written = store.write(step, &files)?;
        Ok(Saved { step, written })
    }
}

fn bytes(
    file: &'static str,
    tensors: &[(String, Tensor)],
    note: Option<(&str, String)>,
) -> Result<Vec<u8>, CheckpointError> {
    encode(tensors, note).map_err(|source| CheckpointError::Encode { file, source })
}

fn write(
    folder: &RunFolder,
    store: &CheckpointStore,
    keep_last: usize,
    job: &Job,
) -> Result<Option<Saved>, Error> {
    folder.check_owner()?;
    for path in &job.weights {
        let bytes = bytes("weights", &job.ema, Some(job.info.note()))?;
        durable::write(path, &bytes).map_err(|source| CheckpointError::Write {
            path: path.clone(),
            source,
        })?;
    }
    if !job.checkpoint {
        return Ok(None);
    }
    let saved = job.write(store).inspect_err(|_| {
        // What there is of it holds room that the next start needs. The first error is the one to report.
        let _ = store.remove_unfinished();
    })?;
    store.point(Pointer::Last, saved.step)?;
    store.prune(keep_last, saved.step)?;
    Ok(Some(saved))
}
