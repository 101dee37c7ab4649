//! How many threads a process uses, and libtorch's settings for all of them.

use std::num::NonZero;

use contract::spec::Training;
use torch_bridge::runtime;

/// A loader gains little from more threads, and an untold user should not lose a machine to it.
const MAX_DEFAULT_LOADER_THREADS: usize = 8;
/// Freed blocks up to this size stay with the allocator: larger ones come from few tensors per step.
const KEPT_MEMORY: usize = 1 << 30;

/// How many threads of each kind a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// For tensor arithmetic.
    pub compute: usize,
    /// For decoding and augmenting images.
    pub loader: usize,
}

impl Threads {
    /// What the settings ask for; where they are silent, an equal share of the `cpus` that the
    /// `processes` of this worker have together.
    pub fn plan(training: &Training, cpus: usize, processes: usize) -> Self {
        let share = (cpus / processes.max(1)).max(1);
        let set = |value: Option<u32>| value.map(|threads| threads as usize);
        Self {
            compute: set(training.compute_threads).unwrap_or(share),
            loader: set(training.loader_threads).unwrap_or(share.min(MAX_DEFAULT_LOADER_THREADS)),
        }
    }

    /// Sets libtorch up. Call it before the first tensor is computed.
    pub fn apply(self) -> Result<(), torch_bridge::Error> {
        // A C library that refuses costs speed, not correctness.
        let _ = runtime::keep_freed_memory(KEPT_MEMORY);
        // One operation at a time: the order of sums must not depend on which finishes first.
        runtime::set_num_interop_threads(1)?;
        runtime::set_num_threads(self.compute)?;
        // Late in training many gradients underflow, and denormal numbers are computed in microcode.
        runtime::set_flush_denormal(true)?;
        Ok(())
    }
}

/// CPUs this process may use: its affinity and the quota of its control group (v1 or v2), whichever is
/// smaller.
pub fn available_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_the_cpus_and_get_at_least_one() {
        let plan = |cpus, processes| {
            let threads = Threads::plan(&Training::default(), cpus, processes);
            (threads.compute, threads.loader)
        };
        assert_eq!((2, 2), plan(4, 2));
        assert_eq!((1, 1), plan(2, 4));
        assert_eq!((64, 8), plan(64, 1));
    }

    #[test]
    fn what_the_user_writes_counts() {
        let training = Training {
            compute_threads: Some(3),
            loader_threads: Some(20),
            ..Training::default()
        };
        let threads = Threads::plan(&training, 1, 1);
        assert_eq!((3, 20), (threads.compute, threads.loader));
    }
}
