//! Why a command ends without success, and what that means for a restart.

use std::path::PathBuf;

use contract::exit::FailureReason;

use crate::agent_link::AgentLinkError;
use crate::checkpoint::CheckpointError;
use crate::distributed::rendezvous::RendezvousError;
use crate::job::JobError;
use crate::run_folder::RunFolderError;
use crate::weights::WeightsError;

/// Everything that can end a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are not usable.
    #[error("the job cannot be started")]
    Job(#[from] JobError),
    /// The data set is not usable.
    #[error("the data set cannot be used")]
    Dataset(#[from] trainer_data::DatasetError),
    /// The data set is not the one of the checkpoint.
    #[error(
        "the training images are not those of the checkpoint {}: restore the data set, or start a new run under another metadata.name", checkpoint.display()
    )]
    DatasetChanged {
        /// The checkpoint.
        checkpoint: PathBuf,
    },
    /// The order of images cannot be made.
    #[error("the training images cannot be put in order")]
    Sampler(#[from] trainer_core::sampler::SamplerError),
    /// No more batches.
    #[error("the next batch cannot be loaded")]
    Loader(#[from] trainer_data::LoaderError),
    /// The loader ended before the run did.
    #[error("the loader ended before the run did; this is a fault of the program, please report it")]
    LoaderEnded,
    /// The run folder is not usable.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// Checkpoints cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint that rank 0 sent cannot be understood.
    #[error("the state that rank 0 sent cannot be read")]
    SentState(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that writes checkpoints is gone.
    #[error(
        "the thread that writes checkpoints ended early; this is a fault of the program, please report it"
    )]
    WriterEnded,
    /// The ranks did not meet.
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    /// The agent cannot be reached.
    #[error(transparent)]
    Agent(#[from] AgentLinkError),
    /// Something that all ranks do together failed, or a setting of libtorch.
    #[error("computing together with the other ranks failed")]
    Bridge(#[from] torch_bridge::Error),
    /// The network failed.
    #[error("the network cannot be computed")]
    Model(#[from] trainer_model::Error),
    /// A tensor operation outside the network failed.
    #[error("{operation} failed")]
    Tensor {
        /// What was computed.
        operation: &'static str,
        /// What libtorch said.
        #[source]
        source: tch::TchError,
    },
    /// Weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The weights are for other classes than the data set's.
    #[error(
        "the weights know {weights} classes and the data set has {dataset}: use the data set they were trained on"
    )]
    Classes {
        /// Classes of the network.
        weights: usize,
        /// Classes of the data set.
        dataset: usize,
    },
    /// The loss is NaN or infinite.
    #[error(
        "the loss is not finite at step {step} (box {}, obj {}, cls {}; images {images}): lower hyperparameters.lr0, or look at these images and their labels",
        losses[0], losses[1], losses[2]
    )]
    NonFiniteLoss {
        /// The step, from 1.
        step: u64,
        /// Box, objectness and class part.
        losses: [f64; 3],
        /// The images of the ranks whose own loss was not finite.
        images: String,
    },
    /// GPUs were asked for and cannot be used.
    #[error("no GPU can be used: choose training.device cpu, or give each process a GPU")]
    NoCuda(#[from] torch_bridge::NoCuda),
    /// Fewer GPUs than processes.
    #[error("process {local_rank} of this worker needs a GPU of its own, but there are {found}")]
    TooFewGpus {
        /// This process.
        local_rank: u32,
        /// GPUs there are.
        found: usize,
    },
    /// Results of the ranks' evaluations do not fit together.
    #[error("the ranks' evaluations do not fit together")]
    Evaluation(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A file that a command was told to read cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A command has nothing to work on.
    #[error("{} has no pictures (bmp, jpg, jpeg, png, tif, tiff, webp)", path.display())]
    NoPictures {
        /// What was named.
        path: PathBuf,
    },
    /// A picture or table cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The output folder holds something else.
    #[error("{} is not empty and was not made by this command: choose a new folder", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// An example data set cannot be made.
    #[error("the data set cannot be made")]
    Digits(#[from] trainer_data::DigitsError),
    /// The system refuses to watch for signals.
    #[error("cannot watch for signals")]
    Signals(#[source] std::io::Error),
}

impl Error {
    /// The reason that conditions and exit codes tell.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Job(_) | Self::NoCuda(_) | Self::TooFewGpus { .. } | Self::Sampler(_) => {
                FailureReason::InvalidConfig
            }
            Self::Weights(_) | Self::Classes { .. } | Self::NoPictures { .. } => {
                FailureReason::InvalidConfig
            }
            Self::Dataset(_) | Self::DatasetChanged { .. } => FailureReason::InvalidDataset,
            Self::RunFolder(error) => match error {
                RunFolderError::Unwritable { .. } => FailureReason::OutputUnwritable,
                RunFolderError::OtherSettings { .. } => FailureReason::InvalidConfig,
                RunFolderError::Read { .. } | RunFolderError::TakenOver { .. } => {
                    FailureReason::IoFailed
                }
            },
            Self::Checkpoint(error) => match error {
                CheckpointError::NoneWhole { .. } => FailureReason::CheckpointUnreadable,
                CheckpointError::Encode { .. } => FailureReason::Internal,
                CheckpointError::Write { .. } | CheckpointError::List { .. } => {
                    FailureReason::IoFailed
                }
            },
            Self::NotEmpty { .. } | Self::Write { .. } => FailureReason::OutputUnwritable,
            Self::Digits(error) => match error {
                trainer_data::DigitsError::Config { .. } => FailureReason::InvalidConfig,
                _ => FailureReason::OutputUnwritable,
            },
            Self::Rendezvous(_) => FailureReason::RendezvousFailed,
            Self::Agent(_) | Self::Read { .. } => FailureReason::IoFailed,
            Self::Bridge(error) => of_bridge(error),
            Self::NonFiniteLoss { .. } => FailureReason::NonFiniteLoss,
            Self::Loader(_)
            | Self::LoaderEnded
            | Self::SentState(_)
            | Self::WriterEnded
            | Self::Model(_)
            | Self::Tensor { .. }
            | Self::Evaluation(_)
            | Self::Signals(_) => FailureReason::Internal,
        }
    }
}

fn of_bridge(error: &torch_bridge::Error) -> FailureReason {
    let unusable = matches!(error, torch_bridge::Error::GroupUnusable { .. });
    if unusable || error.is_peer_lost() || error.is_timeout() {
        FailureReason::PeerLost
    } else {
        FailureReason::Internal
    }
}
