//! What a reconcile may hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::names;
use crds::v1alpha1::YoloTrainingJob;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Client;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};

use crate::kueue::Workload;
use crate::metadata::owned_by;
use crate::metrics::Metrics;
use crate::pod_index::PodIndex;
use crate::progress_board::ProgressBoard;
use crate::training_job::kubernetes::KubeCluster;
use crate::training_job::observe::ServiceView;
use crate::training_job::pace::Pace;
use crate::training_job::queue::{self, QueueView};
use crate::training_job::{JobMemory, Policy};

/// A job, or why it cannot be read: one malformed object must not stop the others.
pub type GuardedJob = DeserializeGuard<YoloTrainingJob>;

/// The watch caches.
#[derive(Clone)]
pub struct Caches {
    /// All jobs.
    pub jobs: Store<GuardedJob>,
    /// All pods that the operator created, without what it does not read.
    pub pods: Store<Pod>,
    /// Which of them carry which job's name.
    pub pod_index: PodIndex,
    /// Metadata of all Services that the operator created.
    pub services: Store<PartialObjectMeta<Service>>,
    /// What stands in queues for jobs; empty where Kueue is not installed.
    pub workloads: Store<Workload>,
}

impl Caches {
    /// The jobs that can be read and that no other controller runs.
    pub fn readable_jobs(&self) -> Vec<Arc<GuardedJob>> {
        let mut jobs = self.jobs.state();
        jobs.retain(|job| job.0.as_ref().is_ok_and(|job| !job.spec.is_foreign()));
        jobs
    }

    /// The pods that carry the job's name, whichever job of that name they belong to.
    pub fn pods_of(&self, namespace: &str, job: &str) -> Vec<Arc<Pod>> {
        let pods = self.pod_index.of(namespace, job);
        pods.iter().filter_map(|pod| self.pods.get(pod)).collect()
    }

    /// What stands in a queue for the job. Something that is not labelled as ours is not seen here.
    pub fn queue_of(&self, namespace: &str, job: &str, uid: &str) -> QueueView {
        let key = ObjectRef::new(&names::workload(job, uid)).within(namespace);
        queue::view(self.workloads.get(&key).as_deref(), uid)
    }

    /// Whether the job's Service is there. One that is not labelled as ours is not seen here.
    pub fn service_of(&self, namespace: &str, job: &str, uid: &str) -> ServiceView {
        let name = names::service(job);
        match self.services.get(&ObjectRef::new(&name).within(namespace)) {
            None => ServiceView::Absent,
            Some(service) if owned_by(&service.metadata, uid) => ServiceView::Present,
            Some(_) => ServiceView::Foreign,
        }
    }
}

/// Everything a reconcile of a training job may hold.
pub struct Context {
    /// For the few things that [`KubeCluster`] does not do.
    pub client: Client,
    /// Effects.
    pub cluster: KubeCluster,
    /// What is known without asking.
    pub caches: Caches,
    /// What agents last said.
    pub progress: Arc<ProgressBoard>,
    /// Images and pace.
    pub policy: Policy,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What is remembered of each job, by uid.
    pub memory: Memory,
}

impl Context {
    /// How often statuses are written while so many jobs start.
    pub fn pace(&self) -> Pace {
        self.policy.pace.shared_by(self.progress.starting())
    }
}

/// What is remembered of each job, by uid.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, JobMemory>>);

impl Memory {
    /// Takes what is remembered of a job. An object is never reconciled twice at the same time, so nobody
    /// else misses it meanwhile.
    pub fn take(&self, uid: &str) -> JobMemory {
        self.lock().remove(uid).unwrap_or_default()
    }

    /// Puts it back.
    pub fn put(&self, uid: &str, memory: JobMemory) {
        self.lock().insert(uid.to_owned(), memory);
    }

    /// Counts an error in a row and returns the count.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut jobs = self.lock();
        let memory = jobs.entry(uid.to_owned()).or_default();
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    }

    /// Forgets all jobs but those of these uids.
    pub fn keep(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, JobMemory>> {
        // A panic elsewhere cannot leave a map of plain values half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_in_a_row_are_counted_for_each_job() {
        let memory = Memory::default();
        assert_eq!((1, 2), (memory.failed("a"), memory.failed("a")));
        assert_eq!(1, memory.failed("b"));
        let mut taken = memory.take("a");
        assert_eq!(2, taken.failures);
        taken.failures = 0;
        memory.put("a", taken);
        memory.keep(|uid| uid == "a");
        assert_eq!((1, 1), (memory.failed("a"), memory.failed("b")));
    }
}
