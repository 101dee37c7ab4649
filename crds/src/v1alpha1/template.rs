use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, PodResourceClaim, Toleration, TopologySpreadConstraint,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::names::{GROUP, MANAGED_BY};

/// Where workers run and what their pods carry, in the words of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerTemplate {
    /// Labels of the pods, besides those of the operator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = reserved_rules()))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods, besides those of the operator.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-validations" = reserved_rules()))]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have, for example `nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that do not keep workers away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Finer wishes than `nodeSelector`: nodes that are better than others, pods to be near to or away
    /// from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How workers are spread over nodes, zones or switches. A constraint without `labelSelector` counts
    /// this job's workers. Default: on different nodes where that is possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Name of the `PriorityClass`, which says who goes first and who is preempted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Name of the `RuntimeClass`, `nvidia` for example.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Name of the scheduler that places the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub scheduler_name: Option<String>,
    /// Workers use their node's network, not one of their own: for fabrics that pods cannot reach otherwise. Two
    /// workers of any job then never share a node, and the namespace must allow it.
    pub host_network: bool,
    /// Devices that come with a claim (dynamic resource allocation); `workers.resources.claims` gives them to the
    /// container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub resource_claims: Vec<PodResourceClaim>,
    /// Secrets with which the images are pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Whether the operator sets a label or annotation of this name itself.
pub fn is_reserved(key: &str) -> bool {
    key == MANAGED_BY || key.split('/').next() == Some(GROUP) && key.contains('/')
}

fn reserved_rules() -> Value {
    let reserved = format!("(key == '{MANAGED_BY}' || key.startsWith('{GROUP}/'))");
    json!([{
        "rule": format!("!self.exists(key, {reserved})"),
        "messageExpression": format!("'{{path}} has ' + self.filter(key, {reserved})[0] + ', which the operator sets itself: remove it'"),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_selects_by_is_reserved() {
        for key in [crate::names::ACTIVE, crate::names::ATTEMPT, MANAGED_BY] {
            assert!(is_reserved(key), "{key}");
        }
        for key in ["team", "example.com/team", GROUP, "yolo-operator.develop/x"] {
            assert!(!is_reserved(key), "{key}");
        }
    }
}
