//! Tensors as pickles describe them: a storage, where in it the first number lies, and how far apart the others.

use std::io::{Read, Seek};

use crate::archive::Archive;
use crate::error::FormatError;
use crate::pickle::{Id, Pickle, Value};
use crate::tensor::{Dtype, NamedTensor};

/// Sides that a tensor may have.
const MAX_SIDES: usize = 8;
/// Bytes of a storage's name.
const MAX_KEY: usize = 64;
/// Bytes of a tensor's name.
const MAX_NAME: usize = 1024;

/// Where the numbers of a tensor lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorView {
    /// State-dict name.
    pub name: String,
    /// What the numbers are.
    pub dtype: Dtype,
    /// Sides.
    pub shape: Vec<usize>,
    /// The name of the storage.
    storage: String,
    /// The first number.
    offset: usize,
    /// Numbers from one element to the next, along each side.
    strides: Vec<usize>,
    numel: usize,
}

impl TensorView {
    /// The tensor that `id` makes; `None` if it makes something else.
    pub fn of(pickle: &Pickle, id: Id, name: &str) -> Option<Result<Self, FormatError>> {
        let (module, function) = pickle.class(id)?;
        let arguments = pickle.arguments(id)?;
        match (module, function) {
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
            | ("torch.nn.parameter", "Parameter") => {
                // What it wraps is made of tensors only once; more would be a loop.
                let inner = *arguments.first()?;
                let (_, function) = pickle.class(inner)?;
                if function.starts_with("_rebuild_tensor") {
                    Self::of(pickle, inner, name)
                } else {
                    None
                }
            }
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(
                Self::read(pickle, arguments, name).map_err(|problem| FormatError::Tensor {
                    name: name.to_owned(),
                    problem,
                }),
            ),
            _ => None,
        }
    }

    fn read(pickle: &Pickle, arguments: &[Id], name: &str) -> Result<Self, String> {
        let strange = || "is described in a way that PyTorch does not write".to_owned();
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(strange());
        };
        let Value::Persistent(place) = pickle.value(*storage) else {
            return Err(strange());
        };
        let Some([kind, class, key, ..]) = pickle.sequence(*place) else {
            return Err(strange());
        };
        let (Some("storage"), Some((_, class)), Some(key)) =
            (pickle.text(*kind), pickle.class(*class), pickle.text(*key))
        else {
            return Err(strange());
        };
        if key.len() > MAX_KEY || name.len() > MAX_NAME {
            return Err(strange());
        }
        let dtype = Dtype::of_storage_class(class)
            .ok_or_else(|| format!("has numbers of kind {class}: save it as float32 or float16"))?;
        let natural = |id: Id| {
            pickle
                .int(id)
                .and_then(|number| usize::try_from(number).ok())
        };
        let naturals = |id: Id| {
            let numbers = pickle
                .sequence(id)
                .filter(|numbers| numbers.len() <= MAX_SIDES)?;
            numbers
                .iter()
                .map(|number| natural(*number))
                .collect::<Option<Vec<_>>>()
        };
        let (Some(offset), Some(shape), Some(strides)) =
            (natural(*offset), naturals(*shape), naturals(*strides))
        else {
            return Err(strange());
        };
        let numel = shape
            .iter()
            .try_fold(1usize, |all, side| all.checked_mul(*side));
        let numel = numel
            .filter(|_| shape.len() == strides.len())
            .ok_or_else(strange)?;
        Ok(Self {
            name: name.to_owned(),
            dtype,
            shape,
            storage: key.to_owned(),
            offset,
            strides,
            numel,
        })
    }

    /// Bytes of its numbers.
    pub fn byte_len(&self) -> Option<usize> {
        self.numel.checked_mul(self.dtype.size())
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape
            .iter()
            .zip(&self.strides)
            .rev()
            .all(|(side, stride)| {
                let fits = *side == 1 || *stride == expected;
                expected *= side;
                fits
            })
    }

    /// The number in the storage of the last element.
    fn last(&self) -> Option<usize> {
        let sides = self.shape.iter().zip(&self.strides);
        sides
            .map(|(side, stride)| side.saturating_sub(1).checked_mul(*stride))
            .try_fold(self.offset, |sum, step| sum.checked_add(step?))
    }

    /// Takes the numbers out of the storage's bytes.
    fn gather(&self, storage: &[u8]) -> Result<NamedTensor, FormatError> {
        let size = self.dtype.size();
        let held = storage.len() / size;
        // A view that shows numbers more than once could be of any size.
        let fits =
            self.numel == 0 || (self.last().is_some_and(|last| last < held) && self.numel <= held);
        if !fits {
            return Err(FormatError::Tensor {
                name: self.name.clone(),
                problem: format!(
                    "has the shape {:?}, but its storage only {held} numbers",
                    self.shape
                ),
            });
        }
        let bytes = if self.numel == 0 {
            Vec::new()
        } else if self.is_contiguous() {
            storage[self.offset * size..(self.offset + self.numel) * size].to_vec()
        } else {
            let mut bytes = Vec::with_capacity(self.numel * size);
            for mut index in 0..self.numel {
                let mut at = self.offset;
                for (side, stride) in self.shape.iter().zip(&self.strides).rev() {
                    at += index % side * stride;
                    index /= side;
                }
                bytes.extend_from_slice(&storage[at * size..(at + 1) * size]);
            }
            bytes
        };
        Ok(NamedTensor {
            name: self.name.clone(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            bytes,
        })
    }
}

/// Reads the numbers of `views`. All together may not be larger than the file they are in.
pub fn load<R: Read + Seek>(
    archive: &mut Archive<R>,
    views: &[TensorView],
) -> Result<Vec<NamedTensor>, FormatError> {
    let mut left = archive.size();
    let mut last: Option<(String, Vec<u8>)> = None;
    let mut tensors = Vec::with_capacity(views.len());
    for view in views {
        let bytes = view
            .byte_len()
            .and_then(|bytes| left.checked_sub(bytes as u64));
        left = bytes.ok_or_else(|| FormatError::Tensor {
            name: view.name.clone(),
            problem: format!(
                "has the shape {:?}, more than its file can hold",
                view.shape
            ),
        })?;
        if view.numel == 0 {
            tensors.push(view.gather(&[])?);
            continue;
        }
        let (key, storage) = match last.take() {
            Some((key, bytes)) if key == view.storage => (key, bytes),
            _ => (view.storage.clone(), archive.storage(&view.storage)?),
        };
        tensors.push(view.gather(&storage)?);
        last = Some((key, storage));
    }
    Ok(tensors)
}
