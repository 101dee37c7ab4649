//! What a model consists of: layers, parameters, work.

use std::io;
use std::path::{Path, PathBuf};

use contract::spec::{MAX_ARCHITECTURE, Model, ModelSize};
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as NameError, StrDeserializer};
use serde::{Deserialize as _, Serialize};
use trainer_data::bounded;
use trainer_model::architecture::{Architecture, ArchitectureError, Form, Slot, Work, builtin};

use crate::cli::InfoArgs;
use crate::weights::{self, WeightsError};

/// Side of the image for which work is counted where nothing says another.
const USUAL_IMAGE: u32 = 640;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// A model file cannot be read.
    #[error("cannot read the model file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is no size and no file.
    #[error(
        "there is no model {0}: name a size (yolov5n to yolov5x, yolov5n6 to yolov5x6), a model file (.yaml), or trained weights"
    )]
    Unknown(String),
    /// The model cannot be built.
    #[error("the model {what} cannot be used")]
    Architecture {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        #[source]
        source: ArchitectureError,
    },
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights have their own number of classes.
    #[error("--classes is {asked}, but the weights have {known} classes: leave --classes out")]
    Classes {
        /// As asked for.
        asked: usize,
        /// Those of the weights.
        known: usize,
    },
}

/// A model and what else is known of it.
pub(crate) struct Subject {
    pub(crate) model: Model,
    pub(crate) classes: Option<usize>,
    image_size: u32,
    /// Of trained weights.
    epochs: Option<u32>,
}

/// Everything that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: &'static str,
    classes: usize,
    image_size: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    epochs: Option<u32>,
    layers: Vec<Row>,
    parameters: u64,
    gradients: u64,
    fused_parameters: u64,
    gflops: f64,
    image_multiple: u32,
    strides: Vec<u32>,
    anchors: Vec<Vec<[f32; 2]>>,
}

/// One layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    from: String,
    repeats: usize,
    parameters: u64,
    module: String,
    arguments: String,
    /// Channels, rows and columns of its outputs.
    outputs: Vec<[i64; 3]>,
    gflops: f64,
}

/// What the arguments ask to be told.
pub fn info(args: &InfoArgs) -> Result<String, InfoError> {
    let subject = find(args)?;
    if args.yaml {
        let size = subject.model.family_size().unwrap_or_default();
        return Ok(subject
            .model
            .architecture
            .unwrap_or_else(|| builtin::document(size)));
    }
    let failed = |source| InfoError::Architecture {
        what: args.model.clone(),
        source,
    };
    let architecture = Architecture::of(&subject.model, subject.classes).map_err(failed)?;
    weights::check_image_size(subject.image_size, &architecture)?;
    let summary = summarise(&architecture, &subject).map_err(failed)?;
    Ok(if args.json {
        serde_json::to_string(&summary).expect("plain fields always become JSON")
    } else {
        table(&summary)
    })
}

/// The model that the arguments name.
pub(crate) fn find(args: &InfoArgs) -> Result<Subject, InfoError> {
    let mut subject = Subject {
        model: Model::default(),
        classes: args.classes.map(|classes| classes as usize),
        image_size: args.image_size.unwrap_or(USUAL_IMAGE),
        epochs: None,
    };
    let path = Path::new(&args.model);
    if let Some(size) = size_named(&args.model) {
        subject.model.size = Some(size);
    } else if path
        .extension()
        .is_some_and(|it| it == "yaml" || it == "yml")
    {
        subject.model.architecture = Some(read(path)?);
    } else if !path.exists() {
        return Err(InfoError::Unknown(args.model.clone()));
    } else {
        let known = weights::describe(path)?;
        if let Some(asked) = subject.classes
            && asked != known.nc
        {
            let known = known.nc;
            return Err(InfoError::Classes { asked, known });
        }
        subject.model = known.model;
        subject.classes = Some(known.nc);
        subject.image_size = args.image_size.unwrap_or(known.image_size);
        subject.epochs = Some(known.epoch);
    }
    Ok(subject)
}

/// The size that is written like this, with or without `yolov5`.
fn size_named(text: &str) -> Option<ModelSize> {
    let name: StrDeserializer<'_, NameError> = text.into_deserializer();
    ModelSize::deserialize(name).ok()
}

fn read(path: &Path) -> Result<String, InfoError> {
    bounded::read_text(path, MAX_ARCHITECTURE as u64).map_err(|source| InfoError::Read {
        path: path.to_owned(),
        source,
    })
}

fn summarise(architecture: &Architecture, subject: &Subject) -> Result<Summary, ArchitectureError> {
    let side = i64::from(subject.image_size);
    let traced = architecture.trace(side, side)?;
    let rows = architecture.layers().iter().zip(&traced).enumerate();
    let layers: Vec<Row> = rows
        .map(|(index, (layer, traced))| Row {
            from: layer.written_from.clone(),
            repeats: layer.number,
            parameters: parameters(&architecture.slots_of(index, Form::Trainable)),
            module: layer.name.clone(),
            arguments: layer.arguments.clone(),
            outputs: traced
                .outputs
                .iter()
                .map(|shape| [shape.channels, shape.height, shape.width])
                .collect(),
            gflops: traced.work.gflops(),
        })
        .collect();
    let all = parameters(&architecture.slots(Form::Trainable));
    let levels = architecture.levels();
    Ok(Summary {
        name: architecture.name(),
        classes: architecture.classes(),
        image_size: subject.image_size,
        epochs: subject.epochs,
        layers,
        parameters: all,
        // Every parameter is trained.
        gradients: all,
        fused_parameters: parameters(&architecture.slots(Form::Fused)),
        gflops: Work(traced.iter().map(|traced| traced.work.0).sum()).gflops(),
        image_multiple: architecture.multiple(),
        strides: levels.iter().map(|level| level.stride).collect(),
        // Of one whose anchors are still to be made there are none to tell.
        anchors: levels
            .iter()
            .filter(|_| !architecture.wants_anchors())
            .map(|level| level.anchors.clone())
            .collect(),
    })
}

fn parameters(slots: &[Slot]) -> u64 {
    let trained = slots.iter().filter(|slot| slot.role.is_parameter());
    trained.map(Slot::len).sum()
}

fn table(summary: &Summary) -> String {
    let mut lines = vec![format!(
        "{:>3} {:>18} {:>2} {:>10}  {:<15} arguments",
        "", "from", "n", "params", "module"
    )];
    for (index, row) in summary.layers.iter().enumerate() {
        lines.push(format!(
            "{index:>3} {:>18} {:>2} {:>10}  {:<15} {}",
            row.from, row.repeats, row.parameters, row.module, row.arguments
        ));
    }
    let Summary {
        name,
        classes,
        image_size,
        epochs,
        layers,
        parameters,
        gradients,
        fused_parameters,
        gflops,
        image_multiple,
        ..
    } = summary;
    lines.push(format!(
        "{name} with {classes} classes: {} layers, {parameters} parameters, {gradients} gradients; {fused_parameters} parameters once normalisations are folded",
        layers.len()
    ));
    lines.push(format!(
        "{gflops:.3} GFLOPs for an image of {image_size} pixels (convolutions and matrix products of the folded network, two operations for a multiplication with its addition); sides must be multiples of {image_multiple}"
    ));
    if let Some(epochs) = epochs {
        lines.push(format!("trained for {epochs} epochs"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(model: &str, change: impl FnOnce(&mut InfoArgs)) -> Result<String, InfoError> {
        let mut args = InfoArgs {
            model: model.to_owned(),
            classes: None,
            image_size: None,
            json: false,
            yaml: false,
        };
        change(&mut args);
        info(&args)
    }

    #[test]
    fn golden_table_of_yolov5s() {
        let table = told("yolov5s", |_| ()).expect("known");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(1 + 25 + 2, lines.len());
        let columns = |line: usize| lines[line].split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!("from n params module arguments", columns(0));
        assert_eq!("0 -1 1 3520 Conv [3, 32, 6, 2, 2]", columns(1));
        assert_eq!("4 -1 2 115712 C3 [128, 128, 2]", columns(5));
        assert_eq!("9 -1 1 656896 SPPF [512, 512, 5]", columns(10));
        assert_eq!("11 -1 1 0 nn.Upsample [None, 2, 'nearest']", columns(12));
        assert_eq!("12 [-1, 6] 1 0 Concat [1]", columns(13));
        assert_eq!("13 -1 1 361984 C3 [512, 256, 1, False]", columns(14));
        assert_eq!(
            "24 [17, 20, 23] 1 229245 Detect [80, [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]], [128, 256, 512]]",
            columns(25)
        );
        assert_eq!(
            "yolov5s with 80 classes: 25 layers, 7235389 parameters, 7235389 gradients; 7225885 parameters once normalisations are folded",
            lines[26]
        );
        assert!(
            lines[27].starts_with("16.434 GFLOPs for an image of 640 pixels"),
            "{}",
            lines[27]
        );
    }

    #[test]
    fn numbers_are_the_same_in_json() {
        let text = told("n6", |args| {
            args.json = true;
            args.classes = Some(3);
            args.image_size = Some(1280);
        });
        let json: serde_json::Value = serde_json::from_str(&text.expect("known")).expect("JSON");
        assert_eq!(
            ("yolov5n6", 3),
            (
                json["name"].as_str().expect("text"),
                json["classes"].as_u64().expect("a number")
            )
        );
        assert_eq!(serde_json::json!([8, 16, 32, 64]), json["strides"]);
        let layers = json["layers"].as_array().expect("a list");
        let sum: u64 = layers
            .iter()
            .filter_map(|layer| layer["parameters"].as_u64())
            .sum();
        assert_eq!(Some(sum), json["parameters"].as_u64());
        assert_eq!(serde_json::json!([[16, 640, 640]]), layers[0]["outputs"]);
        assert!(json["epochs"].is_null());
    }

    #[test]
    fn the_familys_files_can_be_changed_and_used() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("own.yaml");
        let text = told("yolov5n", |args| args.yaml = true).expect("known");
        std::fs::write(&path, text.replace("1024", "512")).expect("written");
        let path = path.display().to_string();
        let table = told(&path, |args| args.classes = Some(2)).expect("valid");
        assert!(
            table.contains("custom architecture with 2 classes: 25 layers"),
            "{table}"
        );

        std::fs::write(&path, text.replace("SPPF", "SPPX")).expect("written");
        let error = crate::console::chain(&told(&path, |_| ()).expect_err("refused"));
        assert!(
            error.contains("cannot be used: layer 9 (row 10 of backbone, SPPX): 'SPPX' is not"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_shown_is_told() {
        let error = |model: &str, image_size| {
            let result = told(model, |args| args.image_size = image_size);
            crate::console::chain(&result.expect_err("refused"))
        };
        assert!(error("none.yaml", None).starts_with("cannot read the model file none.yaml"));
        assert!(error("yolov5q", None).starts_with("there is no model yolov5q: name a size"));
        assert!(
            error("yolov5n6", Some(96)).contains("--image-size is 96: choose a multiple of 64")
        );
    }
}
