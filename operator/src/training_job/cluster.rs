//! The effects of a reconcile. The pipeline knows the cluster only through this trait; tests run it on a
//! simulated one.

use contract::config::JobIdentity;
use contract::progress::AgentProgress;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};

use super::build::Prepared;
use super::observe::{ObserveError, Observed};
use super::status::Applied;
use crate::events::JobEvent;

/// Reads and writes what belongs to a job.
pub trait Cluster {
    /// The job and everything around it, as it is now and not as a cache remembers it.
    fn fresh(
        &self,
        id: &JobIdentity,
        progress: Option<AgentProgress>,
    ) -> impl Future<Output = Result<(YoloTrainingJob, Observed), ObserveError>> + Send;

    /// Carries out what was prepared, in the order of its fields.
    fn apply(
        &self,
        id: &JobIdentity,
        prepared: Prepared,
    ) -> impl Future<Output = Result<Applied, ApplyError>> + Send;

    /// Writes the whole status. The answer is the version of the job that has it, where versions can be compared.
    fn write_status(
        &self,
        id: &JobIdentity,
        status: &YoloTrainingJobStatus,
    ) -> impl Future<Output = Result<Option<u64>, WriteError>> + Send;

    /// Publishes an event. Nothing depends on it, so it cannot fail.
    fn publish(&self, id: &JobIdentity, event: JobEvent) -> impl Future<Output = ()> + Send;
}

/// An object could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Creating it.
    #[error("creating the {kind} {name} failed")]
    Create {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// Taking a pod out of the Service.
    #[error("taking the pod {name} out of the job's Service failed")]
    Release {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// Deleting the job after its time.
    #[error("deleting the job, which ended more than ttlSecondsAfterFinished ago, failed")]
    DeleteJob(#[source] Box<kube::Error>),
    /// Telling Kueue of the job.
    #[error("changing the status of the Workload {name} failed")]
    Tell {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
    /// Deleting an object.
    #[error("deleting the {kind} {name} failed")]
    Delete {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("patching the status failed")]
pub struct WriteError(#[source] pub Box<kube::Error>);
