//! Where tensors live, and what carries them between ranks.

use contract::env::CUBLAS_WORKSPACE;
use contract::spec::{Backend as WantedBackend, Device as WantedDevice, Precision, Training};
use torch_bridge::group::Backend;
use torch_bridge::{NoCuda, cuda, runtime};

use crate::job::Job;

/// What a rank computes on.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// Its device.
    pub device: tch::Device,
    /// What carries tensors between ranks.
    pub backend: Backend,
    /// The instruction set or GPU, on which results depend in their last bits.
    pub name: String,
}

/// The device that was asked for is not there.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for, and libtorch cannot use one.
    #[error(
        "training.device is cuda or GPUs were asked for: choose cpu, or an image and a node with CUDA"
    )]
    NoCuda(#[source] NoCuda),
    /// Fewer GPUs than processes.
    #[error(
        "rank {local_rank} of this worker needs a GPU of its own, but there are {found}: raise workers.gpusPerWorker"
    )]
    TooFew {
        /// The rank inside the worker.
        local_rank: u32,
        /// GPUs there are.
        found: usize,
    },
    /// float16 needs the arithmetic of a GPU.
    #[error("training.precision is float16, which needs GPUs: choose bfloat16 or float32")]
    HalfOnCpu,
    /// cuBLAS was not told to give the same bits each time.
    #[error(
        "training.deterministic is true: set {}={} in the environment, which cuBLAS reads when it starts",
        CUBLAS_WORKSPACE.0, CUBLAS_WORKSPACE.1
    )]
    CublasWorkspace,
    /// libtorch cannot be told to choose repeatable algorithms.
    #[error("training.deterministic cannot be obeyed")]
    Deterministic(#[source] torch_bridge::Error),
    /// A call to CUDA failed.
    #[error("CUDA cannot be set up")]
    Cuda(#[source] torch_bridge::Error),
}

/// The device and backend of a rank.
///
/// `auto` means GPUs exactly when the workers were given some, so that a job never computes on the CPU
/// because a driver is missing.
pub fn choose(job: &Job) -> Result<Chosen, DeviceError> {
    let spec = &job.config.spec;
    let on_gpu = match spec.training.device {
        WantedDevice::Cpu => false,
        WantedDevice::Cuda => true,
        WantedDevice::Auto => job.config.workers.gpus_per_worker > 0,
    };
    if !on_gpu {
        return Ok(Chosen {
            device: tch::Device::Cpu,
            backend: Backend::Gloo,
            name: runtime::cpu_capability(),
        });
    }
    let cuda = cuda::load().map_err(DeviceError::NoCuda)?;
    let found = cuda.device_count().map_err(DeviceError::Cuda)?;
    let local_rank = job.place.local_rank;
    let index = local_rank as usize;
    if index >= found {
        return Err(DeviceError::TooFew { local_rank, found });
    }
    cuda.set_device(index).map_err(DeviceError::Cuda)?;
    let name = cuda.device_name(index).map_err(DeviceError::Cuda)?;
    Ok(Chosen {
        device: tch::Device::Cuda(index),
        backend: match spec.distributed.backend {
            // Of a process alone, which exchanges nothing: with several such settings are refused, since the process
            // groups of Gloo here take tensors of CPUs only.
            WantedBackend::Gloo => Backend::Gloo,
            WantedBackend::Auto | WantedBackend::Nccl => Backend::Nccl {
                cuda,
                device: index,
            },
        },
        name,
    })
}

/// Makes a GPU give the same bits each time, where that is asked for; `environment` reads a variable of the process.
pub fn settle_algorithms(
    training: &Training,
    device: tch::Device,
    environment: impl FnOnce(&str) -> Option<String>,
) -> Result<(), DeviceError> {
    if !training.deterministic || !device.is_cuda() {
        return Ok(());
    }
    // The other value that cuBLAS takes needs less memory and is slower.
    match environment(CUBLAS_WORKSPACE.0).as_deref() {
        Some(value) if value == CUBLAS_WORKSPACE.1 || value == ":16:8" => {}
        _ => return Err(DeviceError::CublasWorkspace),
    }
    runtime::set_deterministic(true).map_err(DeviceError::Deterministic)
}

/// The instruction set or GPU behind `device`.
pub fn name(device: tch::Device) -> Result<String, DeviceError> {
    match device {
        tch::Device::Cuda(index) => {
            let cuda = cuda::load().map_err(DeviceError::NoCuda)?;
            cuda.device_name(index).map_err(DeviceError::Cuda)
        }
        _ => Ok(runtime::cpu_capability()),
    }
}

/// The 16 bits that expensive operations compute in on `device`; none for `f32`.
pub fn precision(wanted: Precision, device: tch::Device) -> Result<Option<tch::Kind>, DeviceError> {
    match (wanted, device) {
        (Precision::Float32, _) | (Precision::Auto, tch::Device::Cpu) => Ok(None),
        (Precision::Bfloat16, _) => Ok(Some(tch::Kind::BFloat16)),
        (Precision::Float16, tch::Device::Cpu) => Err(DeviceError::HalfOnCpu),
        (Precision::Float16 | Precision::Auto, _) => Ok(Some(tch::Kind::Half)),
    }
}

/// The device of a process that works alone; `auto` takes a GPU if there is one.
pub fn for_inference(wanted: WantedDevice) -> Result<tch::Device, DeviceError> {
    let first = || {
        let cuda = cuda::load().map_err(DeviceError::NoCuda)?;
        match cuda.device_count().map_err(DeviceError::Cuda)? {
            0 => Err(DeviceError::TooFew {
                local_rank: 0,
                found: 0,
            }),
            _ => Ok(tch::Device::Cuda(0)),
        }
    };
    match wanted {
        WantedDevice::Cpu => Ok(tch::Device::Cpu),
        WantedDevice::Cuda => first(),
        WantedDevice::Auto => Ok(first().unwrap_or(tch::Device::Cpu)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_made_repeatable_only_with_cublas() {
        let training = Training {
            deterministic: true,
            ..Training::default()
        };
        let settle = |device, value: Option<&str>| {
            settle_algorithms(&training, device, |name| {
                assert_eq!("CUBLAS_WORKSPACE_CONFIG", name);
                value.map(str::to_owned)
            })
        };
        let gpu = tch::Device::Cuda(0);
        for value in [None, Some(":8:1")] {
            let error = settle(gpu, value).unwrap_err().to_string();
            assert!(error.contains("CUBLAS_WORKSPACE_CONFIG=:4096:8"), "{error}");
        }
        settle(gpu, Some(":4096:8")).expect("enough");
        runtime::set_deterministic(false).expect("as it was");
        settle(tch::Device::Cpu, None).expect("a CPU always is");
    }
}
