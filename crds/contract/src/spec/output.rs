use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

use super::{ClaimTemplate, SpecProblem, VolumeClaim};

/// Where checkpoints, weights and results go: name exactly one place. A run writes only into its own folder
/// `<job>-<first 8 characters of the job's uid>` there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "has(self.persistentVolumeClaim) != has(self.volumeClaimTemplate)",
    "messageExpression": "'output has ' + (has(self.volumeClaimTemplate) ? 'two places, persistentVolumeClaim and volumeClaimTemplate: remove one' : 'no place: add persistentVolumeClaim or volumeClaimTemplate')",
    "message": "output has no place or two places: name either persistentVolumeClaim or volumeClaimTemplate",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Output {
    /// The volume that receives the run's folder. All workers must be able to mount it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaim>,
    /// Makes a claim `<job>-output` of this kind, which receives the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<ClaimTemplate>,
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

/// No place or two, and what is wrong with the claim.
pub(super) fn problems(output: &Output) -> Vec<SpecProblem> {
    let places = (
        &output.persistent_volume_claim,
        &output.volume_claim_template,
    );
    let mut problems = Vec::new();
    match places {
        (None, None) => problems.push(SpecProblem(
            "output has no place: add persistentVolumeClaim or volumeClaimTemplate".to_owned(),
        )),
        (Some(_), Some(_)) => problems.push(SpecProblem(
            "output has two places, persistentVolumeClaim and volumeClaimTemplate: remove one"
                .to_owned(),
        )),
        _ => {}
    }
    let (claim, template) = places;
    problems.extend(
        claim
            .iter()
            .filter_map(|c| c.problem("output.persistentVolumeClaim")),
    );
    problems.extend(
        template
            .iter()
            .filter_map(|t| t.problem("output.volumeClaimTemplate")),
    );
    problems
}
