//! Parts of a large table, whose gradient is written once.

use tch::Tensor;

use crate::error::Error;
use crate::ffi;
use crate::tensors::{adopt, as_ffi, list};

/// Column `column` of all rows of `table`, of the table's shape without its last dimension, and the rows at
/// `places`, of `[places, columns]`; both in float64 if the table is, else in float32.
///
/// `places` are index tensors, one for each dimension but the last, that name no row twice. Gradients flow to the
/// table: in one buffer that lies in memory as the table does, where two operations would make two and their sum.
pub fn pick(table: &Tensor, column: i64, places: &[Tensor]) -> Result<(Tensor, Tensor), Error> {
    let picked = ffi::pick(as_ffi(table), column, &list(places)).and_then(|picked| {
        let (column, rows) = (picked.handle(0)?, picked.handle(1)?);
        // SAFETY: `handle` returns an `at::Tensor` it has just made with `new`, and nobody else has it.
        Ok(unsafe { (adopt(column), adopt(rows)) })
    });
    picked.map_err(|exception| Error::Function {
        operation: "parts of a table",
        source: exception.into(),
    })
}
