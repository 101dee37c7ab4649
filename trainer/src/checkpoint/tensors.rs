//! Named tensors as the bytes of a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use tch::{Kind, Tensor};

/// Tensors by name.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// Tensors that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The bytes are not a safetensors file, or tensors do not fit into one.
    #[error("not a valid safetensors file")]
    Format(#[source] SafeTensorError),
    /// A tensor has a kind of number that checkpoints do not hold.
    #[error("tensor {name} has numbers of kind {kind}")]
    Kind {
        /// Name of the tensor.
        name: String,
        /// What its numbers are.
        kind: String,
    },
    /// libtorch could not make or copy a tensor.
    #[error("tensor {name} cannot be copied")]
    Copy {
        /// Name of the tensor.
        name: String,
        /// What libtorch said.
        #[source]
        source: tch::TchError,
    },
}

/// A tensor's bytes as the safetensors crate wants them.
struct Content {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Content {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Kinds that state dicts hold, in libtorch's and in safetensors' words.
const KINDS: [(Kind, Dtype); 4] = [
    (Kind::Half, Dtype::F16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Int64, Dtype::I64),
];

/// The bytes of a file that holds `tensors` (on the CPU, contiguous). Equal tensors give equal bytes.
///
/// `note` is a key and a text for people and programs that read the file. There is room for one, because
/// the format does not fix the order of several.
pub fn encode(
    tensors: &[(String, Tensor)],
    note: Option<(&str, String)>,
) -> Result<Vec<u8>, TensorFileError> {
    let views = tensors
        .iter()
        .map(|(name, tensor)| Ok((name.as_str(), bytes(name, tensor)?)))
        .collect::<Result<Vec<_>, TensorFileError>>()?;
    let note = note.map(|(key, text)| HashMap::from([(key.to_owned(), text)]));
    safetensors::serialize(views, note).map_err(TensorFileError::Format)
}

fn bytes(name: &str, tensor: &Tensor) -> Result<Content, TensorFileError> {
    let kind = tensor.kind();
    let (_, dtype) = KINDS
        .into_iter()
        .find(|(known, _)| *known == kind)
        .ok_or_else(|| TensorFileError::Kind {
            name: name.to_owned(),
            kind: format!("{kind:?}"),
        })?;
    let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
    tensor
        .f_copy_data_u8(&mut bytes, tensor.numel())
        .map_err(|source| TensorFileError::Copy {
            name: name.to_owned(),
            source,
        })?;
    Ok(Content {
        dtype,
        shape: tensor.size().iter().map(|side| *side as usize).collect(),
        bytes,
    })
}

/// The tensors of a file, and the text of its note `key`.
pub fn decode(bytes: &[u8], key: &str) -> Result<(NamedTensors, Option<String>), TensorFileError> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(TensorFileError::Format)?;
    let note = header
        .metadata()
        .as_ref()
        .and_then(|notes| notes.get(key).cloned());
    let file = SafeTensors::deserialize(bytes).map_err(TensorFileError::Format)?;
    let mut tensors = NamedTensors::new();
    for (name, view) in file.tensors() {
        let (kind, _) = KINDS
            .into_iter()
            .find(|(_, dtype)| *dtype == view.dtype())
            .ok_or_else(|| TensorFileError::Kind {
                name: name.clone(),
                kind: format!("{:?}", view.dtype()),
            })?;
        let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind).map_err(|source| {
            TensorFileError::Copy {
                name: name.clone(),
                source,
            }
        })?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_and_note_survive_the_file_and_bytes_repeat() {
        let tensors = vec![
            (
                "b".to_owned(),
                Tensor::from_slice(&[1.5f32, -2.0]).view([2, 1]),
            ),
            ("a".to_owned(), Tensor::from(7i64)),
        ];
        let write = || encode(&tensors, Some(("k", "text".to_owned()))).expect("encoded");
        assert_eq!(write(), write());
        let (read, note) = decode(&write(), "k").expect("decoded");
        assert_eq!(Some("text"), note.as_deref());
        assert_eq!(vec![2, 1], read["b"].size());
        assert_eq!(-2.0, read["b"].double_value(&[1, 0]));
        assert_eq!(7, read["a"].int64_value(&[]));
    }

    #[test]
    fn damaged_bytes_and_strange_kinds_are_refused() {
        let tensors = vec![("a".to_owned(), Tensor::from(1.0f32))];
        let bytes = encode(&tensors, None).expect("encoded");
        for cut in [0, 4, bytes.len() - 1] {
            assert!(decode(&bytes[..cut], "k").is_err(), "cut at {cut}");
        }
        let brains = vec![("h".to_owned(), Tensor::from(1.0f32).to_kind(Kind::BFloat16))];
        let text = encode(&brains, None).expect_err("refused").to_string();
        assert_eq!("tensor h has numbers of kind BFloat16", text);
    }
}
