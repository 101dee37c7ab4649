//! Exit codes and failure reasons, and what each means for a restart.

use serde::{Deserialize, Serialize};

/// Why a rank, and with it a worker, did not succeed.
///
/// The words appear as condition reasons and in `kubectl describe`; users grep for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailureReason {
    /// The configuration cannot be used (a bug of the operator, or a hand-written file).
    InvalidConfig,
    /// The data set is missing, empty, or its labels or images are bad.
    InvalidDataset,
    /// The output folder cannot be created or written.
    OutputUnwritable,
    /// A check of the worker's surroundings failed before its ranks were started: no GPU is seen, for example.
    PreflightFailed,
    /// The ranks did not find each other in time.
    RendezvousFailed,
    /// A collective failed because another rank ended or was cut off.
    PeerLost,
    /// The loss was NaN or infinite.
    NonFiniteLoss,
    /// A training step needed more memory of the GPU than there is: the next attempt computes each process's images
    /// of a step in twice as many portions.
    OutOfMemory,
    /// CUDA or NCCL reported an error: of a GPU, its driver, or the way between GPUs. Another node may do better.
    GpuFailed,
    /// There are checkpoints, and none of them is whole.
    CheckpointUnreadable,
    /// The data set could not be fetched, for a reason that may pass: a server or a network.
    FetchFailed,
    /// A read or write failed that may succeed on another try.
    IoFailed,
    /// The process was ended by a signal it did not ask for (SIGKILL is usually the memory limit).
    Killed,
    /// The process runs and does nothing any more: no sign of life, or no training step for far longer than steps
    /// take.
    Hung,
    /// The worker was asked to stop, and did so after a checkpoint; or another start of the run has its folder.
    Stopped,
    /// Anything else: a bug. The message holds what is known.
    Internal,
}

/// Whether trying again from the last checkpoint can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same input fails again: the job fails now.
    Never,
    /// Nobody's fault: another attempt, not counted.
    Free,
    /// Worth another attempt, counted against the failure policy's budget.
    Counted,
}

impl FailureReason {
    /// All reasons, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::InvalidConfig,
        Self::InvalidDataset,
        Self::OutputUnwritable,
        Self::PreflightFailed,
        Self::RendezvousFailed,
        Self::PeerLost,
        Self::NonFiniteLoss,
        Self::OutOfMemory,
        Self::GpuFailed,
        Self::CheckpointUnreadable,
        Self::FetchFailed,
        Self::IoFailed,
        Self::Killed,
        Self::Hung,
        Self::Stopped,
        Self::Internal,
    ];

    /// The exit code of the process, after sysexits.h where it has a fitting one.
    ///
    /// `Killed` has no code of its own: a process ended by signal N is reported as 128 + N.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::InvalidConfig => 64,
            Self::InvalidDataset => 65,
            Self::OutputUnwritable => 73,
            Self::PreflightFailed => 84,
            Self::GpuFailed => 85,
            Self::RendezvousFailed => 69,
            Self::PeerLost => 76,
            Self::NonFiniteLoss => 80,
            Self::CheckpointUnreadable => 81,
            Self::OutOfMemory => 82,
            Self::Hung => 83,
            Self::IoFailed => 74,
            Self::FetchFailed => 75,
            Self::Killed => 137,
            Self::Stopped => 143,
            Self::Internal => 70,
        }
    }

    /// The reason behind an exit code; `None` for success.
    pub fn from_exit_code(code: i32) -> Option<Self> {
        match code {
            0 => None,
            143 => Some(Self::Stopped),
            128.. => Some(Self::Killed),
            _ => Some(
                Self::ALL
                    .into_iter()
                    .find(|reason| i32::from(reason.exit_code()) == code)
                    .unwrap_or(Self::Internal),
            ),
        }
    }

    /// What a restart policy needs to know of this reason.
    pub fn retry(self) -> Retry {
        match self {
            Self::InvalidConfig
            | Self::InvalidDataset
            | Self::OutputUnwritable
            | Self::NonFiniteLoss
            | Self::CheckpointUnreadable => Retry::Never,
            Self::PreflightFailed
            | Self::RendezvousFailed
            | Self::PeerLost
            | Self::OutOfMemory
            | Self::GpuFailed
            | Self::FetchFailed
            | Self::IoFailed
            | Self::Killed
            | Self::Hung
            | Self::Stopped
            | Self::Internal => Retry::Counted,
        }
    }

    /// Whether this is only the echo of another rank's failure, so that another reason, when there
    /// is one, explains the job's failure better.
    pub fn is_echo(self) -> bool {
        matches!(
            self,
            Self::PeerLost | Self::RendezvousFailed | Self::Stopped
        )
    }

    /// The word used in conditions, events and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidConfig => "InvalidConfig",
            Self::InvalidDataset => "InvalidDataset",
            Self::OutputUnwritable => "OutputUnwritable",
            Self::PreflightFailed => "PreflightFailed",
            Self::RendezvousFailed => "RendezvousFailed",
            Self::PeerLost => "PeerLost",
            Self::NonFiniteLoss => "NonFiniteLoss",
            Self::OutOfMemory => "OutOfMemory",
            Self::GpuFailed => "GpuFailed",
            Self::CheckpointUnreadable => "CheckpointUnreadable",
            Self::FetchFailed => "FetchFailed",
            Self::IoFailed => "IoFailed",
            Self::Killed => "Killed",
            Self::Hung => "Hung",
            Self::Stopped => "Stopped",
            Self::Internal => "Internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_again_by_its_exit_code() {
        for reason in FailureReason::ALL {
            assert_eq!(
                Some(reason),
                FailureReason::from_exit_code(reason.exit_code().into())
            );
        }
    }

    #[test]
    fn unknown_codes_are_internal_and_signals_are_kills() {
        assert_eq!(None, FailureReason::from_exit_code(0));
        assert_eq!(
            Some(FailureReason::Internal),
            FailureReason::from_exit_code(1)
        );
        assert_eq!(
            Some(FailureReason::Internal),
            FailureReason::from_exit_code(101)
        );
        assert_eq!(
            Some(FailureReason::Killed),
            FailureReason::from_exit_code(139)
        );
    }

    #[test]
    fn the_serialised_word_is_the_displayed_word() {
        for reason in FailureReason::ALL {
            assert_eq!(serde_json::json!(reason), reason.as_str());
        }
    }
}
