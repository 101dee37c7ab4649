//! How much memory a batch may take.

use std::fs;

use contract::spec::{Cache, Training};
use torch_bridge::cuda::{self, Cuda};
use trainer_cache::memory::{cache_budget, free, kilobytes};

/// Of the free memory, what a batch may take (YOLOv5's share).
const BATCH_PART: f64 = 0.8;

/// Measures how much memory tensors take.
pub struct Meter {
    place: Place,
}

/// Where tensors are.
enum Place {
    Gpu(Cuda, usize),
    /// One of so many processes of a worker, of whose memory images take so many bytes.
    Process {
        processes: u32,
        images: u64,
    },
}

impl Meter {
    /// For the tensors on `device`; of a CPU's memory `processes` processes take equal parts of what the images that
    /// `training` keeps there leave.
    pub fn of(device: tch::Device, processes: u32, training: &Training) -> Self {
        let images = match training.cache {
            Cache::Ram => training.cache_limit_bytes().unwrap_or_else(cache_budget),
            Cache::Disk | Cache::None => 0,
        };
        let place = match (device, cuda::load()) {
            (tch::Device::Cuda(index), Ok(cuda)) => Place::Gpu(cuda, index),
            _ => Place::Process {
                processes: processes.max(1),
                images,
            },
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
            Place::Process { processes, images } => (
                resident("VmRSS:"),
                free().saturating_sub(images) / u64::from(processes),
            ),
        };
        Ok(used + (BATCH_PART * free as f64) as u64)
    }

    /// Begins a new measurement of the peak.
    pub fn reset(&self) -> Result<(), torch_bridge::Error> {
        match self.place {
            Place::Gpu(cuda, index) => cuda.reset_peak_memory(index),
            Place::Process { .. } => {
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
            Place::Process { .. } => Ok(resident("VmHWM:")),
        }
    }
}

/// Bytes of this process in memory, as `field` of the kernel's status counts them.
fn resident(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, field).unwrap_or(0)
}
