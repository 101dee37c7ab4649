//! Weights as files for other programs.

mod onnx;
mod pt;
mod torchscript;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use contract::exit::FailureReason;
use serde_json::json;
use trainer_formats::FormatError;
use trainer_model::architecture::Level;

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
    /// A layer cannot be written in the format.
    #[error(
        "layer {index} ({module}) cannot be written as {format}: choose another --format (safetensors and torchscript take every model)"
    )]
    Module {
        /// The number of the layer.
        index: usize,
        /// Its module.
        module: String,
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
            Self::Weights(_) | Self::Module { .. } | Self::Flag { .. } => {
                FailureReason::InvalidConfig
            }
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
            let tensors = network.state().export()?;
            checkpoint::encode(&tensors, Some(info.note())).map_err(ExportError::Tensors)?
        }
        ExportFormat::Pt => pt::bytes(&network, &info)?,
        ExportFormat::Onnx => onnx::bytes(&network, &info, input)?,
        ExportFormat::Torchscript => torchscript::bytes(&network, &info, input)?,
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

fn check_flags(args: &ExportArgs) -> Result<(), ExportError> {
    let (format, is_made_for_images) = match args.format {
        ExportFormat::Pt => ("pt", false),
        ExportFormat::Safetensors => ("safetensors", false),
        ExportFormat::Torchscript => ("torchscript", true),
        ExportFormat::Onnx => return Ok(()),
    };
    let flags = [
        ("--dynamic", args.dynamic),
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
fn config(info: &WeightsInfo, levels: &[Level], input: Input) -> String {
    let names: serde_json::Map<String, serde_json::Value> = info
        .names
        .iter()
        .enumerate()
        .map(|(class, name)| (class.to_string(), json!(name)))
        .collect();
    json!({
        "shape": [input.images, 3, input.side, input.side],
        "stride": largest_stride(levels),
        "names": names,
    })
    .to_string()
}

fn largest_stride(levels: &[Level]) -> u32 {
    levels.iter().map(|level| level.stride).max().unwrap_or(0)
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
