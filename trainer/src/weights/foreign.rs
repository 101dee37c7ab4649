//! Weights of other programs: what they say of their network, in our words.

use std::path::Path;
use std::sync::Arc;

use contract::spec::Model;
use serde_json::Value;
use tch::{Kind, Tensor};
use trainer_formats::{Container, Description, Dtype, FoundActivation, NamedTensor, WeightsFile};
use trainer_model::architecture::{Activation, Architecture, ArchitectureError};
use trainer_model::state::unfold;

use super::{FORMAT_VERSION, WeightsError, WeightsInfo};
use crate::checkpoint::NamedTensors;

/// Side of the training images where a file does not say.
const USUAL_IMAGE: u32 = 640;
/// What sides are multiples of at least.
const SMALLEST_STEP: u32 = 32;
/// What a model file may have; YOLOv5 keeps more in it while it trains.
const KEYS: [&str; 9] = [
    "nc",
    "depth_multiple",
    "width_multiple",
    "anchors",
    "activation",
    "ch",
    "inplace",
    "backbone",
    "head",
];

/// The tensors of a file under YOLOv5's names, and its network or why that is not known.
pub fn read(
    path: &Path,
    mut file: WeightsFile,
) -> Result<(NamedTensors, Result<WeightsInfo, WeightsError>), WeightsError> {
    // Old versions keep anchors twice; the second is made from the first.
    let loaded = file
        .load(|name| !name.ends_with(".anchor_grid"))
        .map_err(|source| WeightsError::Foreign {
            path: path.to_owned(),
            source,
        })?;
    let mut tensors = NamedTensors::new();
    for tensor in loaded {
        let name = tensor.name.clone();
        let made = to_tch(&tensor).map_err(|source| WeightsError::Tensor {
            path: path.to_owned(),
            name: name.clone(),
            source,
        })?;
        tensors.insert(name, made);
    }
    unfold(&mut tensors).map_err(|source| WeightsError::Unfold {
        path: path.to_owned(),
        source,
    })?;
    let path = path.to_owned();
    let info = match file.container {
        Container::Yolov5 => info(&file.description, &tensors)
            .map_err(|problem| WeightsError::Model { path, problem }),
        _ => Err(WeightsError::NoNote { path }),
    };
    Ok((tensors, info))
}

fn to_tch(tensor: &NamedTensor) -> Result<Tensor, tch::TchError> {
    let kind = match tensor.dtype {
        Dtype::F16 => Kind::Half,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
    };
    let shape: Vec<i64> = tensor.shape.iter().map(|side| *side as i64).collect();
    Tensor::f_from_data_size(&tensor.bytes, &shape, kind)
}

/// What a pickled network says of itself. An error says what is missing.
fn info(description: &Description, tensors: &NamedTensors) -> Result<WeightsInfo, String> {
    let nc = description
        .classes
        .ok_or("does not say how many classes it has")?;
    let yaml = description
        .yaml
        .as_ref()
        .ok_or("has no model file in it (`yaml`)")?;
    let (model, architecture) = activated(model(yaml, tensors)?, &description.activations)?;
    let names = description.names.clone();
    let names = names.filter(|names| names.len() == nc);
    Ok(WeightsInfo {
        format_version: FORMAT_VERSION,
        nc,
        names: names.unwrap_or_else(|| (0..nc).map(|class| class.to_string()).collect()),
        image_size: usable(
            description.image_size.unwrap_or(USUAL_IMAGE),
            architecture.multiple(),
        ),
        epoch: description.epochs.unwrap_or(0),
        model,
    })
}

/// The size that `YOLOv5` trained with when asked for `size`, which is what a file holds: rounded up to a multiple of the
/// largest stride, which counts as 32 or more, and at least twice that.
fn usable(size: u32, multiple: u32) -> u32 {
    let step = SMALLEST_STEP.next_multiple_of(multiple.max(1));
    let rounded = size.checked_next_multiple_of(step).unwrap_or(size);
    rounded.max(2 * step)
}

fn model(yaml: &Value, tensors: &NamedTensors) -> Result<Model, String> {
    let mut keys = yaml
        .as_object()
        .ok_or("has a model file that is no dictionary")?
        .clone();
    keys.retain(|key, _| KEYS.contains(&key.as_str()));
    // JSON is YAML.
    let text = Value::Object(keys).to_string();
    let mut model = Model::default();
    match Architecture::family_of(&text) {
        Some(size) => model.size = Some(size),
        None => model.architecture = Some(text),
    }
    // Also those that were made for a data set: the model file has only their number.
    if let Some(anchors) = other_anchors(&model, tensors)? {
        model.anchors = Some(anchors);
    }
    Ok(model)
}

/// `model` with the activation that its modules have, where they were given another one after they were made from the
/// model file.
fn activated(
    mut model: Model,
    found: &[FoundActivation],
) -> Result<(Model, Arc<Architecture>), String> {
    let build = |model: &Model| Architecture::of(model, None).map_err(|error| unusable(&error));
    let architecture = build(&model)?;
    let Some(other) = found.iter().find(|found| !leads_to(&architecture, found)) else {
        return Ok((model, architecture));
    };
    let named = Activation::named(&other.class, other.number);
    let chosen: Option<contract::spec::Activation> =
        serde_json::from_value(Value::from(other.class.as_str())).ok();
    model.activation = chosen.filter(|chosen| named == Ok(Activation::from(*chosen)));
    if model.activation.is_some() {
        let architecture = build(&model)?;
        if found.iter().all(|found| leads_to(&architecture, found)) {
            return Ok((model, architecture));
        }
    }
    let number = other.number.map(|number| format!("({number})"));
    Err(format!(
        "has the activation {}{} in {}, where its model file leads to another one: choose weights that were trained with a model file that names theirs (activation)",
        other.class,
        number.unwrap_or_default(),
        other.module
    ))
}

/// Whether the layer of `architecture` in which an activation was found has it.
fn leads_to(architecture: &Architecture, found: &FoundActivation) -> bool {
    let layer = found.module.strip_prefix("model.");
    let index = layer.and_then(|layer| layer.split('.').next()?.parse::<usize>().ok());
    // What is outside of the layers is not computed.
    let Some(layer) = index.and_then(|index| architecture.layers().get(index)) else {
        return true;
    };
    let named = Activation::named(&found.class, found.number);
    named.is_ok_and(|named| layer.module.activations().contains(&named))
}

fn unusable(error: &ArchitectureError) -> String {
    format!(
        "has a network that cannot be built: {}",
        crate::console::chain(error)
    )
}

/// The anchors of `tensors` in pixels, if they are not those of the model.
pub fn other_anchors(
    model: &Model,
    tensors: &NamedTensors,
) -> Result<Option<Vec<Vec<f64>>>, String> {
    let architecture = Architecture::of(model, None).map_err(|error| unusable(&error))?;
    let levels = architecture.levels();
    let name = format!("model.{}.anchors", architecture.layers().len() - 1);
    let shape = [
        levels.len() as i64,
        architecture.anchors_per_level() as i64,
        2,
    ];
    let Some(cells) = tensors.get(&name).filter(|cells| cells.size() == shape) else {
        return Ok(None);
    };
    let read = |cells: &Tensor| {
        let flat = cells.f_reshape(-1)?.f_to_kind(Kind::Double)?;
        Vec::<f64>::try_from(flat)
    };
    let cells = read(cells).map_err(|error| format!("has anchors that cannot be read: {error}"))?;
    let own = architecture.anchors_in_cells();
    // The file may hold them in half precision.
    let same =
        |(cells, own): (&f64, &f32)| (cells - f64::from(*own)).abs() <= 1e-3 * f64::from(*own);
    if cells.iter().zip(&own).all(same) {
        return Ok(None);
    }
    let sides = cells.len() / levels.len();
    let in_pixels = cells.chunks_exact(sides).zip(levels).map(|(level, known)| {
        level
            .iter()
            .map(|side| side * f64::from(known.stride))
            .collect()
    });
    Ok(Some(in_pixels.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_size(image_size: Option<u32>) -> u32 {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata/yolov5.pt");
        let file = WeightsFile::open(Path::new(file)).expect("a file of weights");
        let description = Description {
            image_size,
            ..file.description
        };
        let info = info(&description, &NamedTensors::new());
        info.expect("described").image_size
    }

    #[test]
    fn activations_are_those_of_the_modules() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata/yolov5.pt");
        let file = WeightsFile::open(Path::new(file)).expect("a file of weights");
        let changed = |changes: &dyn Fn(usize, &mut FoundActivation)| {
            let mut description = file.description.clone();
            for (number, found) in description.activations.iter_mut().enumerate() {
                changes(number, found);
            }
            info(&description, &NamedTensors::new()).map(|info| info.model.activation)
        };
        assert!(!file.description.activations.is_empty());
        assert_eq!(Ok(None), changed(&|_, _| ()));
        let usual = |found: &FoundActivation| found.class == "SiLU";
        let hardswish = changed(&|_, found| {
            if usual(found) {
                found.class = "Hardswish".to_owned();
            }
        });
        let expected = contract::spec::Activation::Hardswish;
        assert_eq!(Ok(Some(expected)), hardswish);
        for (class, slope, told) in [
            (
                "Hardswish",
                None,
                "has the activation Hardswish in model.0,",
            ),
            ("LeakyReLU", Some(0.2), "LeakyReLU(0.2) in model.0,"),
            ("Swish", None, "Swish in model.0,"),
        ] {
            let refused = changed(&|number, found| {
                if number == 0 {
                    found.class = class.to_owned();
                    found.number = slope;
                }
            });
            let problem = refused.expect_err("refused");
            assert!(problem.contains(told), "{problem}");
        }
    }

    #[test]
    fn anchors_of_which_the_model_file_has_the_number_are_those_of_the_file() {
        let yaml = serde_json::json!({
            "nc": 1,
            "anchors": 2,
            "backbone": [[-1, 1, "Conv", [8, 3, 2]]],
            "head": [[[0], 1, "Detect", ["nc", "anchors"]]],
        });
        let cells = Tensor::from_slice(&[3.0f32, 4.0, 5.0, 7.5]).view([1, 2, 2]);
        let mut tensors = NamedTensors::new();
        tensors.insert("model.1.anchors".to_owned(), cells);
        let model = model(&yaml, &tensors).expect("a network");
        assert_eq!(Some(vec![vec![6.0, 8.0, 10.0, 15.0]]), model.anchors);
        let architecture = Architecture::of(&model, None).expect("valid");
        assert!(!architecture.wants_anchors());
    }

    #[test]
    fn the_image_size_is_the_one_that_was_trained_with() {
        let sizes = [
            (None, 640),
            (Some(640), 640),
            (Some(650), 672),
            (Some(33), 64),
        ];
        for (asked, used) in sizes {
            assert_eq!(used, read_size(asked), "{asked:?}");
        }
        // A network with a stride of 64, and one with small ones alone.
        assert_eq!((704, 128), (usable(650, 64), usable(1, 64)));
        assert_eq!((672, 64), (usable(650, 8), usable(1, 8)));
        assert_eq!(u32::MAX, usable(u32::MAX, 32));
    }
}
