//! `TorchScript`: what the network did with one batch of images, written down by libtorch.

use tch::{CModule, Kind, Tensor};
use trainer_formats::{ArchiveEntry, add_to_archive};
use trainer_model::architecture::Form;
use trainer_model::network::{Evaluated, Network};

use super::{ExportError, Input, config};
use crate::weights::WeightsInfo;

/// A network as what it does with images.
type Evaluate = Box<dyn Fn(&Tensor) -> Result<Evaluated, trainer_model::Error>>;

/// The bytes of a traced network, which takes images of the traced size.
pub fn bytes(
    network: &Network,
    info: &WeightsInfo,
    input: Input,
    form: Form,
) -> Result<Vec<u8>, ExportError> {
    let evaluate: Evaluate = match form {
        Form::Fused => {
            let fused = network.fuse()?;
            Box::new(move |images: &Tensor| fused.evaluate(images))
        }
        // A trace takes in no parameters that collect gradients.
        Form::Trainable => {
            let copy = network.copy_of()?;
            Box::new(move |images: &Tensor| copy.evaluate(images))
        }
    };
    let shape = [input.images, 3, input.side, input.side];
    let images =
        Tensor::f_zeros(shape, (Kind::Float, tch::Device::Cpu)).map_err(ExportError::Trace)?;
    // What depends on the size of the images alone is made here: the trace would make it on the CPU wherever it runs.
    evaluate(&images)?;
    let mut failed = None;
    let mut run = |inputs: &[Tensor]| match evaluate(&inputs[0]) {
        Ok(evaluated) => vec![evaluated.decoded],
        Err(error) => {
            failed = Some(error);
            Vec::new()
        }
    };
    let traced = CModule::create_by_tracing("DetectionModel", "forward", &[images], &mut run);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let folder = tempfile::tempdir().map_err(write_failed)?;
    let path = folder.path().join("model.torchscript");
    traced
        .and_then(|module| module.save(&path))
        .map_err(ExportError::Trace)?;
    let bytes = std::fs::read(&path).map_err(write_failed)?;
    let config = config(info, &network.options().architecture, input);
    let entry = ArchiveEntry {
        name: "extra/config.txt".to_owned(),
        bytes: config.as_bytes(),
    };
    Ok(add_to_archive(bytes, &entry)?)
}

fn write_failed(source: std::io::Error) -> ExportError {
    let path = std::env::temp_dir();
    ExportError::Write { path, source }
}
