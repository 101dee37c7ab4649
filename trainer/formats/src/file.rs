//! A file of weights, whichever program wrote it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value as Json;

use crate::archive::{Archive, MAX_BYTES};
use crate::error::FormatError;
use crate::modules::{FoundActivation, plain_dict, state_dict, walk};
use crate::pickle::{self, Id, Pickle, Value};
use crate::tensor::{Dtype, NamedTensor};
use crate::views::{self, TensorView};

/// Networks of YOLOv5 that do other things than detect.
const OTHER_TASKS: [&str; 3] = ["SegmentationModel", "ClassificationModel", "Segment"];
/// Networks of YOLOv5 that detect; older versions had only the second.
const DETECTORS: [&str; 2] = ["DetectionModel", "Model"];
/// Where a checkpoint keeps its network: the average first, which is what is evaluated.
const PLACES: [&str; 4] = ["ema", "model", "state_dict", "model_state_dict"];

/// Classes that a network may have, as many as a data set.
const MAX_CLASSES: usize = u16::MAX as usize;
/// Bytes of a class's name.
const MAX_NAME: usize = 1024;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A pickled network of YOLOv5, as its trainer saves it.
    Yolov5,
    /// Names and tensors that PyTorch saved.
    StateDict,
    /// `TorchScript`.
    TorchScript,
    /// Names and tensors in the safetensors format.
    Safetensors,
}

/// What a file says of its network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// The model file of the network, as the Python program keeps it.
    pub yaml: Option<Json>,
    /// Number of classes.
    pub classes: Option<usize>,
    /// Their names, in order.
    pub names: Option<Vec<String>>,
    /// Epochs of training behind it, where it says.
    pub epochs: Option<u32>,
    /// Side of the images it was trained with, where it says.
    pub image_size: Option<u32>,
    /// The activations of its modules, which may be others than those of the model file.
    pub activations: Vec<FoundActivation>,
}

/// A file of weights whose tensors can be read.
pub struct WeightsFile {
    /// What kind of file it is.
    pub container: Container,
    /// What it says of its network; nothing where there are only tensors.
    pub description: Description,
    content: Content,
}

enum Content {
    Archive(Box<Archive<Source>>, Vec<TensorView>),
    Safetensors(Vec<u8>),
}

/// Where the bytes of a file are.
enum Source {
    File(File),
    Memory(Cursor<Vec<u8>>),
}

impl Read for Source {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(into),
            Self::Memory(bytes) => bytes.read(into),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            Self::Memory(bytes) => bytes.seek(to),
        }
    }
}

impl WeightsFile {
    /// Opens a file and reads all of it but its numbers.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let kind = std::fs::metadata(path).map_err(FormatError::Read)?;
        if !kind.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is not a file");
            return Err(FormatError::Read(error));
        }
        let file = File::open(path).map_err(FormatError::Read)?;
        Self::of(Source::File(file))
    }

    /// The same for a file that is in memory.
    pub fn of_bytes(bytes: Vec<u8>) -> Result<Self, FormatError> {
        Self::of(Source::Memory(Cursor::new(bytes)))
    }

    fn of(mut file: Source) -> Result<Self, FormatError> {
        let size = file.seek(SeekFrom::End(0)).map_err(FormatError::Read)?;
        if size > MAX_BYTES {
            return Err(FormatError::TooLarge { size });
        }
        file.rewind().map_err(FormatError::Read)?;
        let mut start = Vec::new();
        file.by_ref()
            .take(9)
            .read_to_end(&mut start)
            .map_err(FormatError::Read)?;
        file.rewind().map_err(FormatError::Read)?;
        if start.starts_with(b"PK\x03\x04") {
            return Self::of_archive(file);
        }
        // A safetensors file begins with the length of its header, which begins with a brace.
        if start.len() < 9 || start[8] != b'{' {
            return Err(FormatError::Unknown);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(FormatError::Read)?;
        SafeTensors::deserialize(&bytes).map_err(FormatError::Safetensors)?;
        Ok(Self {
            container: Container::Safetensors,
            description: Description::default(),
            content: Content::Safetensors(bytes),
        })
    }

    fn of_archive(file: Source) -> Result<Self, FormatError> {
        let mut archive = Archive::open(file)?;
        let contents = read_archive(&mut archive)?;
        Ok(Self {
            container: contents.container,
            description: contents.description,
            content: Content::Archive(Box::new(archive), contents.views),
        })
    }

    /// The text that a safetensors file has under `key`.
    pub fn note(&self, key: &str) -> Option<String> {
        match &self.content {
            Content::Archive(..) => None,
            Content::Safetensors(bytes) => {
                let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
                header.metadata().as_ref()?.get(key).cloned()
            }
        }
    }

    /// Reads the tensors whose names `wanted` accepts.
    pub fn load(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Vec<NamedTensor>, FormatError> {
        match &mut self.content {
            Content::Archive(archive, views) => {
                let views: Vec<TensorView> = views
                    .iter()
                    .filter(|view| wanted(&view.name))
                    .cloned()
                    .collect();
                views::load(archive, &views)
            }
            Content::Safetensors(bytes) => of_safetensors(bytes, wanted),
        }
    }
}

fn of_safetensors(
    bytes: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<NamedTensor>, FormatError> {
    let file = SafeTensors::deserialize(bytes).map_err(FormatError::Safetensors)?;
    let each = file
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, view)| {
            let dtype = Dtype::of_safetensors(view.dtype()).ok_or_else(|| FormatError::Tensor {
                name: name.to_owned(),
                problem: format!(
                    "has numbers of kind {:?}: save it as F32 or F16",
                    view.dtype()
                ),
            })?;
            Ok(NamedTensor {
                name: name.to_owned(),
                dtype,
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            })
        });
    each.collect()
}

struct Contents {
    container: Container,
    description: Description,
    views: Vec<TensorView>,
}

fn read_archive(archive: &mut Archive<Source>) -> Result<Contents, FormatError> {
    let bytes = archive.pickle("data.pkl")?;
    let (pickle, _) = pickle::parse(&bytes)?;
    let root = pickle.root();
    if archive.has_code() {
        return Ok(Contents {
            container: Container::TorchScript,
            description: Description::default(),
            views: state_dict(&pickle, root)?,
        });
    }
    let network = network(&pickle, root);
    if let Some((_, class)) = pickle.class(network) {
        if OTHER_TASKS.contains(&class) {
            return Err(FormatError::OtherTask(class.to_owned()));
        }
        if !DETECTORS.contains(&class) {
            return Err(FormatError::NoNetwork(format!("a {class}")));
        }
        let (views, activations) = walk(&pickle, network)?;
        return Ok(Contents {
            container: Container::Yolov5,
            description: Description {
                activations,
                ..describe(&pickle, root, network)
            },
            views,
        });
    }
    let views = plain_dict(&pickle, network)?;
    if views.is_empty() {
        return Err(FormatError::NoNetwork(what(&pickle, network)));
    }
    Ok(Contents {
        container: Container::StateDict,
        description: Description::default(),
        views,
    })
}

/// The network of a checkpoint, or the value itself if it is no checkpoint.
fn network(pickle: &Pickle, root: Id) -> Id {
    if pickle.class(root).is_some() {
        return root;
    }
    let places = PLACES.iter().filter_map(|place| pickle.get(root, place));
    let mut whole = places.filter(|id| pickle.pairs(*id).is_some());
    whole.next().unwrap_or(root)
}

fn what(pickle: &Pickle, id: Id) -> String {
    match pickle.value(id) {
        Value::Dict(pairs) => {
            let keys = pairs
                .iter()
                .take(8)
                .filter_map(|(key, _)| pickle.text(*key));
            format!("a dictionary of {}", keys.collect::<Vec<_>>().join(", "))
        }
        _ => "a single value".to_owned(),
    }
}

fn describe(pickle: &Pickle, root: Id, network: Id) -> Description {
    let attribute = |name| pickle.get(network, name);
    let natural = |id: Id| pickle.int(id).and_then(|number| u32::try_from(number).ok());
    let yaml = attribute("yaml").and_then(|yaml| pickle.to_json(yaml));
    let names = attribute("names").and_then(|names| class_names(pickle, names));
    let classes = |number: u64| {
        let number = usize::try_from(number).ok();
        number.filter(|number| (1..=MAX_CLASSES).contains(number))
    };
    let written = yaml.as_ref().and_then(|yaml| classes(yaml["nc"].as_u64()?));
    let own = attribute("nc").and_then(|nc| classes(natural(nc)?.into()));
    let option = |name| {
        let options = pickle.get(root, "opt")?;
        natural(pickle.get(options, name)?)
    };
    Description {
        classes: own.or(written).or(names.as_ref().map(Vec::len)),
        names,
        yaml,
        // The epoch that was the last, from 0; -1 once the training is over.
        epochs: pickle
            .get(root, "epoch")
            .and_then(natural)
            .map(|epoch| epoch.saturating_add(1)),
        image_size: option("imgsz"),
        activations: Vec::new(),
    }
}

/// A list of names, or a dictionary from numbers to names.
fn class_names(pickle: &Pickle, id: Id) -> Option<Vec<String>> {
    let name = |id: Id| {
        let name = pickle.text(id).filter(|name| name.len() <= MAX_NAME);
        name.map(str::to_owned)
    };
    if let Some(list) = pickle.sequence(id) {
        let list = Some(list).filter(|list| list.len() <= MAX_CLASSES)?;
        return list.iter().map(|id| name(*id)).collect();
    }
    let pairs = pickle
        .pairs(id)
        .filter(|pairs| pairs.len() <= MAX_CLASSES)?;
    let numbered = pairs
        .iter()
        .map(|(key, value)| Some((pickle.int(*key)?, name(*value)?)));
    let numbered: BTreeMap<i64, String> = numbered.collect::<Option<_>>()?;
    let in_order = (0..)
        .zip(numbered.keys())
        .all(|(number, key)| number == *key);
    in_order.then(|| numbered.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_says_that_there_are_more_classes_than_any_may_have() {
        let described = |number: i32| {
            let bytes = [b"}X\x02\x00\x00\x00ncJ", &number.to_le_bytes()[..], b"s."].concat();
            let (pickle, _) = pickle::parse(&bytes).expect("a pickle");
            describe(&pickle, pickle.root(), pickle.root()).classes
        };
        assert_eq!(Some(80), described(80));
        assert_eq!([None, None], [0, i32::MAX].map(described));
    }
}
