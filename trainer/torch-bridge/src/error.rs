//! What can go wrong: one variant per operation or precondition, the cause beneath.

use std::fmt;
use std::path::PathBuf;

/// The cause libtorch gave, sorted by what a caller can do about it.
///
/// libtorch reports most distributed failures as plain texts, so the sort goes by text; the crate's tests pin
/// the texts of the version it is built against.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody answered in time: a peer or server is stuck, slow or was never there.
    #[error("{0}")]
    TimedOut(String),
    /// A connection broke: a peer or server has ended.
    #[error("{0}")]
    PeerLost(String),
    /// CUDA, one of its libraries or NCCL failed, and no peer's end is behind it.
    #[error("{0}")]
    Gpu(String),
    /// Anything else, such as an argument libtorch refuses.
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// Sorts a text from libtorch.
    pub fn from_text(text: impl Into<String>) -> Self {
        const PEER_LOST: [&str; 8] = [
            "Connection closed by peer",
            "Connection reset by peer",
            "Connection was likely closed",
            "Connection refused",
            "Broken pipe",
            "Socket closed",
            "ncclRemoteError",
            "recv failed",
        ];
        const TIMED_OUT: [&str; 5] = [
            "Timed out",
            "timed out",
            "timeout after",
            "Timeout",
            "failed to pass monitoredBarrier",
        ];
        const GPU: [&str; 5] = [
            "CUDA error",
            "CUDA driver error",
            "NCCL error",
            "cuDNN error",
            "cusolver error",
        ];
        let text = text.into();
        let names_any = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        if names_any(&PEER_LOST) {
            Self::PeerLost(text)
        } else if names_any(&TIMED_OUT) {
            Self::TimedOut(text)
        } else if names_any(&GPU) {
            Self::Gpu(text)
        } else {
            Self::Other(text)
        }
    }
}

impl From<cxx::Exception> for Fault {
    fn from(exception: cxx::Exception) -> Self {
        Self::from_text(exception.what())
    }
}

impl From<&tch::TchError> for Fault {
    fn from(error: &tch::TchError) -> Self {
        Self::from_text(error.to_string())
    }
}

/// What a [`Store`](crate::Store) was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the store's methods")]
pub enum StoreOperation {
    Add,
    Check,
    Delete,
    Get,
    Prefix,
    Reopen,
    Set,
    Wait,
}

impl fmt::Display for StoreOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Check => "check",
            Self::Delete => "delete",
            Self::Get => "get",
            Self::Prefix => "prefix",
            Self::Reopen => "reopen",
            Self::Set => "set",
            Self::Wait => "wait",
        })
    }
}

/// An operation all ranks of a group take part in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the group's methods")]
pub enum Collective {
    AllGather,
    AllReduce,
    Barrier,
    Broadcast,
    MonitoredBarrier,
}

impl fmt::Display for Collective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllGather => "all-gather",
            Self::AllReduce => "all-reduce",
            Self::Barrier => "barrier",
            Self::Broadcast => "broadcast",
            Self::MonitoredBarrier => "monitored barrier",
        })
    }
}

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A TCP store could not be served or reached.
    #[error("cannot {} the TCP store at {host}:{port}", if *.is_server { "serve" } else { "reach" })]
    #[allow(missing_docs, reason = "the message names the fields")]
    OpenTcpStore {
        host: String,
        port: u16,
        is_server: bool,
        source: Fault,
    },
    /// A file store could not be opened.
    #[error("cannot open the file store {}", path.display())]
    #[allow(missing_docs, reason = "the message names the fields")]
    OpenFileStore { path: PathBuf, source: Fault },
    /// The store was reached and then failed.
    #[error("store operation {operation} on {keys:?} failed")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Store {
        operation: StoreOperation,
        keys: Vec<String>,
        source: Fault,
    },
    /// The ranks did not get connected.
    #[error("rank {rank} of {size} cannot create its process group")]
    #[allow(missing_docs, reason = "the message names the fields")]
    CreateGroup {
        rank: usize,
        size: usize,
        source: Fault,
    },
    /// A rank or root outside the group was named.
    #[error("there is no rank {rank} in a group of {size}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    NoSuchRank { rank: usize, size: usize },
    /// A collective failed. The group cannot be used again.
    #[error("{collective} failed on rank {rank}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Collective {
        collective: Collective,
        rank: usize,
        source: Fault,
    },
    /// An earlier collective failed, so the ranks no longer agree on what comes next.
    #[error(
        "the process group cannot be used since an earlier {after} failed; create a new one under a new prefix"
    )]
    #[allow(missing_docs, reason = "the message names the fields")]
    GroupUnusable { after: Collective },
    /// A collective would read or write memory outside the tensor.
    #[error(
        "{collective} needs tensors without gaps, but that of shape {shape:?} is a strided view; make it contiguous"
    )]
    #[allow(missing_docs, reason = "the message names the fields")]
    NotDense {
        collective: Collective,
        shape: Vec<i64>,
    },
    /// A mean of whole numbers is none of their kind.
    #[error("{0:?} numbers cannot be averaged; convert them to a float kind or use a sum")]
    AverageOfIntegers(tch::Kind),
    /// The ranks hold different parameters.
    #[error("the parameters of rank {rank} are not those of rank 0")]
    #[allow(missing_docs, reason = "the message names the fields")]
    VerifyParams { rank: usize, source: Fault },
    /// The reducer refused the parameters.
    #[error("cannot create the reducer over {params} parameters")]
    #[allow(missing_docs, reason = "the message names the fields")]
    CreateReducer { params: usize, source: Fault },
    /// The reducer could not start a forward pass.
    #[error("the reducer cannot prepare for a forward pass")]
    PrepareForward(#[source] Fault),
    /// The ranks could not agree on new buckets.
    #[error("the reducer cannot rebuild its buckets")]
    RebuildBuckets(#[source] Fault),
    /// The reducer could not start a backward pass.
    #[error("the reducer cannot prepare for a backward pass")]
    PrepareBackward(#[source] Fault),
    /// Gradients could not be computed, or not be reduced over the ranks.
    #[error("the backward pass failed")]
    Backward(#[source] Fault),
    /// Lists that go together differ in length.
    #[error("{operation} got {expected} tensors and {actual} {what}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    ListLengths {
        operation: &'static str,
        what: &'static str,
        expected: usize,
        actual: usize,
    },
    /// An operation on a list of tensors failed.
    #[error("{operation} over {tensors} tensors failed")]
    #[allow(missing_docs, reason = "the message names the fields")]
    TensorList {
        operation: &'static str,
        tensors: usize,
        source: Fault,
    },
    /// Autocast works with half-precision kinds only.
    #[error("autocast computes in BFloat16 or Half, not in {0:?}")]
    AutocastKind(tch::Kind),
    /// Autocast works on CPU and CUDA devices only.
    #[error("autocast works on CPU and CUDA devices, not on {0:?}")]
    AutocastDevice(tch::Device),
    /// Autocast could not be switched.
    #[error("cannot switch autocast")]
    Autocast(#[source] Fault),
    /// A tensor cannot be laid out channels-last.
    #[error("cannot lay out a tensor of shape {shape:?} channels-last")]
    #[allow(missing_docs, reason = "the message names the fields")]
    ChannelsLast { shape: Vec<i64>, source: Fault },
    /// A function could not be applied to a tensor.
    #[error("cannot compute {operation}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Function {
        operation: &'static str,
        source: Fault,
    },
    /// A function that works on some tensors only was given others.
    #[error("{operation} needs {needs}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Unsuited {
        operation: &'static str,
        needs: &'static str,
    },
    /// A setting of libtorch could not be changed.
    #[error("cannot change libtorch's setting {setting}")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Setting {
        setting: &'static str,
        source: Fault,
    },
    /// A CUDA operation failed.
    #[error("CUDA operation {operation} failed")]
    #[allow(missing_docs, reason = "the message names the fields")]
    Cuda {
        operation: &'static str,
        source: Fault,
    },
}

impl Error {
    /// The cause libtorch gave, if it was libtorch that failed.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::OpenTcpStore { source, .. }
            | Self::OpenFileStore { source, .. }
            | Self::Store { source, .. }
            | Self::CreateGroup { source, .. }
            | Self::Collective { source, .. }
            | Self::VerifyParams { source, .. }
            | Self::CreateReducer { source, .. }
            | Self::PrepareForward(source)
            | Self::RebuildBuckets(source)
            | Self::PrepareBackward(source)
            | Self::Backward(source)
            | Self::TensorList { source, .. }
            | Self::Autocast(source)
            | Self::ChannelsLast { source, .. }
            | Self::Function { source, .. }
            | Self::Setting { source, .. }
            | Self::Cuda { source, .. } => Some(source),
            Self::NoSuchRank { .. }
            | Self::GroupUnusable { .. }
            | Self::NotDense { .. }
            | Self::AverageOfIntegers(_)
            | Self::Unsuited { .. }
            | Self::ListLengths { .. }
            | Self::AutocastKind(_)
            | Self::AutocastDevice(_) => None,
        }
    }

    /// Whether a peer or server did not answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.fault(), Some(Fault::TimedOut(_)))
    }

    /// Whether a peer or server has ended.
    pub fn is_peer_lost(&self) -> bool {
        matches!(self.fault(), Some(Fault::PeerLost(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::Fault;

    /// Texts of libtorch 2.11. Those that two ranks on one machine can bring about are seen for real in
    /// `tests/groups.rs`.
    #[test]
    fn faults_are_sorted_by_what_a_caller_can_do() {
        let peer_lost = [
            "[gloo/transport/tcp/pair.cc:538] Connection closed by peer [10.0.0.7]:43210",
            "Read error [10.0.0.7]:43210: Connection reset by peer",
            "failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or crash?",
            "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
        ];
        for text in peer_lost {
            assert_eq!(Fault::from_text(text), Fault::PeerLost(text.to_owned()));
        }
        let timed_out = [
            "[gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 8000ms for recv operation to complete",
            "wait timeout after 300ms, keys: /never",
            "The client socket has timed out after 500ms while trying to connect to (127.0.0.1, 1).",
            "[Rank 0]: Rank 1 failed to pass monitoredBarrier in 300 ms",
        ];
        for text in timed_out {
            assert_eq!(Fault::from_text(text), Fault::TimedOut(text.to_owned()));
        }
        let gpu = [
            "NCCL error in: NCCLUtils.cpp:104, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\nncclUnhandledCudaError: Call to CUDA function failed.",
            "CUDA error: uncorrectable ECC error encountered",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        ];
        for text in gpu {
            assert_eq!(Fault::from_text(text), Fault::Gpu(text.to_owned()));
        }
        let other = "result type Float can't be cast to the desired output type Long";
        assert_eq!(Fault::from_text(other), Fault::Other(other.to_owned()));
    }
}
