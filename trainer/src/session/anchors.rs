//! Anchors that fit the data set, where those of the model do not: found once in a run, by rank 0.
//!
//! What was found lies in the run's folder, so that every later start uses the same, and is a part of the model
//! in checkpoints and weights.

use contract::spec::TrainerSpec;
use serde::{Deserialize, Serialize};
use trainer_core::autoanchor::{Choice, choose};
use trainer_model::architecture::Architecture;

use super::data::Data;
use crate::checkpoint::CheckpointStore;
use crate::distributed::Ranks;
use crate::durable;
use crate::error::Error;
use crate::report::Reporter;
use crate::run_folder::{RunFolder, RunFolderError, json, read_json};

/// The content of `anchors.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fitted {
    /// As in `model.anchors`; none if those of the model stay.
    anchors: Option<Vec<Vec<f64>>>,
    /// Best possible recall with those of the model.
    recall: f32,
    /// And with the others that were looked for.
    other_recall: Option<f32>,
}

/// The anchors to use instead of the model's, the same on all ranks; none if those stay.
pub fn agree(
    spec: &TrainerSpec,
    data: &Data,
    folder: &RunFolder,
    store: &CheckpointStore,
    ranks: &mut Ranks,
    reporter: &Reporter,
) -> Result<Option<Vec<Vec<f64>>>, Error> {
    let mut found = None;
    if ranks.is_first() {
        found = match read_json::<Fitted>(&folder.anchors())? {
            Some(fitted) => fitted.anchors,
            // The run was begun without a test.
            None if !store.steps()?.is_empty() => None,
            None => find(spec, data, folder, reporter)?,
        };
    }
    ranks.value_of_first(&found).map_err(|source| Error::Ranks {
        when: "the choice of anchors",
        source,
    })
}

fn find(
    spec: &TrainerSpec,
    data: &Data,
    folder: &RunFolder,
    reporter: &Reporter,
) -> Result<Option<Vec<Vec<f64>>>, Error> {
    let architecture = Architecture::of(&spec.model, Some(data.train.classes()))?;
    let choice = choose(
        &data.train.box_sizes(spec.training.image_size),
        &architecture.anchors(),
        spec.hyperparameters.anchor_threshold as f32,
        spec.training.seed.into(),
    );
    let levels = |anchors: &[[f32; 2]]| -> Vec<Vec<f64>> {
        anchors
            .chunks(architecture.anchors_per_level())
            // Through hundredths, so that what is written is what is used.
            .map(|level| {
                level
                    .as_flattened()
                    .iter()
                    .map(|side| hundredths(*side))
                    .collect()
            })
            .collect()
    };
    let fitted = Fitted {
        anchors: choice.anchors.as_deref().map(levels),
        recall: choice.recall,
        other_recall: choice.other_recall,
    };
    reporter.say(&tell(&choice, fitted.anchors.as_deref()));
    let path = folder.anchors();
    durable::write(&path, &json(&fitted))
        .map_err(|source| RunFolderError::Unwritable { path, source })?;
    Ok(fitted.anchors)
}

fn hundredths(side: f32) -> f64 {
    (f64::from(side) * 100.0).round() / 100.0
}

fn tell(choice: &Choice, anchors: Option<&[Vec<f64>]>) -> String {
    let recall = choice.recall;
    match (anchors, choice.other_recall) {
        (Some(anchors), Some(other)) => format!(
            "anchors fitted to the labels: best possible recall {recall:.4} -> {other:.4}; {}",
            serde_json::to_string(anchors).unwrap_or_default()
        ),
        (_, Some(other)) => format!(
            "the model's anchors stay: best possible recall {recall:.4}, with others {other:.4}"
        ),
        (_, None) => format!("the model's anchors stay: best possible recall {recall:.4}"),
    }
}
