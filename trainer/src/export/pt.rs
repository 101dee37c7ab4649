//! `.pt`: the network as objects of YOLOv5's classes, as its own trainer pickles it.
//!
//! Which attributes these objects have was found by looking at such objects at run time. The classes are named
//! `models.…`, as in a clone of YOLOv5's repository; its package knows these names too.

mod modules;

use contract::spec::Activation;
use serde_json::Value;
use tch::Tensor;
use trainer_formats::pickle::{Py, write};
use trainer_formats::{ArchiveEntry, Dtype, write_archive};
use trainer_model::architecture::{Form, Slot, builtin};
use trainer_model::network::Network;

use super::{ExportError, halve};
use crate::checkpoint::NamedTensors;
use crate::weights::WeightsInfo;
use modules::{module, object};

/// The tensors of a file, in the order in which the pickle names them.
pub struct Tensors {
    state: NamedTensors,
    storages: Vec<Vec<u8>>,
}

impl Tensors {
    /// The tensor of the state called `name`.
    fn of_state(&mut self, name: &str, parameter: bool) -> Result<Py, ExportError> {
        let tensor = self.state.get(name).map(Tensor::shallow_clone);
        let tensor = tensor.ok_or_else(|| trainer_model::Error::StateMissing {
            name: name.to_owned(),
        })?;
        let dtype = match tensor.kind() {
            tch::Kind::Int64 => Dtype::I64,
            tch::Kind::Half => Dtype::F16,
            _ => Dtype::F32,
        };
        let mut bytes = vec![0; tensor.numel() * dtype.size()];
        tensor
            .f_copy_data_u8(&mut bytes, tensor.numel())
            .map_err(|source| trainer_model::Error::Copy {
                name: name.to_owned(),
                source,
            })?;
        Ok(self.add(bytes, dtype, tensor.size(), parameter))
    }

    /// A tensor of other numbers.
    fn of_numbers(&mut self, numbers: &[f32]) -> Py {
        let bytes = numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        self.add(bytes, Dtype::F32, vec![numbers.len() as i64], false)
    }

    fn add(&mut self, bytes: Vec<u8>, dtype: Dtype, shape: Vec<i64>, parameter: bool) -> Py {
        let key = self.storages.len().to_string();
        self.storages.push(bytes);
        Py::Tensor {
            key,
            dtype,
            shape,
            parameter,
        }
    }
}

/// The bytes of a checkpoint that holds `network`, in single or half precision, as one whose training is over.
pub fn bytes(network: &Network, info: &WeightsInfo, half: bool) -> Result<Vec<u8>, ExportError> {
    let mut state = network.state().export()?;
    if half {
        halve(&mut state)?;
    }
    let mut tensors = Tensors {
        state: state.into_iter().collect(),
        storages: Vec::new(),
    };
    let model = detection_model(network, info, &mut tensors)?;
    let mut checkpoint = vec![("epoch".into(), Py::Int(-1)), ("model".into(), model)];
    let empty = [
        "best_fitness",
        "ema",
        "updates",
        "optimizer",
        "opt",
        "git",
        "date",
    ];
    checkpoint.extend(empty.map(|key| (key.into(), Py::None)));
    let pickle = write(&Py::Dict(checkpoint));
    let fixed: [(&str, &[u8]); 3] = [
        ("data.pkl", &pickle),
        ("byteorder", b"little"),
        ("version", b"3\n"),
    ];
    let mut entries: Vec<ArchiveEntry<'_>> = fixed
        .into_iter()
        .map(|(name, bytes)| ArchiveEntry {
            name: name.to_owned(),
            bytes,
        })
        .collect();
    entries.extend(
        tensors
            .storages
            .iter()
            .enumerate()
            .map(|(key, bytes)| ArchiveEntry {
                name: format!("data/{key}"),
                bytes,
            }),
    );
    Ok(write_archive("archive", &entries)?)
}

fn detection_model(
    network: &Network,
    info: &WeightsInfo,
    tensors: &mut Tensors,
) -> Result<Py, ExportError> {
    let architecture = &network.options().architecture;
    let mut layers = Vec::new();
    // Layers whose output is taken by others than the next one.
    let mut save = Vec::new();
    for (index, layer) in architecture.layers().iter().enumerate() {
        let made = module(tensors, architecture, index)?;
        let from: Value = serde_json::from_str(&layer.written_from)
            .map_err(|error| ExportError::ModelFile(error.into()))?;
        let written = from
            .as_array()
            .cloned()
            .unwrap_or_else(|| vec![from.clone()]);
        let taken = layer.from.iter().zip(&written);
        save.extend(taken.filter_map(|(source, written)| source.filter(|_| *written != -1)));
        let slots = architecture.slots_of(index, Form::Trainable);
        let trained = slots.iter().filter(|slot| slot.role.is_parameter());
        let parameters: u64 = trained.map(Slot::len).sum();
        layers.push((
            index.to_string(),
            made.with([
                ("i", Py::Int(index as i64)),
                ("f", of_json(&from)),
                ("np", Py::Int(parameters as i64)),
            ]),
        ));
    }
    save.sort_unstable();
    save.dedup();
    let strides: Vec<f32> = architecture
        .levels()
        .iter()
        .map(|level| level.stride as f32)
        .collect();
    let names = (0..).zip(&info.names);
    let names = names.map(|(class, name)| (Py::Int(class), name.as_str().into()));
    let root = object("models.yolo", "DetectionModel").with([
        ("yaml", of_json(&model_file(info)?)),
        (
            "save",
            Py::List(
                save.into_iter()
                    .map(|index| Py::Int(index as i64))
                    .collect(),
            ),
        ),
        ("names", Py::Dict(names.collect())),
        ("nc", Py::Int(info.nc as i64)),
        ("inplace", Py::Bool(true)),
        ("stride", tensors.of_numbers(&strides)),
    ]);
    let layers = layers
        .into_iter()
        .map(|(name, layer)| (name, layer.finish()));
    let sequential = object("torch.nn.modules.container", "Sequential").parts(layers.collect());
    Ok(root
        .parts(vec![("model".to_owned(), sequential.finish())])
        .finish())
}

/// The model file as Python keeps it.
fn model_file(info: &WeightsInfo) -> Result<Value, ExportError> {
    let model = &info.model;
    let text = model
        .architecture
        .clone()
        .unwrap_or_else(|| builtin::document(model.family_size().unwrap_or_default()));
    let mut file: Value =
        serde_saphyr::from_str(&text).map_err(|error| ExportError::ModelFile(Box::new(error)))?;
    file["nc"] = info.nc.into();
    file["ch"] = 3.into();
    if let Some(anchors) = &model.anchors {
        file["anchors"] = serde_json::json!(anchors);
    }
    if let Some(activation) = model.activation {
        let name = match activation {
            Activation::LeakyReLU => "nn.LeakyReLU(0.1)".to_owned(),
            other => format!("nn.{other:?}()"),
        };
        file["activation"] = name.into();
    }
    Ok(file)
}

fn of_json(value: &Value) -> Py {
    match value {
        Value::Null => Py::None,
        Value::Bool(value) => Py::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Py::Int(whole),
            None => Py::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(list) => Py::List(list.iter().map(of_json).collect()),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| (key.as_str().into(), of_json(value)));
            Py::Dict(pairs.collect())
        }
    }
}
