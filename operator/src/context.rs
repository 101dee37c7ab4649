//! What a reconcile may hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crds::names;
use crds::v1alpha1::YoloTrainingJob;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt as _};

use crate::kueue::Workload;
use crate::metadata::owned_by;
use crate::metrics::Metrics;
use crate::poller::ProgressBoard;
use crate::training_job::kubernetes::KubeCluster;
use crate::training_job::observe::ServiceView;
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
        self.pods.state_filter(|pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod
                    .labels()
                    .get(names::JOB_NAME)
                    .is_some_and(|name| name == job)
        })
    }

    /// What stands in a queue for the job. Something that is not labelled as ours is not seen here.
    pub fn queue_of(&self, namespace: &str, job: &str, uid: &str) -> QueueView {
        let key = ObjectRef::new(&names::workload(job, uid)).within(namespace);
        queue::view(self.workloads.get(&key).as_deref(), uid)
    }

    /// Whether the job's Service is there. One that is not labelled as ours is not seen here.
    pub fn service_of(&self, namespace: &str, job: &str, uid: &str) -> ServiceView {
        let name = names::service(job);
        let found = self.services.find(|service| {
            service.metadata.namespace.as_deref() == Some(namespace)
                && service.metadata.name.as_deref() == Some(&name)
        });
        match found {
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
    use crate::sim::fixture;

    #[test]
    fn a_job_that_cannot_be_read_does_not_hide_the_others() {
        let good = serde_json::to_value(fixture::job("digits", 2)).expect("plain data");
        let mut bad = good.clone();
        bad["spec"]["training"]["device"] = "tpu".into();
        let listed: Vec<GuardedJob> =
            serde_json::from_value(serde_json::json!([bad, good])).expect("both are listed");
        let error = listed[0].0.as_ref().expect_err("an unknown device");
        assert!(error.error.contains("tpu"), "{error}");
        assert_eq!(Some("digits"), error.metadata.name.as_deref());
        assert!(listed[1].0.is_ok());
    }

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
