//! Files of trained weights, and everything one needs to use them.

use std::io;
use std::path::{Path, PathBuf};

use contract::spec::ModelSize;
use serde::{Deserialize, Serialize};
use trainer_model::network::{Network, NetworkOptions};

use crate::checkpoint::{self, NamedTensors, RunState, TensorFileError};

/// The note in a weights file.
const NOTE: &str = "yolo-operator";
/// The version of [`WeightsInfo`] this code writes.
const FORMAT_VERSION: u32 = 1;

/// What a network is, besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightsInfo {
    /// Version of this note.
    pub format_version: u32,
    /// Which member of the family.
    pub size: ModelSize,
    /// Number of classes.
    pub nc: usize,
    /// Their names.
    pub names: Vec<String>,
    /// Side of the images it was trained with, in pixels.
    pub image_size: u32,
    /// Epochs of training behind it.
    pub epoch: u32,
}

impl WeightsInfo {
    /// What is known of the network of this run.
    pub fn of(state: &RunState) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            size: state.spec.model.size,
            nc: state.names.len(),
            names: state.names.clone(),
            image_size: state.spec.training.image_size,
            epoch: state.epoch,
        }
    }

    /// Key and text for the file.
    pub fn note(&self) -> (&'static str, String) {
        let text = serde_json::to_string(self).expect("plain fields always become JSON");
        (NOTE, text)
    }
}

/// Weights that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error(
        "cannot read the weights {}: name a .safetensors file of this program, a checkpoint folder or a run's folder", path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its tensors cannot be read.
    #[error("cannot use the weights {}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TensorFileError,
    },
    /// It does not say which network it is for.
    #[error(
        "{} does not say which network it is for: it was not written by this program", path.display()
    )]
    NoNote {
        /// The file.
        path: PathBuf,
    },
    /// What it says cannot be understood.
    #[error("cannot understand what {} says of its network", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Its tensors are not those of the network it names.
    #[error("the tensors of {} are not those of a yolov5{} with {nc} classes", path.display(), size.as_str())]
    Network {
        /// The file.
        path: PathBuf,
        /// The network's size.
        size: ModelSize,
        /// Its number of classes.
        nc: usize,
        /// What does not fit.
        #[source]
        source: trainer_model::Error,
    },
}

/// Builds the network that `path` describes: a weights file, a checkpoint (its averaged weights are
/// taken), or a run's folder (its best weights are).
pub fn load(path: &Path, device: tch::Device) -> Result<(Network, WeightsInfo), WeightsError> {
    let best = path.join("weights/best.safetensors");
    let (file, (tensors, info)) = if path.join(checkpoint::STATE).is_file() {
        let file = path.join(checkpoint::EMA);
        let read = from_checkpoint(path, &file)?;
        (file, read)
    } else {
        let file = if best.is_file() {
            best
        } else {
            path.to_owned()
        };
        let read = from_file(&file)?;
        (file, read)
    };
    let mut options = NetworkOptions::new(info.size, info.nc);
    options.device = device;
    let failed = |source| WeightsError::Network {
        path: file.clone(),
        size: info.size,
        nc: info.nc,
        source,
    };
    let mut network = Network::blank(&options).map_err(failed)?;
    network.state_mut().import(&tensors).map_err(failed)?;
    Ok((network, info))
}

fn from_file(file: &Path) -> Result<(NamedTensors, WeightsInfo), WeightsError> {
    let (tensors, note) = tensors(file)?;
    let note = note.ok_or_else(|| WeightsError::NoNote {
        path: file.to_owned(),
    })?;
    let info = serde_json::from_str(&note).map_err(|source| WeightsError::Note {
        path: file.to_owned(),
        source,
    })?;
    Ok((tensors, info))
}

fn from_checkpoint(
    folder: &Path,
    file: &Path,
) -> Result<(NamedTensors, WeightsInfo), WeightsError> {
    let path = folder.join(checkpoint::STATE);
    let state: RunState = serde_json::from_slice(&read(&path)?)
        .map_err(|source| WeightsError::Note { path, source })?;
    Ok((tensors(file)?.0, WeightsInfo::of(&state)))
}

fn tensors(file: &Path) -> Result<(NamedTensors, Option<String>), WeightsError> {
    checkpoint::decode(&read(file)?, NOTE).map_err(|source| WeightsError::Tensors {
        path: file.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    std::fs::read(path).map_err(|source| WeightsError::Read {
        path: path.to_owned(),
        source,
    })
}
