//! What decides when and where the workers run in the simulated cluster: Kueue and schedulers do what the script
//! says.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::cluster::World;
use super::script::{Player, number};
use crate::kueue::{ADMITTED, EVICTED, QUEUE_LABEL, QUOTA_RESERVED, ResourceFlavorSpec, Workload};
use crate::training_job::build::{PodGroup, PreparedStep};
use crate::training_job::gang;
use crate::training_job::queue::{self, QueueStep};
use crate::training_job::status::Applied;

impl Player {
    /// Carries out a command that is about queues and nodes; says whether it was one.
    pub(super) fn scheduling_command(&self, words: &[&str]) -> bool {
        let rest = |from: usize| words.get(from..).unwrap_or_default().join(" ");
        match words[0] {
            "queue" => self.cluster.change(|world| {
                let job = world.job.as_mut().expect("a job");
                let labels = job.metadata.labels.get_or_insert_default();
                labels.insert(QUEUE_LABEL.to_owned(), words[1].to_owned());
                job.spec.workers.min_replicas = words.get(2).map(|least| number(least));
            }),
            "unqueue" => self.cluster.change(|world| {
                let job = world.job.as_mut().expect("a job");
                job.metadata.labels = None;
            }),
            "no-kueue" => self.cluster.change(|world| world.no_kueue = true),
            "queue-rights" => self.cluster.change(|world| {
                world.no_queue_rights = words[1] == "none";
            }),
            "queue-says" => self.kueue(|status| {
                set(status, QUOTA_RESERVED, false, "Pending", &rest(1));
            }),
            "admit" => self.admit(words.get(1).map(|count| number(count))),
            "deactivate" => self.cluster.change(|world| {
                let workload = world.workload.as_mut().expect("a Workload");
                workload.spec.active = Some(false);
            }),
            "evict-from-queue" => self.kueue(|status| {
                set(status, EVICTED, true, words[1], &rest(2));
            }),
            "scheduling" => self.edit(|spec| {
                spec.scheduling = serde_json::from_str(&rest(1)).expect("scheduling");
            }),
            "serve" => self.cluster.change(|world| {
                world.served = gang::served(&[(words[1].to_owned(), words[2].to_owned())]);
            }),
            "taint-evict" => self.cluster.change(|world| {
                let pod = world.pods.get_mut(words[1]).expect("a pod");
                let condition = json!({"type": "DisruptionTarget", "status": "True",
                    "reason": "DeletionByTaintManager", "message": rest(2)});
                let condition = serde_json::from_value(condition).expect("a condition");
                pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                let status = pod.status.get_or_insert_default();
                status.conditions.get_or_insert_default().push(condition);
            }),
            "unserve" => self
                .cluster
                .change(|world| world.served = gang::served(&[])),
            "show-pod" => {
                let spec = self.cluster.look().pods[words[1]].spec.clone();
                let spec = spec.unwrap_or_default();
                let nodes = spec.node_selector.unwrap_or_default();
                let wishes = spec
                    .affinity
                    .and_then(|affinity| affinity.node_affinity)
                    .and_then(|nodes| nodes.preferred_during_scheduling_ignored_during_execution);
                let fields = wishes.into_iter().flatten();
                let fields = fields.filter_map(|wish| wish.preference.match_fields);
                let avoided: Vec<_> = fields.flatten().filter_map(|field| field.values).collect();
                self.cluster.say(format!(
                    "runs on nodes with {nodes:?}, rather not on {:?}",
                    avoided.concat()
                ));
            }
            _ => return false,
        }
        true
    }

    /// Kueue changes the status of what stands in the queue.
    fn kueue(&self, change: impl FnOnce(&mut Value)) {
        self.cluster.change(|world| {
            change_status(world.workload.as_mut().expect("a Workload"), change);
        });
    }

    fn admit(&self, workers: Option<u32>) {
        self.cluster.change(|world| {
            let flavor = ResourceFlavorSpec {
                node_labels: [("kind".to_owned(), "gpu".to_owned())].into(),
                ..ResourceFlavorSpec::default()
            };
            world.flavors.insert("gpu-nodes".to_owned(), flavor);
            let workload = world.workload.as_mut().expect("a Workload");
            let count = workers.unwrap_or(workload.spec.pod_sets[0].count);
            change_status(workload, |status| {
                set(status, QUOTA_RESERVED, true, "QuotaReserved", "");
                set(status, ADMITTED, true, "Admitted", "");
                set(status, EVICTED, false, "QuotaReserved", "");
                status["admission"] = json!({"clusterQueue": "all", "podSetAssignments": [
                    {"name": "workers", "count": count, "flavors": {"cpu": "gpu-nodes"}}]});
            });
        });
    }
}

impl World {
    /// What stands around the pods: a budget, and the group that they are scheduled as.
    pub(super) fn keep_or_drop(
        &mut self,
        budget: Option<PodDisruptionBudget>,
        drop_budget: Option<String>,
        pod_group: Option<PodGroup>,
        lines: &mut Vec<String>,
    ) {
        if let Some(name) = drop_budget
            && self.others.remove(&name)
        {
            lines.push(format!("delete PodDisruptionBudget {name}"));
        }
        if let Some(budget) = budget
            && self.others.insert(budget.name_any())
        {
            lines.push(format!("create PodDisruptionBudget {}", budget.name_any()));
        }
        if let Some(group) = &pod_group {
            let name = group.object.name_any();
            lines.push(format!(
                "create PodGroup {name} of {}",
                group.resource.group
            ));
            self.others.insert(name);
        }
        if let Some(before) = pod_group.and_then(|group| group.before)
            && self.others.remove(&before)
        {
            lines.push(format!("delete PodGroup {before}"));
        }
    }

    /// Does what the operator wants of Kueue's objects.
    pub(super) fn tell_kueue(
        &mut self,
        step: PreparedStep,
        applied: &mut Applied,
        lines: &mut Vec<String>,
    ) {
        match step {
            PreparedStep::Create(_) if self.no_kueue => {
                applied.not_queued = Some("Kueue is not installed".to_owned());
            }
            PreparedStep::Create(workload) => {
                let [set] = &workload.spec.pod_sets[..] else {
                    panic!("one set of pods");
                };
                let least = set.min_count.map(|count| format!(", {count} are enough"));
                lines.push(format!(
                    "create Workload {} in the queue {} for {} workers{}",
                    workload.name_any(),
                    workload.spec.queue_name,
                    set.count,
                    least.unwrap_or_default()
                ));
                assert!(self.workload.is_none(), "there is a Workload");
                self.workload = Some(*workload);
            }
            PreparedStep::Change(name, QueueStep::Leave) => {
                lines.push(format!("delete Workload {name}"));
                self.workload = None;
            }
            PreparedStep::Change(name, step) => {
                lines.push(format!("tell Kueue of {name}: {step:?}"));
                let workload = self.workload.as_mut().expect("a Workload");
                change_status(workload, |status| {
                    queue::tell(status, &step, Some(1), Timestamp::UNIX_EPOCH);
                });
            }
        }
    }
}

fn change_status(workload: &mut Workload, change: impl FnOnce(&mut Value)) {
    let status = workload.status.clone().unwrap_or_default();
    let mut status = serde_json::to_value(status).expect("plain data");
    change(&mut status);
    workload.status = Some(serde_json::from_value(status).expect("a status"));
}

fn set(status: &mut Value, kind: &str, holds: bool, reason: &str, message: &str) {
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != kind);
    conditions.push(json!({
        "type": kind,
        "status": if holds { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2027-01-15T08:00:00Z",
    }));
    status["conditions"] = conditions.into();
}
