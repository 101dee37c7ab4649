//! CUDA, when there is any: loaded at run time, so that one program serves machines with and without GPUs.
//!
//! The program links `libtorch_cpu.so` and `libc10.so` only. [`load`] looks for `libtorch_cuda.so` and then for
//! `libtorch_bridge_cuda.so` (built by `trainer/torch-bridge/build-cuda.sh`), whose C interface is declared here and
//! in `cpp/cuda_bridge.h`.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use std::{env, fmt, fs};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::error::{Error, Fault};
use crate::group::ProcessGroup;
use crate::store::millis;

/// Version of the C interface: raised with every change of `cpp/cuda_bridge.h`.
const INTERFACE_VERSION: c_int = 1;

const TORCH_CUDA: &str = "libtorch_cuda.so";
const BRIDGE: &str = "libtorch_bridge_cuda.so";

/// Names a folder to look for `libtorch_bridge_cuda.so` in before all others, for runs from a target folder.
pub const BRIDGE_FOLDER_VARIABLE: &str = "TORCH_BRIDGE_CUDA_DIR";

/// Why there is no CUDA: every library looked for, with the loader's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no CUDA here: {}", looked_for.join("; "))]
pub struct NoCuda {
    /// One line for each place, `path: reason`.
    pub looked_for: Vec<String>,
}

/// The CUDA part of libtorch, loaded for the rest of the process's life.
#[derive(Clone, Copy)]
pub struct Cuda {
    interface: &'static Interface,
}

/// Memory of a GPU in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Free, as the driver says: blocks that libtorch's allocator keeps count as used.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

/// What libtorch's allocator holds of a GPU's memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct AllocatorMemory {
    /// In tensors now.
    pub allocated: u64,
    /// In tensors at the highest, since the start or the last [`Cuda::reset_peak_memory`].
    pub allocated_peak: u64,
    /// Taken from the driver now: tensors and kept blocks.
    pub reserved: u64,
    /// Taken from the driver at the highest.
    pub reserved_peak: u64,
}

/// Loads CUDA, once; later calls return the same.
///
/// Call it before anything asks libtorch about CUDA ([`tch::Cuda::is_available`] included): libtorch decides on
/// the first question whether it has CUDA and does not change its mind.
///
/// Loading needs NVIDIA's libraries but no GPU; see [`Cuda::device_count`]. After a failure it may be tried again.
pub fn load() -> Result<Cuda, NoCuda> {
    static LOADED: Mutex<Option<&'static Interface>> = Mutex::new(None);
    let mut loaded = LOADED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let interface = match *loaded {
        Some(interface) => interface,
        None => Box::leak(Box::new(Interface::load()?)),
    };
    *loaded = Some(interface);
    Ok(Cuda { interface })
}

impl Cuda {
    /// How many GPUs there are; 0 when the driver is missing.
    pub fn device_count(self) -> Result<usize, Error> {
        let mut count = 0;
        self.call("device count", |interface, error| {
            // SAFETY: rule 1 of `Interface`; `count` is a live c_int.
            unsafe { (interface.device_count)(&raw mut count, error.0, error.1) }
        })?;
        Ok(count as usize)
    }

    /// The name of a GPU, such as `NVIDIA H100 80GB HBM3`.
    pub fn device_name(self, device: usize) -> Result<String, Error> {
        let mut name: [c_char; 256] = [0; 256];
        self.call("device name", |interface, error| {
            // SAFETY: rule 1 of `Interface`; `name` is a live buffer of the length given.
            unsafe {
                (interface.device_name)(
                    device as c_int,
                    name.as_mut_ptr(),
                    name.len(),
                    error.0,
                    error.1,
                )
            }
        })?;
        Ok(text(&name))
    }

    /// Free and total memory of a GPU.
    pub fn memory(self, device: usize) -> Result<Memory, Error> {
        let mut memory = Memory::default();
        self.call("memory", |interface, error| {
            // SAFETY: rule 1 of `Interface`; both numbers are live.
            unsafe {
                (interface.memory)(
                    device as c_int,
                    &raw mut memory.free,
                    &raw mut memory.total,
                    error.0,
                    error.1,
                )
            }
        })?;
        Ok(memory)
    }

    /// What libtorch's allocator holds of a GPU's memory.
    pub fn allocator_memory(self, device: usize) -> Result<AllocatorMemory, Error> {
        let mut memory = AllocatorMemory::default();
        self.call("allocator memory", |interface, error| {
            // SAFETY: rule 1 of `Interface`; `memory` is live and laid out as in the C declaration.
            unsafe {
                (interface.allocator_memory)(device as c_int, &raw mut memory, error.0, error.1)
            }
        })?;
        Ok(memory)
    }

    /// Begins a new measurement of the peaks in [`AllocatorMemory`].
    pub fn reset_peak_memory(self, device: usize) -> Result<(), Error> {
        self.call("reset peak memory", |interface, error| {
            // SAFETY: rule 1 of `Interface`.
            unsafe { (interface.reset_peak_memory)(device as c_int, error.0, error.1) }
        })
    }

    /// Makes `device` the one that new work of this thread goes to.
    pub fn set_device(self, device: usize) -> Result<(), Error> {
        self.call("set device", |interface, error| {
            // SAFETY: rule 1 of `Interface`.
            unsafe { (interface.set_device)(device as c_int, error.0, error.1) }
        })
    }

    /// Lets `f32` matrix products and convolutions use TF32. The same as
    /// [`runtime::set_allow_tf32`](crate::runtime::set_allow_tf32).
    pub fn set_tf32(self, enabled: bool) -> Result<(), Error> {
        crate::runtime::set_allow_tf32(enabled)
    }

    /// Waits until the current stream of `device` has done all it was given.
    pub fn synchronize(self, device: usize) -> Result<(), Error> {
        self.call("synchronize", |interface, error| {
            // SAFETY: rule 1 of `Interface`.
            unsafe { (interface.synchronize)(device as c_int, error.0, error.1) }
        })
    }

    /// Gives blocks that libtorch's allocator keeps back to the driver.
    pub fn empty_cache(self) -> Result<(), Error> {
        self.call("empty cache", |interface, error| {
            // SAFETY: rule 1 of `Interface`.
            unsafe { (interface.empty_cache)(error.0, error.1) }
        })
    }

    /// Adds NCCL to `group` for tensors of `device` and connects at once.
    pub(crate) fn attach_nccl(
        self,
        group: &ProcessGroup,
        device: usize,
        timeout: Duration,
    ) -> Result<(), Error> {
        let process_group = group.inner.process_group_address();
        let store = group.inner.store_address();
        self.call("attach NCCL", |interface, error| {
            // SAFETY: rule 1 of `Interface`; the addresses are those of a live c10d::ProcessGroup and a live
            // intrusive_ptr to a store, both owned by `group`, which is borrowed during the call. The callee
            // makes its own references to what it keeps. Both libraries are built against the same headers.
            unsafe {
                (interface.attach_nccl)(
                    process_group,
                    store,
                    group.rank() as c_int,
                    group.size() as c_int,
                    device as c_int,
                    millis(timeout),
                    error.0,
                    error.1,
                )
            }
        })
    }

    fn call(
        self,
        operation: &'static str,
        function: impl FnOnce(&Interface, (*mut c_char, usize)) -> c_int,
    ) -> Result<(), Error> {
        let mut error: [c_char; 4096] = [0; 4096];
        match function(self.interface, (error.as_mut_ptr(), error.len())) {
            0 => Ok(()),
            _ => Err(Error::Cuda {
                operation,
                source: Fault::from_text(text(&error)),
            }),
        }
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cuda")
    }
}

/// The text in a buffer that C filled; all of it if the closing zero is missing.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|&byte| byte.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes).map_or_else(
        |_| String::from_utf8_lossy(&bytes).into_owned(),
        |text| text.to_string_lossy().into_owned(),
    )
}

/// The functions of `cpp/cuda_bridge.h`.
///
/// Rule 1: each may be called from any thread, catches every C++ exception, returns 0 or puts a text into the buffer
/// that its last two arguments describe (pointer, length), always closed by a zero.
struct Interface {
    device_count: unsafe extern "C" fn(*mut c_int, *mut c_char, usize) -> c_int,
    device_name: unsafe extern "C" fn(c_int, *mut c_char, usize, *mut c_char, usize) -> c_int,
    memory: unsafe extern "C" fn(c_int, *mut u64, *mut u64, *mut c_char, usize) -> c_int,
    allocator_memory:
        unsafe extern "C" fn(c_int, *mut AllocatorMemory, *mut c_char, usize) -> c_int,
    reset_peak_memory: unsafe extern "C" fn(c_int, *mut c_char, usize) -> c_int,
    set_device: unsafe extern "C" fn(c_int, *mut c_char, usize) -> c_int,
    synchronize: unsafe extern "C" fn(c_int, *mut c_char, usize) -> c_int,
    empty_cache: unsafe extern "C" fn(*mut c_char, usize) -> c_int,
    attach_nccl:
        unsafe extern "C" fn(usize, usize, c_int, c_int, c_int, i64, *mut c_char, usize) -> c_int,
    /// Never closed: libtorch cannot be unloaded once its kernels are registered.
    _libraries: [Library; 2],
}

impl Interface {
    fn load() -> Result<Self, NoCuda> {
        let mut looked_for = Vec::new();
        let beside_torch: Vec<PathBuf> = folder_of_libtorch().into_iter().collect();
        let Some(torch_cuda) = open(TORCH_CUDA, &beside_torch, &mut looked_for) else {
            return Err(NoCuda { looked_for });
        };
        let mut folders: Vec<PathBuf> = env::var_os(BRIDGE_FOLDER_VARIABLE)
            .map(PathBuf::from)
            .into_iter()
            .collect();
        if let Ok(program) = env::current_exe() {
            folders.extend(
                program
                    .parent()
                    .and_then(Path::parent)
                    .map(|root| root.join("lib")),
            );
        }
        folders.extend(beside_torch);
        let Some(bridge) = open(BRIDGE, &folders, &mut looked_for) else {
            return Err(NoCuda { looked_for });
        };
        Self::resolve(torch_cuda, bridge).map_err(|reason| NoCuda {
            looked_for: vec![format!("{BRIDGE}: {reason}")],
        })
    }

    fn resolve(torch_cuda: Library, bridge: Library) -> Result<Self, String> {
        /// The function `name` of the bridge.
        ///
        /// # Safety
        ///
        /// `T` must be the type of a pointer to that function.
        unsafe fn function<T: Copy>(bridge: &Library, name: &str) -> Result<T, String> {
            // SAFETY: the caller names the right type. The pointer outlives the symbol: the library stays open.
            unsafe { bridge.get::<T>(name.as_bytes()) }
                .map(|symbol| *symbol)
                .map_err(|error| error.to_string())
        }

        // SAFETY: `int torch_bridge_cuda_interface_version(void)` in every version of the interface.
        let version: unsafe extern "C" fn() -> c_int =
            unsafe { function(&bridge, "torch_bridge_cuda_interface_version")? };
        // SAFETY: it takes nothing and returns a constant.
        let version = unsafe { version() };
        if version != INTERFACE_VERSION {
            return Err(format!(
                "its interface has version {version}, this program needs {INTERFACE_VERSION}"
            ));
        }
        // SAFETY: the version says that the library was built from the `cpp/cuda_bridge.h` these types mirror.
        unsafe {
            Ok(Self {
                device_count: function(&bridge, "torch_bridge_cuda_device_count")?,
                device_name: function(&bridge, "torch_bridge_cuda_device_name")?,
                memory: function(&bridge, "torch_bridge_cuda_memory")?,
                allocator_memory: function(&bridge, "torch_bridge_cuda_allocator_memory")?,
                reset_peak_memory: function(&bridge, "torch_bridge_cuda_reset_peak_memory")?,
                set_device: function(&bridge, "torch_bridge_cuda_set_device")?,
                synchronize: function(&bridge, "torch_bridge_cuda_synchronize")?,
                empty_cache: function(&bridge, "torch_bridge_cuda_empty_cache")?,
                attach_nccl: function(&bridge, "torch_bridge_cuda_attach_nccl")?,
                _libraries: [torch_cuda, bridge],
            })
        }
    }
}

/// Opens `name` from the first of `folders` that has it, or by the loader's own search.
fn open(name: &str, folders: &[PathBuf], looked_for: &mut Vec<String>) -> Option<Library> {
    let paths = folders
        .iter()
        .map(|folder| folder.join(name))
        .chain([PathBuf::from(name)]);
    for path in paths {
        if path.is_absolute() && !path.exists() {
            looked_for.push(format!("{}: no such file", path.display()));
            continue;
        }
        // SAFETY: opening runs the library's initialisers. libtorch_cuda.so's register kernels with the libtorch
        // loaded already, under its locks; the bridge has none. Global, so that the bridge finds libtorch's symbols.
        match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => return Some(library),
            Err(error) => looked_for.push(format!("{}: {}", path.display(), reason(&error))),
        }
    }
    None
}

/// The loader's own words, which libloading keeps in the source.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The folder that libtorch was loaded from.
fn folder_of_libtorch() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps
        .lines()
        .find(|line| line.ends_with("/libtorch_cpu.so"))?;
    Path::new(&path[path.find('/')?..])
        .parent()
        .map(Path::to_owned)
}
