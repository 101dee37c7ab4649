//! Weights as files for other programs.

mod onnx;
mod pt;
mod torchscript;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use contract::exit::FailureReason;
use serde_json::json;
use tch::{Kind, Tensor};
use trainer_core::nms::NmsOptions;
use trainer_formats::FormatError;
use trainer_formats::onnx::Number;
use trainer_model::architecture::{Architecture, Form};

use crate::checkpoint::{self, TensorFileError};
use crate::cli::{ExportArgs, ExportFormat};
use crate::durable;
use crate::weights::{self, WeightsError, WeightsInfo};

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// There is a file already.
    #[error("{} exists: nothing is overwritten; choose another --output or add --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A flag means nothing for the format.
    #[error("{flag} means nothing for --format {format}: leave it out")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// The format.
        format: &'static str,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Model(#[from] trainer_model::Error),
    /// The network cannot be traced.
    #[error("the network cannot be traced")]
    Trace(#[source] tch::TchError),
    /// The tensors cannot be written as safetensors.
    #[error("the tensors cannot be written")]
    Tensors(#[source] TensorFileError),
    /// The container cannot be put together.
    #[error("the file cannot be put together")]
    Format(#[from] FormatError),
    /// The model file of the network cannot be written down.
    #[error("the model file of the network cannot be written down")]
    ModelFile(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ExportError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Weights(_) | Self::Flag { .. } => FailureReason::InvalidConfig,
            Self::Exists { .. } | Self::Write { .. } => FailureReason::OutputUnwritable,
            Self::Model(_)
            | Self::Trace(_)
            | Self::Tensors(_)
            | Self::Format(_)
            | Self::ModelFile(_) => FailureReason::Internal,
        }
    }
}

/// The images that a file is made for.
#[derive(Clone, Copy, Debug)]
struct Input {
    images: i64,
    side: i64,
    /// Whether their number and their sides may be others.
    dynamic: bool,
}

/// Does what the arguments say; returns what to tell.
pub fn export(args: &ExportArgs) -> Result<String, ExportError> {
    check_flags(args)?;
    let path = &args.output;
    if !args.force && path.exists() {
        return Err(ExportError::Exists { path: path.clone() });
    }
    let (network, info) = weights::load(&args.weights, tch::Device::Cpu)?;
    let side = args.image_size.unwrap_or(info.image_size);
    weights::check_image_size(side, &network.options().architecture)?;
    let input = Input {
        images: args.batch_size.unwrap_or(1).into(),
        side: side.into(),
        dynamic: args.dynamic,
    };
    let bytes = match args.format {
        ExportFormat::Safetensors => {
            let mut tensors = network.state().export()?;
            if args.half {
                halve(&mut tensors)?;
            }
            checkpoint::encode(&tensors, Some(info.note())).map_err(ExportError::Tensors)?
        }
        ExportFormat::Pt => pt::bytes(&network, &info, args.half)?,
        ExportFormat::Onnx => onnx::bytes(&network, &info, onnx_settings(args, input))?,
        ExportFormat::Torchscript => torchscript::bytes(&network, &info, input, form(args))?,
    };
    durable::write(path, &bytes).map_err(|source| ExportError::Write {
        path: path.clone(),
        source,
    })?;
    Ok(format!(
        "{} with {} classes in {} ({:.1} MB)",
        info.model.name(),
        info.nc,
        path.display(),
        bytes.len() as f64 / 1e6
    ))
}

fn form(args: &ExportArgs) -> Form {
    if args.no_fuse {
        Form::Trainable
    } else {
        Form::Fused
    }
}

fn onnx_settings(args: &ExportArgs, input: Input) -> onnx::Settings {
    let number = if args.half {
        Number::Half
    } else {
        Number::Float
    };
    let usual = NmsOptions::DETECTION;
    let suppression = args.nms.then(|| onnx::Suppression {
        confidence: args.conf.unwrap_or(usual.confidence),
        iou: args.iou.unwrap_or(usual.iou),
        max_detections: args.max_det.unwrap_or(usual.max_detections as u32),
        agnostic: args.agnostic_nms,
    });
    onnx::Settings {
        input,
        form: form(args),
        number,
        suppression,
    }
}

/// Makes numbers half as precise; counters stay as they are.
fn halve(tensors: &mut [(String, Tensor)]) -> Result<(), ExportError> {
    for (name, tensor) in tensors {
        if tensor.kind() == Kind::Float {
            *tensor =
                tensor
                    .f_to_kind(Kind::Half)
                    .map_err(|source| trainer_model::Error::Copy {
                        name: name.clone(),
                        source,
                    })?;
        }
    }
    Ok(())
}

fn check_flags(args: &ExportArgs) -> Result<(), ExportError> {
    let (format, is_made_for_images) = match args.format {
        ExportFormat::Pt => ("pt", false),
        ExportFormat::Safetensors => ("safetensors", false),
        ExportFormat::Torchscript => ("torchscript", true),
        ExportFormat::Onnx => return Ok(()),
    };
    let flags = [
        ("--dynamic", args.dynamic),
        ("--nms", args.nms),
        ("--no-fuse", args.no_fuse && !is_made_for_images),
        ("--half", args.half && is_made_for_images),
        (
            "--image-size",
            args.image_size.is_some() && !is_made_for_images,
        ),
        (
            "--batch-size",
            args.batch_size.is_some() && !is_made_for_images,
        ),
    ];
    match flags.into_iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(ExportError::Flag { flag, format }),
        None => Ok(()),
    }
}

/// What YOLOv5's programs want to know of a file without a network of Python's, as its export writes it.
fn config(info: &WeightsInfo, architecture: &Architecture, input: Input) -> String {
    let names: serde_json::Map<String, serde_json::Value> = info
        .names
        .iter()
        .enumerate()
        .map(|(class, name)| (class.to_string(), json!(name)))
        .collect();
    json!({
        "shape": [input.images, 3, input.side, input.side],
        "stride": stride(architecture),
        "names": names,
    })
    .to_string()
}

/// The largest stride of a level.
fn stride(architecture: &Architecture) -> u32 {
    let levels = architecture.levels().iter();
    levels.map(|level| level.stride).max().unwrap_or(0)
}

/// The names as Python writes a dictionary: programs read it by evaluating it, so each name is quoted whatever is in
/// it.
fn python_names(names: &[String]) -> String {
    let mut text = String::from("{");
    for (class, name) in names.iter().enumerate() {
        if class > 0 {
            text.push_str(", ");
        }
        text.push_str(&format!("{class}: '"));
        for letter in name.chars() {
            match letter {
                '\'' | '\\' => text.extend(['\\', letter]),
                letter if letter.is_control() => {
                    let _ = write!(text, "\\u{:04x}", letter as u32);
                }
                letter => text.push(letter),
            }
        }
        text.push('\'');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_quotes() {
        let names = ["ant", "b'); import os #", "c\\", "d\ne"].map(str::to_owned);
        assert_eq!(
            r"{0: 'ant', 1: 'b\'); import os #', 2: 'c\\', 3: 'd\u000ae'}",
            python_names(&names)
        );
    }
}
