//! Where tensors live, and what carries them between ranks.

use contract::spec::{Backend as Wanted, Device as Choice};
use torch_bridge::Backend;

use crate::error::Error;
use crate::job::Job;

/// The device of this process and the backend of its group.
///
/// `auto` means GPUs exactly when the workers were given some, so that the same job never computes on
/// the CPU because a driver is missing.
pub fn choose(job: &Job) -> Result<(tch::Device, Backend), Error> {
    let training = &job.config.spec.training;
    let gpus = job.config.workers.gpus_per_worker > 0;
    let on_gpu = match training.device {
        Choice::Cpu => false,
        Choice::Cuda => true,
        Choice::Auto => gpus,
    };
    if !on_gpu {
        return Ok((tch::Device::Cpu, Backend::Gloo));
    }
    let cuda = torch_bridge::cuda::load()?;
    let found = cuda.device_count()?;
    let local_rank = job.place.local_rank;
    let device = local_rank as usize;
    if device >= found {
        return Err(Error::TooFewGpus { local_rank, found });
    }
    cuda.set_device(device)?;
    let backend = match job.config.spec.distributed.backend {
        // Gloo moves tensors of a GPU through the CPU's memory.
        Wanted::Gloo => Backend::Gloo,
        Wanted::Auto | Wanted::Nccl => Backend::Nccl { cuda, device },
    };
    Ok((tch::Device::Cuda(device), backend))
}

/// The instruction set or GPU that results depend on in their last bits.
pub fn describe(device: tch::Device) -> String {
    let by_name = |index| {
        let cuda = torch_bridge::cuda::load().ok()?;
        cuda.device_name(index).ok()
    };
    match device {
        tch::Device::Cuda(index) => by_name(index).unwrap_or_else(|| "CUDA".to_owned()),
        _ => torch_bridge::runtime::cpu_capability(),
    }
}
