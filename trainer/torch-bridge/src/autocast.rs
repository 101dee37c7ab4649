//! Mixed precision: operations that gain from it compute in 16 bits while a guard lives.

use std::marker::PhantomData;

use tch::{Device, Kind};

use crate::error::Error;
use crate::ffi;

/// While this lives, operations of this thread on `device` that are safe to compute in 16 bits (convolutions,
/// matrix products) convert their inputs; others stay in, or return to, `f32`.
///
/// Guards nest, and dropping one restores what was before. Weights converted once are kept until the outermost
/// guard is dropped, so let it span the forward pass and the loss, not the optimizer's step.
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    cuda: bool,
    was_enabled: bool,
    kind_before: i32,
    /// The setting belongs to the thread, so the guard must be dropped where it was made.
    _thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Begins computing in `kind`, [`Kind::BFloat16`] or [`Kind::Half`].
    pub fn new(device: Device, kind: Kind) -> Result<Self, Error> {
        // libtorch's numbers for its scalar types, which tch keeps to itself.
        let code = match kind {
            Kind::Half => 5,
            Kind::BFloat16 => 15,
            _ => return Err(Error::AutocastKind(kind)),
        };
        let cuda = match device {
            Device::Cpu => false,
            Device::Cuda(_) => true,
            _ => return Err(Error::AutocastDevice(device)),
        };
        Self::switch_on(cuda, code).map_err(|exception| Error::Autocast(exception.into()))
    }

    fn switch_on(cuda: bool, kind: i32) -> Result<Self, cxx::Exception> {
        let was_enabled = ffi::autocast_enabled(cuda)?;
        let kind_before = ffi::autocast_kind(cuda)?;
        ffi::set_autocast(cuda, true, kind)?;
        let guard = Self {
            cuda,
            was_enabled,
            kind_before,
            _thread: PhantomData,
        };
        ffi::autocast_enter()?;
        Ok(guard)
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // These set thread-local variables and throw only for device types without autocast, which `new` refuses.
        let left = ffi::autocast_leave();
        let restored = ffi::set_autocast(self.cuda, self.was_enabled, self.kind_before);
        debug_assert!(
            left.is_ok() && restored.is_ok(),
            "autocast cannot be switched off"
        );
    }
}

impl std::fmt::Debug for Autocast {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Autocast")
            .field("cuda", &self.cuda)
            .finish_non_exhaustive()
    }
}
