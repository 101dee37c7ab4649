//! Which changes of a job deserve a reconcile. The numbers of a run in progress do not: the operator itself
//! writes them every few seconds, and nothing follows from them.

use std::hash::{DefaultHasher, Hasher as _};

use crds::v1alpha1::YoloTrainingJobStatus;
use kube::ResourceExt as _;

use crate::context::GuardedJob;

/// Differs where a reconcile may have something to do. `None` for a job that cannot be read.
pub fn news(job: &GuardedJob) -> Option<u64> {
    let job = job.0.as_ref().ok()?;
    let meta = &job.metadata;
    let absent = YoloTrainingJobStatus::default();
    // Without `..`, so that a new field is thought about here.
    let YoloTrainingJobStatus {
        observed_generation,
        state,
        conditions,
        attempt,
        restarts,
        counted_restarts,
        last_restart,
        failures,
        ready_workers,
        total_workers,
        workers,
        start_time,
        completion_time,
        progress: _,
        latest: _,
        best: _,
        checkpoint: _,
        best_weights: _,
        skipped_images: _,
        warnings: _,
        waiting_on: _,
        admission: _,
        straggler: _,
        last_update_time: _,
        fetch,
        display: _,
    } = job.status.as_ref().unwrap_or(&absent);
    let identity = (
        meta.generation,
        &meta.deletion_timestamp,
        job.labels(),
        job.annotations(),
        job.finalizers(),
    );
    let standing = (
        (observed_generation, state, conditions, attempt),
        (restarts, counted_restarts, last_restart, failures),
        (ready_workers, total_workers, workers, fetch),
        (start_time, completion_time),
    );
    let bytes = serde_json::to_vec(&(identity, standing)).ok()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use contract::progress::Progress;
    use crds::v1alpha1::State;
    use kube::core::DeserializeGuard;

    use super::*;
    use crate::sim::fixture;

    #[test]
    fn numbers_are_no_news_and_everything_else_is() {
        let job = fixture::job("digits", 2);
        let told = |change: &dyn Fn(&mut crds::v1alpha1::YoloTrainingJob)| {
            let mut job = job.clone();
            job.status = Some(YoloTrainingJobStatus::default());
            change(&mut job);
            news(&DeserializeGuard(Ok(job))).expect("readable")
        };
        let plain = told(&|_| {});
        let status = |job: &mut crds::v1alpha1::YoloTrainingJob,
                      change: &dyn Fn(&mut YoloTrainingJobStatus)| {
            change(job.status.get_or_insert_default());
        };
        assert_eq!(plain, told(&|job| job.status = None));
        assert_eq!(
            plain,
            told(&|job| status(job, &|s| s.progress = Some(Progress::default())))
        );
        for changed in [
            told(&|job| status(job, &|s| s.state = Some(State::Running))),
            told(&|job| status(job, &|s| s.ready_workers = 1)),
            told(&|job| job.metadata.generation = Some(99)),
            told(&|job| {
                job.labels_mut().insert("a".to_owned(), "b".to_owned());
            }),
        ] {
            assert_ne!(plain, changed);
        }
    }
}
