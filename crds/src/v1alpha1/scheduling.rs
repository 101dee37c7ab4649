use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the workers get their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    /// Who sees to it that either all workers get nodes or none does, so that two jobs never hold half of what each
    /// needs.
    pub gang: Gang,
    /// A label of nodes, of which all workers get the same value: the one that names the switch or the rack keeps
    /// the job's traffic behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 316))]
    pub same_topology: Option<String>,
    /// The queue of Volcano that the workers wait in. Default: Volcano's own default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub volcano_queue: Option<String>,
    /// Keeps voluntary evictions (a drain, the cluster autoscaler) off the workers until the job ends or is
    /// suspended, with a `PodDisruptionBudget`: one worker that leaves stops all of them.
    pub pod_disruption_budget: bool,
}

/// Who schedules the workers of a job together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Gang {
    /// Kubernetes itself where its `PodGroup` of scheduling.k8s.io is stable (v1), or Volcano where
    /// `workers.template.schedulerName` is `volcano`; else nobody.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// Nobody: each worker gets a node for itself.
    None,
    /// Kubernetes' own scheduler, by a `PodGroup` of scheduling.k8s.io.
    Kubernetes,
    /// Volcano, by a `PodGroup` of scheduling.volcano.sh.
    Volcano,
    /// The coscheduling plugin of the scheduler that `workers.template.schedulerName` names, by a `PodGroup` of
    /// scheduling.x-k8s.io.
    Coscheduling,
}

impl Gang {
    /// The word that users write.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "None",
            Self::Kubernetes => "Kubernetes",
            Self::Volcano => "Volcano",
            Self::Coscheduling => "Coscheduling",
        }
    }
}

/// The network between workers, for which NCCL is told what to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Network {
    /// NCCL finds out.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// TCP over Ethernet (`NCCL_IB_DISABLE=1`).
    Ethernet,
    /// InfiniBand (`NCCL_NET=IB`).
    InfiniBand,
    /// RDMA over Converged Ethernet (`NCCL_NET=IB`, `NCCL_IB_GID_INDEX=3`, which is RoCE v2 over IPv4).
    RoCE,
    /// AWS' Elastic Fabric Adapter, whose plugin the image must have (`FI_PROVIDER=efa`,
    /// `FI_EFA_USE_DEVICE_RDMA=1`).
    EFA,
}

impl Network {
    /// Variables for the workers.
    pub fn environment(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Auto => &[],
            Self::Ethernet => &[("NCCL_IB_DISABLE", "1")],
            Self::InfiniBand => &[("NCCL_NET", "IB")],
            Self::RoCE => &[("NCCL_NET", "IB"), ("NCCL_IB_GID_INDEX", "3")],
            Self::EFA => &[("FI_PROVIDER", "efa"), ("FI_EFA_USE_DEVICE_RDMA", "1")],
        }
    }
}
