//! Process groups and their collectives.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use cxx::UniquePtr;
use tch::Tensor;

use crate::cuda::Cuda;
use crate::error::{Collective, Error};
use crate::ffi;
use crate::store::{Store, millis};
use crate::tensors::{as_ffi, list, unlist};

/// How the values of all ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// Their sum.
    Sum,
    /// Their mean; of floats only.
    Average,
    /// Their product.
    Product,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl ReduceOp {
    /// The number c10d knows it by.
    fn code(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Average => 1,
            Self::Product => 2,
            Self::Min => 3,
            Self::Max => 4,
        }
    }
}

/// What carries the bytes.
#[derive(Debug, Clone)]
pub enum Backend {
    /// Gloo: CPU tensors over TCP.
    Gloo,
    /// NCCL for the tensors of one GPU, and Gloo beside it for CPU tensors.
    Nccl {
        /// The loaded CUDA bridge.
        cuda: Cuda,
        /// Index of the GPU this rank owns.
        device: usize,
    },
}

/// How a process group connects.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// What carries the bytes.
    pub backend: Backend,
    /// How long connecting, and each collective, may take.
    pub timeout: Duration,
    /// Network interface for Gloo, such as `eth0`. Goes before `hostname`.
    pub interface: Option<String>,
    /// Name or address of this machine that its peers reach, for Gloo. With neither, Gloo resolves this
    /// machine's own host name, and takes the loopback address if that fails.
    pub hostname: Option<String>,
    /// Gloo's worker threads: how many collectives run at once.
    pub threads: usize,
}

impl Default for GroupOptions {
    /// Gloo on 2 threads over whatever the host name resolves to; 30 minutes.
    fn default() -> Self {
        Self {
            backend: Backend::Gloo,
            timeout: Duration::from_mins(30),
            interface: None,
            hostname: None,
            threads: 2,
        }
    }
}

/// Processes that compute together, each with a rank from 0.
///
/// Every rank must call the same collectives in the same order with tensors of equal shape, kind and layout.
/// Collectives take `&mut self` and a group stays on the thread that made it, so one process's calls always
/// have an order. After a failure the ranks disagree on what comes next and the group refuses all further
/// calls with [`Error::GroupUnusable`]: drop it and meet again in a new group under a new store prefix.
///
/// With Gloo, a collective that returned has finished. With NCCL, it has been queued on the current CUDA stream.
pub struct ProcessGroup {
    pub(crate) inner: UniquePtr<ffi::Group>,
    rank: usize,
    size: usize,
    backend: Backend,
    /// The collective that broke the group, if one did. Shared with unfinished [`Work`] and reducers.
    broken: Broken,
}

type Broken = Rc<Cell<Option<Collective>>>;

impl ProcessGroup {
    /// Connects this process as `rank` with the `size - 1` others that do the same on the same store.
    ///
    /// One store prefix serves one group: give each attempt its own, or ranks meet addresses of the dead.
    pub fn new(
        store: &Store,
        rank: usize,
        size: usize,
        options: GroupOptions,
    ) -> Result<Self, Error> {
        if rank >= size {
            return Err(Error::NoSuchRank { rank, size });
        }
        let GroupOptions {
            backend,
            timeout,
            interface,
            hostname,
            threads,
        } = options;
        let settings = ffi::GlooSettings {
            interface_name: interface.unwrap_or_default(),
            hostname: hostname.unwrap_or_default(),
            threads: threads as i32,
            timeout_ms: millis(timeout),
        };
        let inner = ffi::new_group(&store.inner, rank as i32, size as i32, &settings).map_err(
            |exception| Error::CreateGroup {
                rank,
                size,
                source: exception.into(),
            },
        )?;
        let group = Self {
            inner,
            rank,
            size,
            backend,
            broken: Rc::default(),
        };
        if let Backend::Nccl { cuda, device } = &group.backend {
            cuda.attach_nccl(&group, *device, timeout)?;
        }
        Ok(group)
    }

    /// This process's rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What carries the bytes.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Replaces `tensor` by the reduction of all ranks' tensors.
    ///
    /// Gloo reduces every number kind but complex ones, NCCL the kinds of CUDA tensors.
    pub fn all_reduce(&mut self, tensor: &mut Tensor, op: ReduceOp) -> Result<(), Error> {
        self.all_reduce_async(tensor.shallow_clone(), op)?
            .wait()
            .map(drop)
    }

    /// Starts an [`all_reduce`](Self::all_reduce) and returns at once.
    pub fn all_reduce_async(&mut self, tensor: Tensor, op: ReduceOp) -> Result<Work, Error> {
        let tensors = vec![tensor];
        let list = self.reducible(&tensors, op)?;
        let work = self.inner.all_reduce(&list, op.code());
        self.started(Collective::AllReduce, work, tensors)
    }

    /// [`all_reduce`](Self::all_reduce) of several tensors of one kind in one operation: far cheaper for small ones.
    pub fn all_reduce_coalesced(
        &mut self,
        tensors: &mut [Tensor],
        op: ReduceOp,
    ) -> Result<(), Error> {
        let tensors = tensors.iter().map(Tensor::shallow_clone).collect();
        self.all_reduce_coalesced_async(tensors, op)?
            .wait()
            .map(drop)
    }

    /// Starts an [`all_reduce_coalesced`](Self::all_reduce_coalesced) and returns at once.
    pub fn all_reduce_coalesced_async(
        &mut self,
        tensors: Vec<Tensor>,
        op: ReduceOp,
    ) -> Result<Work, Error> {
        if tensors.is_empty() {
            return Ok(Work::nothing(&self.broken));
        }
        let list = self.reducible(&tensors, op)?;
        let work = self.inner.all_reduce_coalesced(&list, op.code());
        self.started(Collective::AllReduce, work, tensors)
    }

    /// Replaces each of `tensors` by rank `root`'s. One operation each, all under way together.
    pub fn broadcast(&mut self, tensors: &mut [Tensor], root: usize) -> Result<(), Error> {
        let works = tensors
            .iter()
            .map(|tensor| self.broadcast_async(tensor.shallow_clone(), root))
            .collect::<Result<Vec<_>, _>>()?;
        works.into_iter().try_for_each(|work| work.wait().map(drop))
    }

    /// Starts a [`broadcast`](Self::broadcast) of one tensor and returns at once.
    pub fn broadcast_async(&mut self, tensor: Tensor, root: usize) -> Result<Work, Error> {
        let root = self.checked_rank(root)?;
        let tensors = vec![tensor];
        self.check(Collective::Broadcast, &tensors)?;
        let work = self.inner.broadcast(as_ffi(&tensors[0]), root);
        self.started(Collective::Broadcast, work, tensors)
    }

    /// [`broadcast`](Self::broadcast) through flat buffers of about `buffer_bytes` each: for a model's parameters
    /// and buffers. Kinds and devices may be mixed.
    pub fn broadcast_coalesced(
        &mut self,
        tensors: &mut [Tensor],
        buffer_bytes: usize,
        root: usize,
    ) -> Result<(), Error> {
        let root = self.checked_rank(root)?;
        if tensors.is_empty() {
            return Ok(());
        }
        // Views are fine here: tensors are copied into the buffers and back.
        self.check_usable()?;
        let result = self
            .inner
            .broadcast_coalesced(&list(tensors), buffer_bytes, root);
        self.finished(Collective::Broadcast, result)
    }

    /// Every rank's tensor, in order of ranks. All must have the same shape and kind.
    pub fn all_gather(&mut self, tensor: &Tensor) -> Result<Vec<Tensor>, Error> {
        self.all_gather_async(tensor)?.wait()
    }

    /// Starts an [`all_gather`](Self::all_gather) and returns at once; waiting for the work returns the tensors.
    pub fn all_gather_async(&mut self, tensor: &Tensor) -> Result<Work, Error> {
        self.check_usable()?;
        let mut outputs = ffi::new_tensors();
        let work = self.inner.all_gather(as_ffi(tensor), outputs.pin_mut());
        let outputs =
            unlist(&outputs).map_err(|exception| self.failure(Collective::AllGather, exception))?;
        self.started(Collective::AllGather, work, outputs)
    }

    /// Every rank's bytes, in order of ranks. Lengths may differ. Two operations on CPU tensors.
    pub fn all_gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let lengths: Vec<usize> = self
            .all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?
            .iter()
            .map(|length| length.int64_value(&[0]) as usize)
            .collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); self.size]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let gathered = self.all_gather(&Tensor::from_slice(&padded))?;
        Ok(gathered
            .iter()
            .zip(lengths)
            .map(|(tensor, length)| {
                let mut bytes = vec![0; longest];
                tensor.copy_data_u8(&mut bytes, longest);
                bytes.truncate(length);
                bytes
            })
            .collect())
    }

    /// Returns once all ranks have called it. With NCCL, blocks the calling thread as well.
    pub fn barrier(&mut self) -> Result<(), Error> {
        self.check_usable()?;
        let work = self.inner.barrier();
        self.started(Collective::Barrier, work, Vec::new())?
            .wait()
            .map(drop)
    }

    /// A barrier over Gloo whose failure on rank 0 names the ranks that did not come within `timeout`.
    pub fn monitored_barrier(&mut self, timeout: Duration) -> Result<(), Error> {
        self.check_usable()?;
        let result = self.inner.monitored_barrier(millis(timeout));
        self.finished(Collective::MonitoredBarrier, result)
    }

    /// Gives up what is under way. NCCL frees its communicator and unblocks the GPU; Gloo has no such thing, its
    /// operations end by the group's timeout. Either way the group cannot be used again.
    pub fn abort(self) -> Result<(), Error> {
        let result = self.inner.abort();
        self.finished(Collective::Barrier, result)
    }

    /// Asks whether all ranks hold parameters of the same number, shapes and kinds as rank 0.
    pub(crate) fn verify_params(&mut self, params: &[Tensor]) -> Result<(), Error> {
        self.check_usable()?;
        self.inner
            .verify_params(&list(params))
            .map_err(|exception| {
                self.broken.set(Some(Collective::AllGather));
                Error::VerifyParams {
                    rank: self.rank,
                    source: exception.into(),
                }
            })
    }

    pub(crate) fn broken(&self) -> Broken {
        Rc::clone(&self.broken)
    }

    fn check_usable(&self) -> Result<(), Error> {
        check_usable(&self.broken)
    }

    fn check(&self, collective: Collective, tensors: &[Tensor]) -> Result<(), Error> {
        self.check_usable()?;
        match tensors.iter().find(|tensor| !ffi::is_dense(as_ffi(tensor))) {
            // Backends pass storage on as it lies in memory, without looking at strides.
            Some(tensor) => Err(Error::NotDense {
                collective,
                shape: tensor.size(),
            }),
            None => Ok(()),
        }
    }

    fn reducible(
        &self,
        tensors: &[Tensor],
        op: ReduceOp,
    ) -> Result<UniquePtr<ffi::Tensors>, Error> {
        self.check(Collective::AllReduce, tensors)?;
        match tensors
            .iter()
            .find(|tensor| op == ReduceOp::Average && !tensor.is_floating_point())
        {
            Some(tensor) => Err(Error::AverageOfIntegers(tensor.kind())),
            None => Ok(list(tensors)),
        }
    }

    fn checked_rank(&self, rank: usize) -> Result<i32, Error> {
        if rank < self.size {
            Ok(rank as i32)
        } else {
            Err(Error::NoSuchRank {
                rank,
                size: self.size,
            })
        }
    }

    fn started(
        &self,
        collective: Collective,
        work: Result<UniquePtr<ffi::Work>, cxx::Exception>,
        tensors: Vec<Tensor>,
    ) -> Result<Work, Error> {
        let inner = work.map_err(|exception| self.failure(collective, exception))?;
        Ok(Work {
            inner: Some(inner),
            collective,
            rank: self.rank,
            tensors,
            broken: self.broken(),
        })
    }

    fn finished(
        &self,
        collective: Collective,
        result: Result<(), cxx::Exception>,
    ) -> Result<(), Error> {
        result.map_err(|exception| self.failure(collective, exception))
    }

    fn failure(&self, collective: Collective, exception: cxx::Exception) -> Error {
        self.broken.set(Some(collective));
        Error::Collective {
            collective,
            rank: self.rank,
            source: exception.into(),
        }
    }
}

impl std::fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessGroup")
            .field("rank", &self.rank)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

pub(crate) fn check_usable(broken: &Broken) -> Result<(), Error> {
    broken
        .get()
        .map_or(Ok(()), |after| Err(Error::GroupUnusable { after }))
}

/// A collective under way. It keeps its tensors alive and to itself until it is waited for.
#[must_use = "its result is there only after `wait`"]
pub struct Work {
    /// `None` when there was nothing to do.
    inner: Option<UniquePtr<ffi::Work>>,
    collective: Collective,
    rank: usize,
    tensors: Vec<Tensor>,
    broken: Broken,
}

impl Work {
    fn nothing(broken: &Broken) -> Self {
        Self {
            inner: None,
            collective: Collective::AllReduce,
            rank: 0,
            tensors: Vec::new(),
            broken: Rc::clone(broken),
        }
    }

    /// Whether it has finished, well or not. Does not wait.
    pub fn is_completed(&self) -> bool {
        // Whatever asking throws, waiting reports.
        self.inner
            .as_ref()
            .is_none_or(|work| work.is_completed().unwrap_or(true))
    }

    /// Waits for the end and returns the tensors: those given, changed in place, or those gathered.
    ///
    /// With NCCL only the current stream waits, not the calling thread.
    pub fn wait(self) -> Result<Vec<Tensor>, Error> {
        if let Some(Err(exception)) = self.inner.as_ref().map(|work| work.wait()) {
            self.broken.set(Some(self.collective));
            return Err(Error::Collective {
                collective: self.collective,
                rank: self.rank,
                source: exception.into(),
            });
        }
        Ok(self.tensors)
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work")
            .field("collective", &self.collective)
            .finish_non_exhaustive()
    }
}
