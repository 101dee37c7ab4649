use contract::config::JobConfig;
use crds::names;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::metadata::{active_selector, child, job_labels};

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
            selector: Some(LabelSelector {
                match_labels: Some(active_selector(id)),
                ..LabelSelector::default()
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
