//! The other ranks: how they are found, and what all of them compute together.
//!
//! Every rank calls the same methods of [`Ranks`] in the same order. A rank on its own has no process
//! group, and every method is then what a world of one would give.

mod ddp;
pub mod rendezvous;

use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Kind, Tensor};
use torch_bridge::{ProcessGroup, ReduceOp, Work};

pub use ddp::{Ddp, Gradients};

/// Bytes of the all-reduce by which the ranks try their network.
const PROBE: i64 = 4 << 20;

/// What came of a call that other ranks take part in.
pub type Result<T> = std::result::Result<T, torch_bridge::Error>;

/// All ranks of the job, seen from this one.
#[derive(Debug)]
pub struct Ranks {
    group: Option<ProcessGroup>,
    rank: u32,
    world: u32,
    waited: Duration,
}

/// A sum over all ranks that may still be under way.
#[must_use = "every rank must wait for it, or the ranks no longer agree on what comes next"]
#[derive(Debug)]
pub enum Sum {
    /// On one rank, the values themselves.
    Alone(Vec<f64>),
    /// Being computed.
    UnderWay(Work),
}

impl Ranks {
    /// A world of one.
    pub fn alone() -> Self {
        Self {
            group: None,
            rank: 0,
            world: 1,
            waited: Duration::ZERO,
        }
    }

    /// The ranks of a process group.
    pub fn of(group: ProcessGroup) -> Self {
        Self {
            rank: group.rank() as u32,
            world: group.size() as u32,
            group: Some(group),
            waited: Duration::ZERO,
        }
    }

    /// This rank.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// How many there are.
    pub fn world(&self) -> u32 {
        self.world
    }

    /// Whether this is the rank that writes and speaks.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// The process group; none in a world of one.
    pub fn group(&mut self) -> Option<&mut ProcessGroup> {
        self.group.as_mut()
    }

    /// The process group, for what needs it only for reading; none in a world of one.
    pub fn shared_group(&self) -> Option<&ProcessGroup> {
        self.group.as_ref()
    }

    /// Time spent waiting in these methods since the last question.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Bytes a second that an all-reduce of [`PROBE`] bytes on this device moves, the better of two; none in a world
    /// of one.
    pub fn bandwidth(&mut self, device: Device) -> Result<Option<f64>> {
        let mut best = None;
        for _ in 0..2 {
            let mut tensor = Tensor::zeros([PROBE / 4], (Kind::Float, device));
            // Both ends wait for the device, which may have other work in its queue.
            let _ = tensor.double_value(&[0]);
            let start = Instant::now();
            let alone = self.waiting(|group| match group {
                None => Ok(true),
                Some(group) => group.all_reduce(&mut tensor, ReduceOp::Sum).map(|()| false),
            })?;
            if alone {
                return Ok(None);
            }
            let _ = tensor.double_value(&[0]);
            let rate = PROBE as f64 / start.elapsed().as_secs_f64();
            best = Some(best.map_or(rate, |before: f64| before.max(rate)));
        }
        Ok(best)
    }

    /// Starts summing `values`, element by element, over all ranks.
    pub fn sum(&mut self, values: &[f64]) -> Result<Sum> {
        match &mut self.group {
            None => Ok(Sum::Alone(values.to_vec())),
            Some(group) => {
                let work = group.all_reduce_async(Tensor::from_slice(values), ReduceOp::Sum)?;
                Ok(Sum::UnderWay(work))
            }
        }
    }

    /// Waits for a sum.
    pub fn finish(&mut self, sum: Sum) -> Result<Vec<f64>> {
        match sum {
            Sum::Alone(values) => Ok(values),
            Sum::UnderWay(work) => self.waiting(|_| {
                let tensors = work.wait()?;
                let tensor = &tensors[0];
                let mut values = vec![0.0; tensor.numel()];
                tensor.copy_data(&mut values, tensor.numel());
                Ok(values)
            }),
        }
    }

    /// Replaces `tensors` by those of rank 0, each in one message.
    pub fn take_from_first(&mut self, tensors: &mut [Tensor]) -> Result<()> {
        self.waiting(|group| group.map_or(Ok(()), |group| group.broadcast(tensors, 0)))
    }

    /// Replaces `tensors`, which may be many, by those of `source`, in few messages.
    pub fn take_all_from(&mut self, source: u32, tensors: &mut [Tensor]) -> Result<()> {
        const MESSAGE: usize = 64 << 20;
        self.waiting(|group| {
            group.map_or(Ok(()), |group| {
                group.broadcast_coalesced(tensors, MESSAGE, source as usize)
            })
        })
    }

    /// The value of rank 0; what the others give does not matter.
    pub fn value_of_first<T: Serialize + DeserializeOwned>(&mut self, value: &T) -> Result<T> {
        self.value_of(0, value)
    }

    /// The value of `source`; what the others give does not matter.
    pub fn value_of<T: Serialize + DeserializeOwned>(
        &mut self,
        source: u32,
        value: &T,
    ) -> Result<T> {
        let bytes = serde_json::to_vec(value).expect("what ranks tell each other becomes JSON");
        let bytes = self.bytes_of(source, bytes)?;
        Ok(serde_json::from_slice(&bytes).expect("all ranks run the same program"))
    }

    fn bytes_of(&mut self, source: u32, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let gives = self.rank == source;
        self.waiting(|group| {
            let Some(group) = group else { return Ok(bytes) };
            let mut length = [Tensor::from(bytes.len() as i64)];
            group.broadcast(&mut length, source as usize)?;
            let length = length[0].int64_value(&[]) as usize;
            let mut content = if gives { bytes } else { vec![0; length] };
            let mut tensor = [Tensor::from_slice(&content)];
            group.broadcast(&mut tensor, source as usize)?;
            tensor[0].copy_data(&mut content, length);
            Ok(content)
        })
    }

    /// The bytes of every rank, in order of ranks.
    pub fn gather(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.waiting(|group| match group {
            None => Ok(vec![bytes.to_vec()]),
            Some(group) => group.all_gather_bytes(bytes),
        })
    }

    fn waiting<T>(
        &mut self,
        call: impl FnOnce(Option<&mut ProcessGroup>) -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = call(self.group.as_mut());
        self.waited += start.elapsed();
        result
    }
}
