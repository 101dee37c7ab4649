use k8s_openapi::api::core::v1::EnvVar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Another program than the operator's trainer: a team's own PyTorch script, for example. It runs under the same
/// agents, with the same restarts. Each process finds its place in the variables that `torch.distributed` reads
/// (`RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `LOCAL_WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`; torchrun's `PET_*` for
/// its own launcher; a hostfile for MPI in `YOLO_HOSTFILE`), the data set in /data, the output volume in /output
/// and everything under `model`, `training` and so on in the JSON file that `YOLO_CONFIG` names. Exit code 0 is
/// success. What only the operator's trainer can report is absent from the status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerContainer {
    /// The image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// The program that each process runs, and its arguments.
    #[schemars(length(min = 1, max = 64))]
    pub command: Vec<String>,
    /// Variables for it, besides those of the operator and the agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-validations" = environment_rules()))]
    pub env: Vec<EnvVar>,
}

/// What the names of variables begin with that the operator and the agent set.
const RESERVED: [&str; 7] = [
    "YOLO_",
    "PET_",
    "MASTER_",
    "NNODES",
    "NODE_RANK",
    "NPROC_PER_NODE",
    "OMPI_MCA_orte_default_hostfile",
];
/// Names that are reserved as a whole.
const PLACES: [&str; 4] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"];

/// Whether the operator or the agent sets a variable of this name itself.
pub fn is_reserved_variable(name: &str) -> bool {
    PLACES.contains(&name) || RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

pub(super) fn environment_rules() -> Value {
    let starts = RESERVED.map(|prefix| format!("v.name.startsWith('{prefix}')"));
    let places = PLACES.map(|name| format!("v.name == '{name}'"));
    let reserved = [starts.join(" || "), places.join(" || ")].join(" || ");
    json!([{
        "rule": format!("!self.exists(v, {reserved})"),
        // The names have no limit of length, which a sentence made of them would need.
        "message": format!(
            "{{path}} has a variable that the operator or the agent sets itself: remove those that begin with {}, and {}",
            RESERVED.join(", "),
            PLACES.join(", ")
        ),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_places_a_process_is_reserved() {
        for name in [
            "RANK",
            "PET_NNODES",
            "MASTER_ADDR",
            contract::env::ATTEMPT,
            contract::env::HOSTFILE,
            contract::env::NPROC_PER_NODE,
            contract::env::LOCAL_WORLD_SIZE,
        ] {
            assert!(is_reserved_variable(name), "{name}");
        }
        for name in ["RANKS", "HOME", "NCCL_DEBUG", "MY_RANK"] {
            assert!(!is_reserved_variable(name), "{name}");
        }
    }
}
