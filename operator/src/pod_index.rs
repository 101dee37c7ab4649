//! Finds a job's pods in the cache of all pods without looking through it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crds::names;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;

/// The pods that carry a job's name, by namespace and that name.
///
/// It hears of each event of the watch just before the cache does: what it names may not be there yet.
#[derive(Clone, Default)]
pub struct PodIndex(Arc<Mutex<Both>>);

#[derive(Default)]
struct Both {
    known: Known,
    /// What a list has named so far; it takes the place of `known` when it is whole.
    listed: Known,
}

#[derive(Default)]
struct Known(HashMap<(String, String), HashSet<ObjectRef<Pod>>>);

impl Known {
    fn add(&mut self, pod: &Pod) {
        if let Some(job) = job_of(pod) {
            let pods = self.0.entry(job).or_default();
            pods.insert(ObjectRef::from_obj(pod));
        }
    }

    fn remove(&mut self, pod: &Pod) {
        let Some(job) = job_of(pod) else {
            return;
        };
        if let Some(pods) = self.0.get_mut(&job) {
            pods.remove(&ObjectRef::from_obj(pod));
            if pods.is_empty() {
                self.0.remove(&job);
            }
        }
    }
}

fn job_of(pod: &Pod) -> Option<(String, String)> {
    let job = pod.labels().get(names::JOB_NAME)?;
    Some((pod.namespace()?, job.clone()))
}

impl PodIndex {
    /// Follows the watch.
    pub fn note(&self, event: &Event<Pod>) {
        let mut both = self.lock();
        match event {
            Event::Init => both.listed = Known::default(),
            Event::InitApply(pod) => both.listed.add(pod),
            Event::InitDone => both.known = std::mem::take(&mut both.listed),
            Event::Apply(pod) => both.known.add(pod),
            Event::Delete(pod) => both.known.remove(pod),
        }
    }

    /// The pods that carry the job's name.
    pub fn of(&self, namespace: &str, job: &str) -> Vec<ObjectRef<Pod>> {
        let key = (namespace.to_owned(), job.to_owned());
        let both = self.lock();
        let pods = both.known.0.get(&key).into_iter().flatten();
        pods.cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Both> {
        // A panic elsewhere cannot leave a map of plain values half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, job: &str) -> Pod {
        let labels = json!({names::JOB_NAME: job});
        let metadata = json!({"name": name, "namespace": "n", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata})).expect("a pod")
    }

    fn named(index: &PodIndex, job: &str) -> Vec<String> {
        let mut names: Vec<_> = index.of("n", job).into_iter().map(|pod| pod.name).collect();
        names.sort();
        names
    }

    #[test]
    fn pods_are_found_by_job_as_the_watch_tells_of_them() {
        let index = PodIndex::default();
        for event in [
            Event::Init,
            Event::InitApply(pod("a-0", "a")),
            Event::InitApply(pod("b-0", "b")),
        ] {
            index.note(&event);
        }
        assert!(named(&index, "a").is_empty(), "the list is not whole yet");
        index.note(&Event::InitDone);
        index.note(&Event::Apply(pod("a-1", "a")));
        assert_eq!(["a-0", "a-1"], *named(&index, "a"));
        assert_eq!(["b-0"], *named(&index, "b"));
        assert!(index.of("m", "a").is_empty(), "another namespace");
        index.note(&Event::Delete(pod("a-0", "a")));
        assert_eq!(["a-1"], *named(&index, "a"));
    }

    #[test]
    fn what_went_while_the_watch_was_away_is_forgotten() {
        let index = PodIndex::default();
        index.note(&Event::Apply(pod("a-0", "a")));
        index.note(&Event::Init);
        index.note(&Event::InitApply(pod("a-1", "a")));
        assert_eq!(["a-0"], *named(&index, "a"), "until the list is whole");
        index.note(&Event::InitDone);
        assert_eq!(["a-1"], *named(&index, "a"));
    }
}
