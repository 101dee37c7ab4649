//! Files of trained weights, and everything one needs to use them.

mod foreign;

use std::io;
use std::path::{Path, PathBuf};

use contract::spec::Model;
use serde::{Deserialize, Serialize};
use trainer_data::bounded;
use trainer_formats::{FormatError, MAX_BYTES, WeightsFile};
use trainer_model::architecture::{Architecture, ArchitectureError};
use trainer_model::network::{Network, NetworkOptions};
use trainer_model::state::Role;

use crate::checkpoint::{self, NamedTensors, RunState, TensorFileError};

pub use foreign::other_anchors;

/// The note in a weights file.
const NOTE: &str = "yolo-operator";
/// The version of [`WeightsInfo`] this code writes.
const FORMAT_VERSION: u32 = 2;
/// The version whose note knew only sizes, under the key `size`.
const SIZES_ONLY: u64 = 1;

/// What a network is, besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightsInfo {
    /// Version of this note.
    pub format_version: u32,
    /// Which network: all that is needed to build it again.
    pub model: Model,
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
            model: Model {
                weights: None,
                ..state.spec.model.clone()
            },
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
        "cannot read the weights {}: name a .safetensors file of this program, a .pt file of YOLOv5, a checkpoint folder or a run's folder", path.display()
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
        "{} does not say which network it is for: it holds only tensors; they can begin a training (model.weights with model.size)", path.display()
    )]
    NoNote {
        /// The file.
        path: PathBuf,
    },
    /// Another program's file cannot be read.
    #[error("cannot use the weights {}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: FormatError,
    },
    /// A tensor of another program's file cannot be made.
    #[error("the tensor {name} of {} cannot be made", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What libtorch said.
        #[source]
        source: tch::TchError,
    },
    /// Folded normalisations cannot be taken apart.
    #[error("the normalisations of {} cannot be taken apart", path.display())]
    Unfold {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: trainer_model::Error,
    },
    /// What another program's file says of its network is not enough.
    #[error("cannot use the weights {}: the file {problem}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It was written by a later version of this program.
    #[error(
        "the note of {} has the format {found}, this program reads up to {FORMAT_VERSION}: use a newer program", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format of its note.
        found: u32,
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
    /// It describes a network that cannot be built.
    #[error("cannot build the network that {} describes", path.display())]
    Architecture {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ArchitectureError,
    },
    /// Images of another size were asked for than the network takes.
    #[error(
        "--image-size is {size}: choose a multiple of {multiple}, the network's largest stride"
    )]
    ImageSize {
        /// The size.
        size: u32,
        /// What it must be a multiple of.
        multiple: u32,
    },
    /// Its tensors are not those of the network it names.
    #[error("the tensors of {} are not those of a {name} with {nc} classes", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// What the network is called.
        name: &'static str,
        /// Its number of classes.
        nc: usize,
        /// What does not fit.
        #[source]
        source: trainer_model::Error,
    },
}

/// A file of weights, read.
pub struct Opened {
    /// The file that a path stood for.
    pub file: PathBuf,
    /// Its tensors by YOLOv5's names.
    pub tensors: NamedTensors,
    /// What it says of its network, or why that cannot be used; a training may need only the tensors.
    pub info: Result<WeightsInfo, WeightsError>,
}

impl Opened {
    fn described(self) -> Result<(PathBuf, NamedTensors, WeightsInfo), WeightsError> {
        Ok((self.file, self.tensors, self.info?))
    }
}

/// What `path` says of its network: a weights file, a checkpoint (its averaged weights are meant), or a run's folder
/// (its best weights are).
pub fn describe(path: &Path) -> Result<WeightsInfo, WeightsError> {
    let (_, _, info) = open(path)?.described()?;
    Ok(info)
}

/// Builds the network that `path` describes, see [`describe`].
pub fn load(path: &Path, device: tch::Device) -> Result<(Network, WeightsInfo), WeightsError> {
    let (file, mut tensors, info) = open(path)?.described()?;
    let architecture = Architecture::of(&info.model, Some(info.nc)).map_err(|source| {
        WeightsError::Architecture {
            path: file.clone(),
            source,
        }
    })?;
    let mut options = NetworkOptions::of(architecture);
    options.device = device;
    let failed = |source| WeightsError::Network {
        path: file.clone(),
        name: info.model.name(),
        nc: info.nc,
        source,
    };
    let mut network = Network::blank(&options).map_err(failed)?;
    // Anchors of other programs may be rounded; the network's own were read from them.
    for entry in network.state().entries() {
        if entry.role == Role::Anchors && tensors.contains_key(&entry.name) {
            tensors.insert(entry.name.clone(), entry.tensor.shallow_clone());
        }
    }
    network.state_mut().import(&tensors).map_err(failed)?;
    Ok((network, info))
}

/// Makes sure that images of `size` pixels a side fit the network.
pub fn check_image_size(size: u32, architecture: &Architecture) -> Result<(), WeightsError> {
    let multiple = architecture.multiple();
    if size.is_multiple_of(multiple) {
        Ok(())
    } else {
        Err(WeightsError::ImageSize { size, multiple })
    }
}

/// Reads the file behind `path`, see [`describe`]; it may also be one that holds only tensors.
pub fn open(path: &Path) -> Result<Opened, WeightsError> {
    if path.join(checkpoint::STATE).is_file() {
        let file = path.join(checkpoint::EMA);
        let (tensors, info) = from_checkpoint(path, &file)?;
        return Ok(Opened {
            file,
            tensors,
            info: Ok(info),
        });
    }
    let best = path.join("weights/best.safetensors");
    let file = if best.is_file() {
        best
    } else {
        path.to_owned()
    };
    let (tensors, info) = from_file(&file)?;
    Ok(Opened {
        file,
        tensors,
        info,
    })
}

fn from_file(
    file: &Path,
) -> Result<(NamedTensors, Result<WeightsInfo, WeightsError>), WeightsError> {
    let foreign = WeightsFile::open(file).map_err(|source| match source {
        FormatError::Read(source) => WeightsError::Read {
            path: file.to_owned(),
            source,
        },
        source => WeightsError::Foreign {
            path: file.to_owned(),
            source,
        },
    })?;
    let Some(note) = foreign.note(NOTE) else {
        return foreign::read(file, foreign);
    };
    let info = read_note(&note).map_err(|source| WeightsError::Note {
        path: file.to_owned(),
        source,
    })?;
    if info.format_version > FORMAT_VERSION {
        return Err(WeightsError::Newer {
            path: file.to_owned(),
            found: info.format_version,
        });
    }
    Ok((tensors(file)?, Ok(info)))
}

fn read_note(note: &str) -> Result<WeightsInfo, serde_json::Error> {
    let mut note: serde_json::Value = serde_json::from_str(note)?;
    if note["formatVersion"] == SIZES_ONLY {
        note["model"] = serde_json::json!({"size": note["size"]});
    }
    serde_json::from_value(note)
}

fn from_checkpoint(
    folder: &Path,
    file: &Path,
) -> Result<(NamedTensors, WeightsInfo), WeightsError> {
    let path = folder.join(checkpoint::STATE);
    let state: RunState = serde_json::from_slice(&read(&path)?)
        .map_err(|source| WeightsError::Note { path, source })?;
    Ok((tensors(file)?, WeightsInfo::of(&state)))
}

fn tensors(file: &Path) -> Result<NamedTensors, WeightsError> {
    let decoded = checkpoint::decode(&read(file)?, NOTE);
    decoded
        .map(|(tensors, _)| tensors)
        .map_err(|source| WeightsError::Tensors {
            path: file.to_owned(),
            source,
        })
}

fn read(path: &Path) -> Result<Vec<u8>, WeightsError> {
    bounded::read(path, MAX_BYTES).map_err(|source| WeightsError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use contract::spec::ModelSize;

    use super::*;

    /// What the Python program predicts with the same file in float64, made by
    /// `tests/parity/formats_testdata.py`.
    #[test]
    fn a_checkpoint_of_the_python_program_predicts_the_same() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata");
        let (network, info) =
            load(&Path::new(folder).join("yolov5.pt"), tch::Device::Cpu).expect("loaded");
        assert_eq!(["ant", "bee", "cat"], info.names[..]);
        let pixels: Vec<f32> = (0..3 * 64 * 64)
            .map(|at| 0.5 + 0.5 * (0.01 * f64::from(at)).sin() as f32)
            .collect();
        let image = tch::Tensor::from_slice(&pixels).view([1, 3, 64, 64]);
        let decoded = network.evaluate(&image).expect("evaluated").decoded;
        let text = std::fs::read_to_string(Path::new(folder).join("golden.json"));
        let golden: serde_json::Value =
            serde_json::from_str(&text.expect("readable")).expect("JSON");
        let near = |expected: &serde_json::Value, found: f64| {
            let expected = expected.as_f64().expect("a number");
            let difference = (found - expected).abs();
            assert!(
                difference < 1e-4 * expected,
                "{found} instead of {expected}"
            );
        };
        near(
            &golden["sum"],
            decoded.sum(tch::Kind::Double).double_value(&[]),
        );
        let last = decoded.size()[1] - 1;
        for at in 0..8 {
            near(
                &golden["first"][at as usize],
                decoded.double_value(&[0, 0, at]),
            );
            near(
                &golden["last"][at as usize],
                decoded.double_value(&[0, last, at]),
            );
        }
    }

    #[test]
    fn notes_of_earlier_versions_are_understood() {
        let note = r#"{"formatVersion":1,"size":"yolov5m","nc":1,"names":["a"],"imageSize":320,"epoch":3}"#;
        let info = read_note(note).expect("version 1");
        assert_eq!(Some(ModelSize::M), info.model.family_size());
        assert_eq!((1, 320, 3), (info.nc, info.image_size, info.epoch));
    }
}
