use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use contract::config::JobIdentity;
use contract::progress::AgentProgress;
use crds::names;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::events::JobEvent;
use crate::kueue::{QUEUE_LABEL, ResourceFlavorSpec, Workload};
use crate::training_job::build::Prepared;
use crate::training_job::cluster::{ApplyError, Cluster, WriteError};
use crate::training_job::gang::Served;
use crate::training_job::observe::{
    Claims, ObserveError, Observed, claim_view, config_view, from_cache, holds, service_view,
};
use crate::training_job::pods::PodView;
use crate::training_job::prefetch::FetchView;
use crate::training_job::queue::{self, QueueView};
use crate::training_job::status::Applied;
use crate::training_job::unseen;

/// Everything in the simulated cluster.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub job: Option<YoloTrainingJob>,
    pub pods: BTreeMap<String, Pod>,
    pub service: Option<Service>,
    pub config_map: Option<ConfigMap>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Those of users.
    pub data_files: BTreeMap<String, ConfigMap>,
    /// Names of its Secrets.
    pub secrets: BTreeSet<String>,
    /// Names of what nothing is asked of.
    pub others: BTreeSet<String>,
    /// Who can schedule workers together.
    pub served: Served,
    /// What stands in a queue for the job.
    pub workload: Option<Workload>,
    /// The kinds of nodes that quota is for.
    pub flavors: BTreeMap<String, ResourceFlavorSpec>,
    /// Whether Kueue is installed.
    pub no_kueue: bool,
    /// Whether the operator has no right to use it.
    pub no_queue_rights: bool,
    /// The incarnation none of whose agents answers.
    pub silent: Option<u32>,
    /// Pods that the API server will not take, once each.
    pub refuse: Vec<String>,
    pub pods_made: u32,
}

/// A simulated cluster, and what was done to it since it was last asked.
#[derive(Debug, Default)]
pub struct SimCluster {
    pub world: Mutex<World>,
    pub log: Mutex<Vec<String>>,
    /// The process dies when it has written this many statuses.
    pub die_after_writes: Mutex<Option<u32>>,
}

impl SimCluster {
    pub fn look(&self) -> World {
        self.world.lock().expect("no test thread panicked").clone()
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.lock().expect("no test thread panicked"))
    }

    pub fn say(&self, line: String) {
        self.log.lock().expect("no test thread panicked").push(line);
    }

    pub fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().expect("no test thread panicked"))
    }

    fn check_alive(&self) -> Result<(), String> {
        match *self
            .die_after_writes
            .lock()
            .expect("no test thread panicked")
        {
            Some(0) => Err("the process is dead".to_owned()),
            _ => Ok(()),
        }
    }
}

impl World {
    /// The job and everything around it.
    pub fn observe(
        &self,
        progress: Option<AgentProgress>,
    ) -> Result<(YoloTrainingJob, Observed), ObserveError> {
        let job = self.job.clone().ok_or(ObserveError::Gone)?;
        let uid = job.uid().unwrap_or_default();
        let service = service_view(self.service.as_ref(), &uid);
        let mut queue = queue::view(self.workload.as_ref(), &uid);
        if let (QueueView::Entered(entry), Some(workload)) = (&mut queue, &self.workload) {
            let given = queue::flavors(workload);
            let given: Vec<_> = given
                .iter()
                .map(|name| self.flavors[name].clone())
                .collect();
            entry.placement = queue::placement(workload, &given);
        }
        if self.no_queue_rights && job.labels().contains_key(QUEUE_LABEL) {
            queue = QueueView::Hidden;
        }
        let mut observed = from_cache(&job, self.pods.values(), service, queue, progress)?;
        observed.config = config_view(self.config_map.as_ref(), &uid)?;
        observed.served = Some(self.served.clone());
        observed.silent = self.silent;
        let claim = |name: String| claim_view(self.claims.get(&name), &uid);
        observed.claims = Claims {
            output: claim(names::output_claim(&observed.id.name)),
            dataset: claim(names::dataset_claim(&observed.id.name)),
        };
        if let Some(file) = job.spec.dataset.config_map.as_ref() {
            observed.has_data_file = holds(self.data_files.get(&file.name), file);
        }
        Ok((job, observed))
    }

    fn delete(&mut self, name: &str) {
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        let ended = PodView::of(pod).is_some_and(|view| view.over)
            || FetchView::of(pod).is_some_and(|view| view.ended());
        if ended {
            self.pods.remove(name);
        } else {
            pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        }
    }
}

fn dead(text: String) -> kube::Error {
    kube::Error::Service(text.into())
}

impl Cluster for SimCluster {
    async fn fresh(
        &self,
        _: &JobIdentity,
        progress: Option<AgentProgress>,
    ) -> Result<(YoloTrainingJob, Observed), ObserveError> {
        self.look().observe(progress)
    }

    async fn apply(&self, id: &JobIdentity, prepared: Prepared) -> Result<Applied, ApplyError> {
        self.check_alive().map_err(|text| ApplyError::Delete {
            kind: "pod",
            name: String::new(),
            source: Box::new(dead(text)),
        })?;
        let Prepared {
            config_map,
            claims,
            secret,
            has_secret: _,
            service,
            retire,
            stop,
            budget,
            drop_budget,
            pod_group,
            fetch,
            pods,
            queue,
            delete_job,
        } = prepared;
        let mut lines = Vec::new();
        let applied = self.change(|world| {
            if delete_job {
                lines.push(format!("delete job {}", id.name));
                *world = World::default();
                return Applied::default();
            }
            if let Some(config_map) = config_map {
                lines.push(format!("create ConfigMap {}", config_map.name_any()));
                world.config_map = Some(config_map);
            }
            for claim in claims {
                lines.push(format!("create PersistentVolumeClaim {}", claim.name_any()));
                world.claims.insert(claim.name_any(), claim);
            }
            if let Some(secret) = secret
                && world.secrets.insert(secret.name_any())
            {
                lines.push(format!("create Secret {}", secret.name_any()));
            }
            if let Some(service) = service {
                lines.push(format!("create Service {}", service.name_any()));
                world.service = Some(service);
            }
            world.keep_or_drop(budget, drop_budget, pod_group, &mut lines);
            for pod in &retire {
                if pod.release {
                    lines.push(format!("release {}", pod.name));
                    if let Some(pod) = world.pods.get_mut(&pod.name) {
                        pod.labels_mut().remove(names::ACTIVE);
                    }
                }
            }
            let leaving = retire.iter().filter(|pod| pod.delete).map(|pod| &pod.name);
            for name in leaving.chain(&stop) {
                lines.push(format!("delete {name}"));
                world.delete(name);
            }
            let mut applied = Applied::default();
            let fetch = fetch.map(|pod| (u32::MAX, pod));
            for (index, mut pod) in fetch.into_iter().chain(pods) {
                let name = pod.name_any();
                if let Some(at) = world.refuse.iter().position(|refused| *refused == name) {
                    world.refuse.remove(at);
                    lines.push(format!("refused {name}"));
                    applied.refused = Some((index, "exceeded quota".to_owned()));
                    continue;
                }
                assert!(!world.pods.contains_key(&name), "{name} exists");
                lines.push(format!("create {name}"));
                world.pods_made += 1;
                pod.metadata.uid = Some(format!("pod-{}", world.pods_made));
                world.pods.insert(name.clone(), pod);
                if index != u32::MAX {
                    applied.created.insert(index, name);
                }
            }
            if let Some(step) = queue {
                world.tell_kueue(step, &mut applied, &mut lines);
            }
            applied
        });
        assert_eq!("team", id.namespace);
        for line in lines {
            self.say(line);
        }
        Ok(applied)
    }

    async fn write_status(
        &self,
        _: &JobIdentity,
        status: &YoloTrainingJobStatus,
    ) -> Result<Option<u64>, WriteError> {
        self.check_alive()
            .map_err(|text| WriteError(Box::new(dead(text))))?;
        let (before, version) = self.change(|world| {
            let Some(job) = &mut world.job else {
                return (None, None);
            };
            let version = job.resource_version();
            let version = version.and_then(|version| unseen::number(&version));
            let version = version.unwrap_or_default() + 1;
            job.metadata.resource_version = Some(version.to_string());
            (job.status.replace(status.clone()), Some(version))
        });
        for line in super::transcript::differences(&before.unwrap_or_default(), status) {
            self.say(line);
        }
        if let Some(left) = &mut *self
            .die_after_writes
            .lock()
            .expect("no test thread panicked")
        {
            *left -= 1;
        }
        Ok(version)
    }

    async fn publish(&self, _: &JobIdentity, event: JobEvent) {
        let kind = if event.warning { "Warning" } else { "Normal" };
        self.say(format!("event {kind} {}: {}", event.reason, event.note));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::FutureExt as _;
    use jiff::SignedDuration;

    use super::*;
    use crate::sim::fixture;
    use crate::training_job::pace::Pace;
    use crate::training_job::{JobMemory, Policy, advance};

    #[test]
    fn the_cache_is_to_have_what_was_written_last() {
        let cluster = SimCluster::default();
        cluster.change(|world| world.job = Some(fixture::job("digits", 1)));
        let policy = Policy {
            images: fixture::images(),
            pace: Pace {
                progress: SignedDuration::ZERO,
                workers: SignedDuration::ZERO,
            },
        };
        let mut memory = JobMemory::default();
        let (job, cached) = cluster.look().observe(None).expect("a job");
        let now = Timestamp::UNIX_EPOCH;
        advance(&cluster, &job, cached, &policy, &mut memory, now)
            .now_or_never()
            .expect("the simulated cluster never waits")
            .expect("nothing fails");
        let job = cluster.look().job.expect("a job");
        let version = job.resource_version().expect("a status was written");
        let now = Instant::now();
        assert!(memory.unseen.awaited(Some("0"), now));
        assert!(!memory.unseen.awaited(Some(&version), now));
    }
}
