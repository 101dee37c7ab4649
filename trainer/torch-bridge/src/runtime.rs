//! libtorch's settings for the whole process.

use crate::error::{Error, Fault};
use crate::ffi;

/// Sets how many threads compute one operation.
///
/// Results depend on this number in their last bits, since sums are cut into one part per thread.
pub fn set_num_threads(threads: usize) -> Result<(), Error> {
    setting("num_threads", ffi::set_num_threads(threads as i32))
}

/// How many threads compute one operation.
pub fn num_threads() -> usize {
    ffi::num_threads() as usize
}

/// Sets how many operations run at once. Works only before the first parallel operation of the process, once.
pub fn set_num_interop_threads(threads: usize) -> Result<(), Error> {
    setting(
        "num_interop_threads",
        ffi::set_num_interop_threads(threads as i32),
    )
}

/// The instruction set libtorch's kernels use here: `DEFAULT`, `AVX2` or `AVX512`. It can be lowered by the
/// environment variable `ATEN_CPU_CAPABILITY`. Results depend on it in their last bits.
pub fn cpu_capability() -> String {
    ffi::cpu_capability()
}

/// The version of libtorch this was built against, such as `2.11.0`.
pub fn torch_version() -> String {
    ffi::torch_version()
}

/// Makes operations choose repeatable algorithms, and fail where there is none.
///
/// Unlike PyTorch's `use_deterministic_algorithms`, new tensors are not filled with NaN: that costs time and only
/// helps to find reads of uninitialised memory. On CUDA, `CUBLAS_WORKSPACE_CONFIG=:4096:8` must be set as well.
pub fn set_deterministic(enabled: bool) -> Result<(), Error> {
    setting("deterministic", ffi::set_deterministic(enabled))
}

/// Makes this thread, and threads it starts, treat numbers below `f32`'s normal range as 0, which is far faster.
/// Returns whether the processor can.
pub fn set_flush_denormal(enabled: bool) -> Result<bool, Error> {
    setting("flush_denormal", ffi::set_flush_denormal(enabled))
}

/// Lets `f32` matrix products and convolutions on CUDA use TF32: 10 bits of mantissa, several times faster.
pub fn set_allow_tf32(enabled: bool) -> Result<(), Error> {
    setting("allow_tf32", ffi::set_allow_tf32(enabled))
}

/// Makes the C allocator keep up to `bytes` of freed memory instead of giving every large block back to the
/// kernel, which would have to zero it again for the next operation. Training on CPU gains 6-12 % from it.
///
/// Each block up to `bytes` (at most 2 GiB) comes from the allocator's own heap. Call it before tensors are made.
pub fn keep_freed_memory(bytes: usize) -> Result<(), Error> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    for (setting, parameter) in [
        ("M_MMAP_THRESHOLD", libc::M_MMAP_THRESHOLD),
        ("M_TRIM_THRESHOLD", libc::M_TRIM_THRESHOLD),
    ] {
        // SAFETY: mallopt takes two integers, keeps no pointer, and takes the allocator's lock for the change.
        let accepted = unsafe { libc::mallopt(parameter, value) };
        if accepted != 1 {
            let source = Fault::Other(format!("mallopt refuses {value}"));
            return Err(Error::Setting { setting, source });
        }
    }
    Ok(())
}

/// Gives memory that the C allocator keeps free back to the kernel; returns whether there was any.
pub fn trim_memory() -> bool {
    // SAFETY: malloc_trim takes an integer and touches only blocks that are free, under the allocator's locks.
    unsafe { libc::malloc_trim(0) == 1 }
}

fn setting<T>(setting: &'static str, result: Result<T, cxx::Exception>) -> Result<T, Error> {
    result.map_err(|exception| Error::Setting {
        setting,
        source: exception.into(),
    })
}
