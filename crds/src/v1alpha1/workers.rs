use std::collections::BTreeMap;

use contract::config::WorkerLayout;
use contract::spec::Training;
use k8s_openapi::api::core::v1::{EnvVar, ResourceClaim};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::container::environment_rules;
use super::{Network, Quantity, WorkerContainer, WorkerTemplate};

/// The pods that train together. All of them run, or none does: a job with a lost worker restarts as a
/// whole from its last checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = json!([other_gpu_rule("limits"), other_gpu_rule("requests")])))]
pub struct Workers {
    /// Number of workers (pods).
    pub replicas: u32,
    /// The number of workers that is enough, where the job's queue has no room for all: the gang then has as
    /// many as it admits, as far as they can share a batch. Only for jobs in a queue of Kueue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_replicas: Option<u32>,
    /// NVIDIA GPUs of each worker, one for each of its processes. 0 trains on CPUs.
    pub gpus_per_worker: u32,
    /// Processes (ranks) in each worker. With GPUs it is the number of GPUs, or 1 for a `container` whose program
    /// starts the others itself, as torchrun does; without, 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processes_per_worker: Option<u32>,
    /// The resource that a GPU is: `nvidia.com/gpu`, or a part of one such as `nvidia.com/mig-1g.10gb`. Empty where
    /// GPUs come with `resources.claims` alone.
    #[schemars(length(max = 253))]
    pub gpu_resource: String,
    /// CPU, memory and other resources of each worker. GPUs are asked for with `gpusPerWorker`.
    pub resources: Resources,
    /// Size limit of /dev/shm in each worker. It lives in memory and counts towards the worker's
    /// memory limit; NCCL and Gloo use it between processes of one worker.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-validations" = json!([{
        "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
        "messageExpression": "\"{path} is '\" + self + \"': write a size such as 64Mi or 1Gi\"",
    }])))]
    pub shared_memory: String,
    /// The network between workers.
    pub network: Network,
    /// Variables for the workers, besides those of the operator and the agent: `NCCL_DEBUG`, for example.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-validations" = environment_rules()))]
    pub env: Vec<EnvVar>,
    /// Where workers run and what their pods carry.
    pub template: WorkerTemplate,
    /// Another program than the operator's trainer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<WorkerContainer>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            replicas: 1,
            min_replicas: None,
            gpus_per_worker: 0,
            processes_per_worker: None,
            gpu_resource: crate::names::GPU_RESOURCE.to_owned(),
            resources: Resources::default(),
            shared_memory: "1Gi".to_owned(),
            network: Network::Auto,
            env: Vec::new(),
            template: WorkerTemplate::default(),
            container: None,
        }
    }
}

impl Workers {
    /// Processes in each worker, with the default filled in.
    pub fn processes(&self) -> u32 {
        self.processes_per_worker
            .unwrap_or_else(|| self.gpus_per_worker.max(1))
    }

    /// Whether the processes of so many workers can share a batch equally, in fours where four images become one. A
    /// program of the user's own divides its batches as it likes.
    pub fn can_share(&self, training: &Training, workers: u32) -> bool {
        let together = if training.quad { 4 } else { 1 };
        let images = workers
            .saturating_mul(self.processes())
            .saturating_mul(together);
        self.container.is_some() || images > 0 && training.batch_size.is_multiple_of(images)
    }

    /// The numbers that the trainer needs.
    pub fn layout(&self) -> WorkerLayout {
        WorkerLayout {
            replicas: self.replicas,
            processes_per_worker: self.processes(),
            gpus_per_worker: self.gpus_per_worker,
        }
    }
}

/// Resources of a worker, in the words of a pod's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// The most a worker may use, for example `cpu: 4` and `memory: 8Gi`. Beyond its memory limit a
    /// worker is killed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = json!([gpu_rule()])))]
    pub limits: BTreeMap<String, Quantity>,
    /// What a node must have free for a worker. Default: the limits.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = json!([gpu_rule()])))]
    pub requests: BTreeMap<String, Quantity>,
    /// Devices of `template.resourceClaims` that the container `worker` gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub claims: Vec<ResourceClaim>,
}

/// The same as [`gpu_rule`] where GPUs are another resource.
fn other_gpu_rule(kind: &str) -> serde_json::Value {
    json!({
        "rule": format!("self.gpuResource == 'nvidia.com/gpu' || !has(self.resources.{kind}) || !(self.gpuResource in self.resources.{kind})"),
        "messageExpression": format!("'workers.resources.{kind} has ' + self.gpuResource + ': remove it and set workers.gpusPerWorker'"),
    })
}

fn gpu_rule() -> serde_json::Value {
    json!({
        "rule": "!('nvidia.com/gpu' in self)",
        "message": "{path} has nvidia.com/gpu: remove it and set workers.gpusPerWorker",
    })
}
