//! How much memory images may take.

use std::fs;

use torch_bridge::cuda::{self, Cuda};

/// Which part of the free memory a process's share of images may take: the network needs the rest.
const PART: u64 = 4;

/// Of the free memory, what a batch may take (YOLOv5's share).
const BATCH_PART: f64 = 0.8;

/// Bytes that decoded images may take in this process, when `processes` share the worker's memory.
pub fn cache_budget(processes: u32) -> u64 {
    free() / PART / u64::from(processes.max(1))
}

/// Bytes that this worker may still use.
fn free() -> u64 {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let free = [
        available(&text("/proc/meminfo")),
        left(
            &text("/sys/fs/cgroup/memory.max"),
            &text("/sys/fs/cgroup/memory.current"),
        ),
        left(
            &text("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
            &text("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        ),
    ];
    free.into_iter().flatten().min().unwrap_or(0)
}

/// Measures how much memory tensors take.
pub struct Meter {
    place: Place,
}

/// Where tensors are.
enum Place {
    Gpu(Cuda, usize),
    /// One of so many processes of a worker, the memory of which images share.
    Process(u32),
}

impl Meter {
    /// For the tensors on `device`; of a CPU's memory `processes` processes take equal parts.
    pub fn of(device: tch::Device, processes: u32) -> Self {
        let place = match (device, cuda::load()) {
            (tch::Device::Cuda(index), Ok(cuda)) => Place::Gpu(cuda, index),
            _ => Place::Process(processes.max(1)),
        };
        Self { place }
    }

    /// Bytes that a batch may take at its peak, what is there already included.
    pub fn budget(&self) -> Result<u64, torch_bridge::Error> {
        let (used, free) = match self.place {
            Place::Gpu(cuda, index) => (
                cuda.allocator_memory(index)?.reserved,
                cuda.memory(index)?.free,
            ),
            Place::Process(processes) => {
                let images = cache_budget(processes);
                let share = free() / u64::from(processes);
                (resident("VmRSS:"), share.saturating_sub(images))
            }
        };
        Ok(used + (BATCH_PART * free as f64) as u64)
    }

    /// Begins a new measurement of the peak.
    pub fn reset(&self) -> Result<(), torch_bridge::Error> {
        match self.place {
            Place::Gpu(cuda, index) => cuda.reset_peak_memory(index),
            Place::Process(_) => {
                torch_bridge::runtime::trim_memory();
                // Where the kernel refuses, the peak is that of all that came before, which is no more for batches
                // that grow.
                let _ = fs::write("/proc/self/clear_refs", "5");
                Ok(())
            }
        }
    }

    /// The most bytes used at once since then.
    pub fn peak(&self) -> Result<u64, torch_bridge::Error> {
        match self.place {
            Place::Gpu(cuda, index) => Ok(cuda.allocator_memory(index)?.reserved_peak),
            Place::Process(_) => Ok(resident("VmHWM:")),
        }
    }
}

/// Bytes of this process in memory, as `field` of the kernel's status counts them.
fn resident(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, field).unwrap_or(0)
}

fn available(meminfo: &str) -> Option<u64> {
    kilobytes(meminfo, "MemAvailable:")
}

/// The bytes in the line `field` of a table of the kernel's.
fn kilobytes(table: &str, field: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// What a limit leaves; a limit of `max` means none.
fn left(limit: &str, used: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    Some(limit.saturating_sub(used.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_their_absence_is_none() {
        assert_eq!(
            Some(2048),
            available("MemTotal: 9 kB\nMemAvailable:       2 kB\n")
        );
        assert_eq!(Some(30), left("100\n", "70\n"));
        assert_eq!(None, left("max\n", "70\n"));
        assert_eq!(None, left("", ""));
    }
}
