//! Weights that a run begins with: `model.weights`.
//!
//! What they say of their network is needed before anything else, on every start, since the network may be
//! theirs; their values only by rank 0 of a run's first start.

use std::path::{Path, PathBuf};

use contract::spec::Model;
use trainer_model::network::Network;
use trainer_model::state::Transfer;

use crate::weights::{self, WeightsError};

/// Names that are listed in one sentence.
const LISTED: usize = 8;

/// Weights that a run cannot begin with.
#[derive(Debug, thiserror::Error)]
pub enum InitialError {
    /// They cannot be read.
    #[error("model.weights cannot be used")]
    Weights(#[from] WeightsError),
    /// They do not say which network they are for, and neither does the job.
    #[error(
        "model.weights is {weights}, which does not say which network it is for: add model.size or model.architecture"
    )]
    NoModel {
        /// The setting.
        weights: String,
    },
    /// Their anchors do not fit the network.
    #[error("model.weights is {weights}: it {problem}")]
    Anchors {
        /// The setting.
        weights: String,
        /// What does not fit.
        problem: String,
    },
    /// Nothing of them fits the network.
    #[error(
        "nothing in {} fits the network {name}: name the weights of the same model.size or model.architecture", path.display()
    )]
    NothingFits {
        /// The file.
        path: PathBuf,
        /// What the network is called.
        name: &'static str,
    },
    /// Values could not be copied.
    #[error("the values of {} cannot be taken over", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: trainer_model::Error,
    },
}

/// Completes `model` by what its weights, below the folder `dataset`, say: the network, where the job names none,
/// and the anchors, where it neither names any nor describes a network.
pub fn adopt(model: &mut Model, dataset: &Path) -> Result<(), InitialError> {
    let Some(weights) = model.weights.clone() else {
        return Ok(());
    };
    let opened = weights::open(&dataset.join(&weights))?;
    if model.architecture.is_some() {
        return Ok(());
    }
    if model.size.is_none() {
        let info = match opened.info {
            Err(WeightsError::NoNote { .. }) => return Err(InitialError::NoModel { weights }),
            info => info?,
        };
        model.size = info.model.size;
        model.architecture = info.model.architecture;
        model.activation = model.activation.or(info.model.activation);
        model.anchors = model.anchors.take().or(info.model.anchors);
    } else if model.anchors.is_none() {
        let anchors = weights::other_anchors(model, &opened.tensors);
        model.anchors = anchors.map_err(|problem| InitialError::Anchors { weights, problem })?;
    }
    Ok(())
}

/// Gives `network` the values of the weights below the folder `dataset` that fit it; says what was taken and what
/// was not.
pub fn take(network: &mut Network, weights: &str, dataset: &Path) -> Result<String, InitialError> {
    let opened = weights::open(&dataset.join(weights))?;
    let path = opened.file;
    let transfer = network.state_mut().transfer(&opened.tensors);
    let transfer = transfer.map_err(|source| InitialError::Copy {
        path: path.clone(),
        source,
    })?;
    if transfer.taken == 0 {
        let name = network.options().architecture.name();
        return Err(InitialError::NothingFits { path, name });
    }
    Ok(tell(&transfer, weights))
}

fn tell(transfer: &Transfer, weights: &str) -> String {
    let mut text = format!(
        "Transferred {}/{} items from {weights}",
        transfer.taken, transfer.items
    );
    let shapes = transfer.other_shape.iter();
    let shapes: Vec<String> = shapes
        .map(|(name, expected, found)| format!("{name} {found:?} instead of {expected:?}"))
        .collect();
    for (what, names) in [
        ("of another shape", &shapes),
        ("not in it", &transfer.missing),
    ] {
        if !names.is_empty() {
            text.push_str(&format!("; {what}: {}", listed(names)));
        }
    }
    if transfer.other_anchors.is_some() {
        text.push_str("; its anchors are not those of the model");
    }
    text
}

fn listed(names: &[String]) -> String {
    let mut text = names[..names.len().min(LISTED)].join(", ");
    if names.len() > LISTED {
        text.push_str(&format!(" and {} more", names.len() - LISTED));
    }
    text
}

#[cfg(test)]
mod tests {
    use contract::spec::ModelSize;

    use super::*;

    #[test]
    fn of_weights_for_a_network_of_the_job_only_tensors_are_needed() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata/yolov5.pt");
        let mut bytes = std::fs::read(file).expect("readable");
        // An activation that this program does not have.
        let at = bytes.windows(4).position(|window| window == b"SiLU");
        bytes[at.expect("named once")..][..4].copy_from_slice(b"SELU");
        let folder = tempfile::tempdir().expect("temporary folder");
        std::fs::write(folder.path().join("w.pt"), bytes).expect("written");
        let adopted = |size| {
            let mut model = Model {
                size,
                weights: Some("w.pt".to_owned()),
                ..Model::default()
            };
            adopt(&mut model, folder.path()).map_err(|error| crate::console::chain(&error))
        };
        assert_eq!(Ok(()), adopted(Some(ModelSize::N)));
        let problem = adopted(None).expect_err("refused");
        assert!(problem.contains("has the activation SELU"), "{problem}");
    }

    #[test]
    fn what_was_not_taken_is_named_but_not_without_end() {
        let transfer = Transfer {
            items: 20,
            taken: 9,
            other_shape: vec![("a".to_owned(), vec![2], vec![3, 1])],
            missing: (0..10).map(|number| format!("m{number}")).collect(),
            other_anchors: None,
        };
        assert_eq!(
            "Transferred 9/20 items from w.pt; of another shape: a [3, 1] instead of [2]; not in it: m0, m1, m2, m3, m4, m5, m6, m7 and 2 more",
            tell(&transfer, "w.pt")
        );
    }
}
