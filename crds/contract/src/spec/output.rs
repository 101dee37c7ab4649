use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

use super::fetch::storage_problems;
use super::{ClaimTemplate, ObjectStorage, SpecProblem, VolumeClaim};

/// Where checkpoints, weights and results go: name exactly one place. A run writes only into its own folder
/// `<job>-<first 8 characters of the job's uid>` there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "(has(self.persistentVolumeClaim) ? 1 : 0) + (has(self.volumeClaimTemplate) ? 1 : 0) + (has(self.objectStorage) ? 1 : 0) == 1",
    "messageExpression": "has(self.persistentVolumeClaim) || has(self.volumeClaimTemplate) || has(self.objectStorage) ? 'output has several places' + (has(self.persistentVolumeClaim) ? ', persistentVolumeClaim' : '') + (has(self.volumeClaimTemplate) ? ', volumeClaimTemplate' : '') + (has(self.objectStorage) ? ', objectStorage' : '') + ': keep one' : 'output has no place: add persistentVolumeClaim, volumeClaimTemplate or objectStorage'",
    "message": "output has no place or several: name persistentVolumeClaim, volumeClaimTemplate or objectStorage",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// The volume that receives the run's folder. All workers must be able to mount it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaim>,
    /// Makes a claim `<job>-output` of this kind, which receives the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<ClaimTemplate>,
    /// A folder of an S3-compatible object store that receives the run's folder: checkpoints as soon as they are
    /// whole, the rest at least every 30 seconds and at the end. A container beside worker 0 brings them there; what
    /// it has not yet brought there is lost with worker 0's pod, and the run goes on from the last checkpoint there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_storage: Option<ObjectStorage>,
    /// Draw what people look at (curves, confusion matrix, labels, batches) into the run's folder, and put it
    /// together on one page, report.html (YOLOv5's --noplots is false).
    #[serde(default = "yes")]
    pub plots: bool,
    /// Write events for TensorBoard into the run's folder.
    #[serde(default = "yes")]
    pub tensorboard: bool,
}

fn yes() -> bool {
    true
}

/// No place or several, and what is wrong with it.
pub(super) fn problems(output: &Output) -> Vec<SpecProblem> {
    let claim = output.persistent_volume_claim.as_ref();
    let template = output.volume_claim_template.as_ref();
    let storage = output.object_storage.as_ref();
    let places = [
        ("persistentVolumeClaim", claim.is_some()),
        ("volumeClaimTemplate", template.is_some()),
        ("objectStorage", storage.is_some()),
    ];
    let named = places.iter().filter(|(_, named)| *named);
    let named: Vec<&str> = named.map(|(place, _)| *place).collect();
    let mut problems = Vec::new();
    match named.as_slice() {
        [] => problems.push(SpecProblem(
            "output has no place: add persistentVolumeClaim, volumeClaimTemplate or objectStorage"
                .to_owned(),
        )),
        [_] => {}
        several => problems.push(SpecProblem(format!(
            "output has several places, {}: keep one",
            several.join(", ")
        ))),
    }
    problems.extend(claim.and_then(|c| c.problem("output.persistentVolumeClaim")));
    problems.extend(template.and_then(|t| t.problem("output.volumeClaimTemplate")));
    let storage = storage.map(|storage| storage_problems("output", storage));
    problems.extend(storage.into_iter().flatten().map(SpecProblem));
    problems
}
