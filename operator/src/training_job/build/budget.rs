use contract::config::JobConfig;
use crds::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::metadata::{child, job_labels};

/// Keeps voluntary evictions off the workers: all of them are needed.
pub fn budget(config: &JobConfig) -> PodDisruptionBudget {
    let id = &config.job;
    let name = names::disruption_budget(&id.name, &id.uid);
    PodDisruptionBudget {
        metadata: child(id, name, job_labels(id)),
        spec: Some(PodDisruptionBudgetSpec {
            // A share would have to be asked of a controller that the pods do not have.
            min_available: i32::try_from(config.workers.replicas)
                .ok()
                .map(IntOrString::Int),
            // Not the pod that fetches a data set. Pods on their way out count for nothing here.
            selector: Some(LabelSelector {
                match_labels: Some([(names::JOB_UID.to_owned(), id.uid.clone())].into()),
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: names::WORKER_INDEX.to_owned(),
                    operator: "Exists".to_owned(),
                    values: None,
                }]),
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
