//! Anchors that fit the data set, where those of the model do not: found once in a run, by rank 0.
//!
//! What was found lies in the run's folder, so that every later start uses the same, and is a part of the model
//! in checkpoints and weights.

use contract::spec::TrainerSpec;
use serde::{Deserialize, Serialize};
use trainer_core::autoanchor::{choose, make};
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
    /// Best possible recall with those of the model, where it has any.
    recall: Option<f32>,
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
        let architecture = Architecture::of(&spec.model, Some(data.train.classes()))?;
        found = match read_json::<Fitted>(&folder.anchors())? {
            Some(fitted) => fitted.anchors,
            // The run was begun without a test.
            None if !store.steps()?.is_empty() && !architecture.wants_anchors() => None,
            None => find(spec, &architecture, data, folder, reporter)?,
        };
    }
    ranks.value_of_first(&found).map_err(|source| Error::Ranks {
        when: "the choice of anchors",
        source,
    })
}

fn find(
    spec: &TrainerSpec,
    architecture: &Architecture,
    data: &Data,
    folder: &RunFolder,
    reporter: &Reporter,
) -> Result<Option<Vec<Vec<f64>>>, Error> {
    let fitted = fit(spec, architecture, data)?;
    reporter.say(&tell(&fitted));
    let path = folder.anchors();
    durable::write(&path, &json(&fitted))
        .map_err(|source| RunFolderError::Unwritable { path, source })?;
    Ok(fitted.anchors)
}

fn fit(spec: &TrainerSpec, architecture: &Architecture, data: &Data) -> Result<Fitted, Error> {
    let boxes = data.train.box_sizes(spec.training.image_size);
    let threshold = spec.hyperparameters.anchor_threshold as f32;
    let (anchors, seed) = (architecture.anchors(), spec.training.seed.into());
    if architecture.wants_anchors() {
        let made = make(&boxes, anchors.len(), threshold, seed);
        let made = made.ok_or(Error::TooFewBoxes {
            anchors: anchors.len(),
        })?;
        return Ok(Fitted {
            anchors: Some(by_level(&made.anchors, architecture)),
            recall: None,
            other_recall: Some(made.recall),
        });
    }
    let choice = choose(&boxes, &anchors, threshold, seed);
    let anchors = choice.anchors.as_deref();
    Ok(Fitted {
        anchors: anchors.map(|anchors| by_level(anchors, architecture)),
        recall: Some(choice.recall),
        other_recall: choice.other_recall,
    })
}

/// Anchors from the smallest to the largest, dealt out to the levels: the smallest to the one with the finest cells.
fn by_level(anchors: &[[f32; 2]], architecture: &Architecture) -> Vec<Vec<f64>> {
    let levels = architecture.levels();
    let mut finest_first: Vec<usize> = (0..levels.len()).collect();
    finest_first.sort_by_key(|level| levels[*level].stride);
    let mut dealt = vec![Vec::new(); levels.len()];
    let parts = anchors.chunks(architecture.anchors_per_level());
    for (level, part) in finest_first.into_iter().zip(parts) {
        // Through hundredths, so that what is written is what is used.
        let sides = part.as_flattened().iter();
        dealt[level] = sides.map(|side| hundredths(*side)).collect();
    }
    dealt
}

fn hundredths(side: f32) -> f64 {
    (f64::from(side) * 100.0).round() / 100.0
}

fn tell(fitted: &Fitted) -> String {
    let Fitted {
        anchors,
        recall,
        other_recall,
    } = fitted;
    let written = anchors
        .as_ref()
        .map(|anchors| serde_json::to_string(anchors).unwrap_or_default());
    match (written, recall, other_recall) {
        (Some(anchors), None, Some(found)) => {
            format!("anchors made from the labels: best possible recall {found:.4}; {anchors}")
        }
        (Some(anchors), Some(recall), Some(found)) => format!(
            "anchors fitted to the labels: best possible recall {recall:.4} -> {found:.4}; {anchors}"
        ),
        (_, recall, found) => {
            let recall = recall.unwrap_or_default();
            let with_others = found.map(|found| format!(", with others {found:.4}"));
            format!(
                "the model's anchors stay: best possible recall {recall:.4}{}",
                with_others.unwrap_or_default()
            )
        }
    }
}
