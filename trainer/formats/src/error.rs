//! Why a file of weights cannot be used.

use std::io;

use safetensors::SafeTensorError;

use crate::archive::MAX_BYTES;
use crate::pickle::PickleError;

/// Why a file of weights cannot be used. The path is told by whoever named it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is larger than any file of weights.
    #[error("it has {size} bytes, a file of weights at most {MAX_BYTES}: name another")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// It begins like no format that is known.
    #[error(
        "it is neither a PyTorch file (.pt, .torchscript) nor a safetensors file; save files of PyTorch before 1.6 again with a newer one"
    )]
    Unknown,
    /// Its zip container is damaged.
    #[error("its zip container is damaged: copy the file again")]
    Zip(#[source] zip::result::ZipError),
    /// A part of the container is missing.
    #[error("it lacks {0}: it is no PyTorch file, or was cut off")]
    NoPart(String),
    /// A part is compressed, which PyTorch never does; unpacked it might fill any memory.
    #[error(
        "its part {0} is compressed, which PyTorch never does: unpack it and save it again with PyTorch"
    )]
    Compressed(String),
    /// A part is larger than the file itself or than anything PyTorch writes there.
    #[error("its part {name} says that it has {size} bytes, at most {most} are possible")]
    PartSize {
        /// The part.
        name: String,
        /// What the container says.
        size: u64,
        /// What is possible.
        most: u64,
    },
    /// Numbers were written by a machine of the other byte order.
    #[error("its numbers are in the byte order '{0}': save it again on a little-endian machine")]
    ByteOrder(String),
    /// The list of its objects cannot be read.
    #[error("its pickle cannot be used")]
    Pickle(#[from] PickleError),
    /// A network of another kind.
    #[error(
        "it is a {0}, and this program detects objects with boxes: use weights of a detection model"
    )]
    OtherTask(String),
    /// It holds no network.
    #[error("it holds no network and no state dict, but {0}")]
    NoNetwork(String),
    /// A tensor is described in a way that cannot be right.
    #[error("its tensor {name} {problem}")]
    Tensor {
        /// State-dict name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Its modules are nested more deeply, or are more, than those of any network.
    #[error("its modules are nested too deeply or are too many at {0}")]
    Modules(String),
    /// Not the safetensors format.
    #[error("it is not a valid safetensors file")]
    Safetensors(#[source] SafeTensorError),
    /// It cannot be put together.
    #[error("it cannot be put together")]
    Write(#[source] zip::result::ZipError),
}
