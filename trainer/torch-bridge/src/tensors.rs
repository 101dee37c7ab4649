//! Handles of tensors on their way to and from C++.

use std::borrow::Borrow;

use cxx::UniquePtr;
use tch::Tensor;

use crate::ffi;

/// tch's tensor as the bridge's: both are a pointer to an `at::Tensor`.
pub(crate) fn as_ffi(tensor: &Tensor) -> &ffi::Tensor {
    let pointer: *const ffi::Tensor = tensor.as_ptr().cast();
    // SAFETY: tch's `C_tensor` is `at::Tensor` under an opaque name, and a `tch::Tensor` owns one from its
    // creation to its drop, so the pointer is valid, aligned and not null for the returned lifetime, which is
    // that of the borrow of `tensor`. `ffi::Tensor` is opaque: Rust reads or writes none of its bytes.
    unsafe { &*pointer }
}

/// Takes over a handle that C++ allocated with `new`.
///
/// # Safety
///
/// `pointer` must come from a bridge function that returns a new `at::Tensor`, and must not be used again.
pub(crate) unsafe fn adopt(pointer: *mut ffi::Tensor) -> Tensor {
    // SAFETY: the caller passes sole ownership of a live `at::Tensor` made by `new`; `tch::Tensor` frees it
    // with `delete` in its drop, once. Both sides link the same libtorch and C++ runtime.
    unsafe { Tensor::from_ptr(pointer.cast()) }
}

/// A list of new handles to the same tensors.
pub(crate) fn list<T: Borrow<Tensor>>(tensors: &[T]) -> UniquePtr<ffi::Tensors> {
    let mut list = ffi::new_tensors();
    for tensor in tensors {
        list.pin_mut().push(as_ffi(tensor.borrow()));
    }
    list
}

/// The tensors of a list made in C++.
pub(crate) fn unlist(list: &ffi::Tensors) -> Result<Vec<Tensor>, cxx::Exception> {
    (0..list.size())
        .map(|index| {
            let handle = list.handle(index)?;
            // SAFETY: `handle` returns an `at::Tensor` it has just made with `new`, and nobody else has it.
            Ok(unsafe { adopt(handle) })
        })
        .collect()
}
