//! Why a run ends without success, and what that means for a restart.

use std::io;
use std::path::PathBuf;

use contract::exit::FailureReason;
use contract::spec::OptimizerKind;
use torch_bridge::Fault;
use trainer_core::sampler::SamplerError;

use crate::agent_link::AgentLinkError;
use crate::checkpoint::CheckpointError;
use crate::console::chain;
use crate::convert::ConvertError;
use crate::device::DeviceError;
use crate::distributed::rendezvous::RendezvousError;
use crate::durable;
use crate::evaluate::EvaluateError;
use crate::job::JobError;
use crate::run_folder::RunFolderError;
use crate::session::ImageCacheError;
use crate::step::StepError;

/// Everything that can end a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are not usable.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The agent cannot be reached.
    #[error(transparent)]
    Agent(#[from] AgentLinkError),
    /// The system refuses to watch for signals.
    #[error("cannot watch for signals")]
    Signals(#[source] io::Error),
    /// A setting of libtorch.
    #[error("cannot set libtorch up")]
    Libtorch(#[source] torch_bridge::Error),
    /// The data set is not usable.
    #[error(transparent)]
    Dataset(#[from] trainer_data::DatasetError),
    /// A rank sees other images than the first.
    #[error(
        "rank {rank} sees another data set than rank 0 ({here}; rank 0: {first}): all workers must mount the same"
    )]
    OtherDataset {
        /// The rank.
        rank: usize,
        /// What it sees.
        here: String,
        /// What rank 0 sees.
        first: String,
    },
    /// The data set is not the one of the checkpoint.
    #[error(
        "the training images or classes are not those of the checkpoint {checkpoint}: restore the data set, or start a new run under another metadata.name"
    )]
    ChangedDataset {
        /// The checkpoint.
        checkpoint: String,
    },
    /// The network's anchors cannot be made.
    #[error(
        "the training images have too few different boxes to make the model's {anchors} anchors of: label more of them, or write widths and heights into model.anchors"
    )]
    TooFewBoxes {
        /// How many it has.
        anchors: usize,
    },
    /// There is no place for decoded images.
    #[error(transparent)]
    ImageCache(#[from] ImageCacheError),
    /// The images cannot be put in order.
    #[error("the training images cannot be put in order")]
    Sampler(#[source] SamplerError),
    /// The next batch cannot be loaded.
    #[error(transparent)]
    Loader(#[from] trainer_data::LoaderError),
    /// The loader ended before the run did.
    #[error(
        "the loader ended before the run did; this is a fault of the program, please report it"
    )]
    LoaderEnded,
    /// The ranks did not meet.
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    /// Something that all ranks do together failed.
    #[error("the ranks lost each other at {when}")]
    Ranks {
        /// What they were doing.
        when: &'static str,
        /// What libtorch said.
        #[source]
        source: torch_bridge::Error,
    },
    /// The states of the ranks are no longer the same.
    #[error(
        "after step {step} the state of rank {rank} is not that of rank 0; this is a fault of the program, please report it"
    )]
    RanksDiffer {
        /// Training steps done.
        step: u64,
        /// The first rank that differs.
        rank: usize,
    },
    /// The run folder is not usable.
    #[error(transparent)]
    RunFolder(#[from] RunFolderError),
    /// The settings cannot be written as YOLOv5's.
    #[error("the settings cannot be written as YOLOv5's opt.yaml and hyp.yaml")]
    Options(#[source] ConvertError),
    /// Checkpoints cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The thread that writes checkpoints is gone.
    #[error(
        "the thread that writes checkpoints ended early; this is a fault of the program, please report it"
    )]
    WriterEnded,
    /// A checkpoint does not fit the network.
    #[error("the checkpoint {checkpoint} does not fit this network")]
    Restore {
        /// The checkpoint.
        checkpoint: String,
        /// What does not fit.
        #[source]
        source: trainer_model::Error,
    },
    /// The run was begun with another optimiser.
    #[error(
        "hyperparameters.optimizer is {now:?}, but {checkpoint} is of a run with {before:?}: set it back, or begin a new run under another name"
    )]
    OtherOptimizer {
        /// The checkpoint.
        checkpoint: String,
        /// That of the checkpoint.
        before: OptimizerKind,
        /// That of the job.
        now: OptimizerKind,
    },
    /// The table of results cannot be written.
    #[error("cannot write {}", path.display())]
    Results {
        /// The table.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The model cannot be built for this data set.
    #[error("model.architecture cannot be used")]
    Architecture(#[from] trainer_model::architecture::ArchitectureError),
    /// A layer was to be frozen that does not exist.
    #[error(
        "training.freeze has {layer}, but the last layer is {last}: `yolo-trainer info` lists them"
    )]
    FreezeUnknown {
        /// The number that was given.
        layer: u32,
        /// The number of the last layer.
        last: usize,
    },
    /// The run ends before an epoch with mosaics.
    #[error(
        "augmentation.closeMosaic is {close}, but training.iterations is {iterations}, which ends the run in epoch {last}, since an epoch has {steps} steps: no epoch would have mosaics; lower augmentation.closeMosaic or raise training.iterations"
    )]
    NoMosaics {
        /// How many of the last epochs have none.
        close: u32,
        /// Steps of the run.
        iterations: u64,
        /// Steps of an epoch.
        steps: u64,
        /// The number of the last epoch, from 1.
        last: u32,
    },
    /// Nothing would be left to train.
    #[error("training.freeze has every layer that learns: leave out some")]
    FreezeAll,
    /// The network cannot be made.
    #[error("the network cannot be set up")]
    Model(#[from] trainer_model::Error),
    /// A training step failed.
    #[error("step {step} failed")]
    Step {
        /// Training steps done before it.
        step: u64,
        /// What failed.
        #[source]
        source: StepError,
    },
    /// A step needs more memory than there is.
    #[error(
        "step {step} does not fit the memory: the next start computes the images of each process in {portions} portions"
    )]
    OutOfMemory {
        /// Training steps done before it.
        step: u64,
        /// Portions of the next start.
        portions: u32,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Not even one image at a time fits.
    #[error(
        "step {step} does not fit the memory with one image at a time: lower training.imageSize, or choose a smaller model"
    )]
    NothingFits {
        /// Training steps done before it.
        step: u64,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The loss or the gradient is NaN or infinite.
    #[error(
        "{what} is not a finite number at step {step} (epoch {epoch}): lower hyperparameters.lr0, or look at these images and their labels: {details}"
    )]
    NonFinite {
        /// What it was.
        what: &'static str,
        /// Training steps done.
        step: u64,
        /// The epoch, from 1.
        epoch: u32,
        /// Loss parts and images of the steps in question.
        details: String,
        /// The numbers of these images.
        images: Vec<u32>,
    },
    /// An evaluation failed.
    #[error("the evaluation of epoch {epoch} failed")]
    Evaluate {
        /// The epoch, from 1.
        epoch: u32,
        /// What failed.
        #[source]
        source: EvaluateError,
    },
    /// A rank was asked to stop, and all did.
    #[error("stopped as asked after step {step}; the checkpoint is {checkpoint}")]
    Stopped {
        /// Training steps done.
        step: u64,
        /// The checkpoint, relative to the output folder.
        checkpoint: String,
    },
    /// A fault of the program.
    #[error("{0}; this is a fault of the program, please report it")]
    Panic(String),
}

impl Error {
    /// The error with its causes, in one line.
    pub fn message(&self) -> String {
        chain(self)
    }

    /// The word that decides the exit code, and whether another try is worth it.
    pub fn reason(&self) -> FailureReason {
        match self.plain_reason() {
            // Any tensor operation can be the one that a GPU fails in.
            FailureReason::Internal if matches!(Fault::from_text(chain(self)), Fault::Gpu(_)) => {
                FailureReason::GpuFailed
            }
            reason => reason,
        }
    }

    fn plain_reason(&self) -> FailureReason {
        match self {
            Self::Job(_)
            | Self::Device(_)
            | Self::Agent(_)
            | Self::Sampler(_)
            | Self::NoMosaics { .. }
            | Self::FreezeUnknown { .. }
            | Self::FreezeAll
            | Self::NothingFits { .. }
            | Self::OtherOptimizer { .. }
            | Self::Architecture(_) => FailureReason::InvalidConfig,
            Self::Dataset(error) => error.reason(),
            Self::OtherDataset { .. } | Self::ChangedDataset { .. } | Self::TooFewBoxes { .. } => {
                FailureReason::InvalidDataset
            }
            Self::Rendezvous(_) => FailureReason::RendezvousFailed,
            Self::Ranks { source, .. } => of_ranks(source),
            Self::RunFolder(error) => match error {
                RunFolderError::Unwritable { source, .. } if durable::lasts(source) => {
                    FailureReason::OutputUnwritable
                }
                RunFolderError::OtherSettings { .. } => FailureReason::InvalidConfig,
                RunFolderError::Unwritable { .. } | RunFolderError::Read { .. } => {
                    FailureReason::IoFailed
                }
                // Not tried again in place: the two would take the folder from each other.
                RunFolderError::TakenOver { .. } => FailureReason::Stopped,
            },
            Self::Checkpoint(error) => match error {
                CheckpointError::NoneWhole { passes: false, .. } => {
                    FailureReason::CheckpointUnreadable
                }
                CheckpointError::NoneWhole { passes: true, .. }
                | CheckpointError::Write { .. }
                | CheckpointError::List { .. } => FailureReason::IoFailed,
                CheckpointError::Encode { .. } => FailureReason::Internal,
            },
            Self::Restore { .. } => FailureReason::CheckpointUnreadable,
            Self::Results { .. } | Self::ImageCache(_) => FailureReason::IoFailed,
            Self::Step { source, .. } => of_step(source),
            Self::OutOfMemory { .. } => FailureReason::OutOfMemory,
            Self::NonFinite { .. } => FailureReason::NonFiniteLoss,
            Self::Evaluate { source, .. } => match source {
                EvaluateError::Ranks(source) => of_ranks(source),
                _ => FailureReason::Internal,
            },
            Self::Stopped { .. } => FailureReason::Stopped,
            Self::Signals(_)
            | Self::Libtorch(_)
            | Self::Loader(_)
            | Self::LoaderEnded
            | Self::Options(_)
            | Self::WriterEnded
            | Self::RanksDiffer { .. }
            | Self::Model(_)
            | Self::Panic(_) => FailureReason::Internal,
        }
    }
}

/// What a step's failure is called, in a run or a measurement.
pub(crate) fn of_step(source: &StepError) -> FailureReason {
    match source {
        StepError::Ranks(source) => of_ranks(source),
        StepError::NonFinite { .. } => FailureReason::NonFiniteLoss,
        StepError::OutOfMemory => FailureReason::OutOfMemory,
        // Normalisations by the images of all ranks wait for them in the middle of the network.
        StepError::Model(source) => match Fault::from_text(chain(source)) {
            Fault::PeerLost(_) | Fault::TimedOut(_) => FailureReason::PeerLost,
            Fault::Gpu(_) | Fault::Other(_) => FailureReason::Internal,
        },
        StepError::Tensor(_) => FailureReason::Internal,
    }
}

/// A group that an earlier failure left unusable has lost a peer too.
fn of_ranks(error: &torch_bridge::Error) -> FailureReason {
    let unusable = matches!(error, torch_bridge::Error::GroupUnusable { .. });
    if unusable || error.is_peer_lost() || error.is_timeout() {
        FailureReason::PeerLost
    } else {
        FailureReason::Internal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_a_gpu_is_told_wherever_it_shows() {
        let failed = |text: &str| {
            let source = EvaluateError::Tensor(tch::TchError::Torch(text.to_owned()));
            Error::Evaluate { epoch: 3, source }.reason()
        };
        let ecc = "CUDA error: uncorrectable ECC error encountered";
        assert_eq!(FailureReason::GpuFailed, failed(ecc));
        assert_eq!(FailureReason::Internal, failed("shape mismatch"));
    }
}
