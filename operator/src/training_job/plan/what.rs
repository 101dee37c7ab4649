//! What a plan says.

use contract::attempt::Attempt;
use crds::names;
use crds::v1alpha1::{FailureRecord, FetchFailure, FetchStatus};
use jiff::Timestamp;

use super::super::back_off::Restarts;
use super::super::queue::QueueStep;
use super::super::restart::Failure;
use super::super::validate::InvalidSpec;
use super::super::waiting::WaitingOn;

/// What is to be done for a job.
#[expect(
    clippy::struct_excessive_bools,
    reason = "things to do or not to do, in any combination"
)]
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The attempt that the job is in once this plan is carried out.
    pub attempt: Attempt,
    /// Where the job stands.
    pub phase: Phase,
    /// Whether to write the frozen configuration.
    pub freeze: bool,
    /// Whether to create the Service.
    pub expose: bool,
    /// Claims to make.
    pub claims: Vec<ClaimFor>,
    /// The number of the pod to create that fetches the data set.
    pub fetch: Option<u32>,
    /// How the fetch of the data set stands then, where there is one.
    pub fetch_status: Option<FetchStatus>,
    /// Pods to create, in the present attempt.
    pub create: Vec<NewPod>,
    /// Pods of earlier incarnations, and those whose place another takes: they leave the Service and are deleted.
    pub retire: Vec<Retired>,
    /// Pods of a job that has ended and are deleted.
    pub stop: Vec<String>,
    /// The restarts up to its attempt.
    pub restarts: Restarts,
    /// The failures that the status does not know yet.
    pub failures: Vec<FailureRecord>,
    /// Whether evictions need not be kept off the workers any more, where they were.
    pub unguard: bool,
    /// What Kueue is told.
    pub queue: Option<QueueStep>,
    /// Whether to delete the job itself.
    pub delete_job: bool,
    /// When to plan again although nothing changes.
    pub wake_at: Option<Timestamp>,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// It is being deleted; the garbage collector does the rest.
    Deleting,
    /// It has ended, and its status says so.
    Ended,
    /// It cannot begin.
    Blocked(WaitingOn),
    /// Its workers are being created, or they start, or they work.
    Gang,
    /// The data set is fetched; the workers begin when it is there.
    Fetching(WaitingOn),
    /// The pod that fetches failed.
    FetchFailed(WaitingOn),
    /// A worker failed; the others' results are awaited.
    Settling,
    /// All workers are replaced.
    Restarting(Failure),
    /// Those that are gone are replaced; the others keep their pods and wait.
    Replacing {
        /// Why.
        failure: Failure,
        /// Their indexes.
        workers: Vec<u32>,
    },
    /// Nothing runs until it is time for the workers that replace the failed ones.
    BackingOff(WaitingOn),
    /// Nothing runs until the job's queue lets it.
    Queued(WaitingOn),
    /// The workers are stopped until the job is resumed, and then until they have stopped.
    Suspended,
    /// Every worker has succeeded.
    Complete,
    /// It fails now.
    Failed(JobFailure),
}

/// Why a job fails.
#[derive(Clone, Debug, PartialEq)]
pub enum JobFailure {
    /// Its spec cannot be obeyed.
    Invalid(InvalidSpec),
    /// A worker's failure would only repeat itself.
    Permanent(Failure),
    /// A worker failed and no restart is left.
    Exhausted(Failure),
    /// The data set cannot be fetched.
    NotFetched(FetchFailure),
    /// Fetching the data set failed and no try is left.
    FetchExhausted(FetchFailure),
    /// It took longer than so many seconds.
    Overdue(u32),
}

/// What a claim is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimFor {
    /// The results.
    Output,
    /// The data set that is fetched.
    Dataset,
}

impl ClaimFor {
    /// The claim's name.
    pub fn name(self, job: &str) -> String {
        match self {
            Self::Output => names::output_claim(job),
            Self::Dataset => names::dataset_claim(job),
        }
    }

    /// The field that would use a claim of that name which is there already.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Output => "output.persistentVolumeClaim",
            Self::Dataset => "dataset.fetchTo.persistentVolumeClaim",
        }
    }
}

/// A pod to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPod {
    /// Which worker.
    pub index: u32,
    /// Which pod of that worker.
    pub number: u32,
}

/// A pod to give up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Its name.
    pub name: String,
    /// Whether it still has to leave the Service, for those that are in it.
    pub release: bool,
    /// Whether it still has to be deleted.
    pub delete: bool,
}

impl Plan {
    pub(in crate::training_job) fn idle(
        phase: Phase,
        attempt: Attempt,
        restarts: Restarts,
    ) -> Self {
        Self {
            attempt,
            phase,
            freeze: false,
            expose: false,
            claims: Vec::new(),
            fetch: None,
            fetch_status: None,
            create: Vec::new(),
            retire: Vec::new(),
            stop: Vec::new(),
            restarts,
            failures: Vec::new(),
            unguard: false,
            queue: None,
            delete_job: false,
            wake_at: None,
        }
    }

    /// Whether carrying it out changes the cluster, or ends or restarts the job. Such a plan is made from
    /// a fresh read.
    pub fn acts(&self) -> bool {
        self.changes_objects()
            || matches!(
                self.phase,
                Phase::Restarting(_)
                    | Phase::Replacing { .. }
                    | Phase::FetchFailed(_)
                    | Phase::Complete
                    | Phase::Failed(_)
            )
    }

    pub(super) fn make_nothing(&mut self) {
        self.freeze = false;
        self.expose = false;
        self.claims = Vec::new();
    }

    pub(in crate::training_job) fn wake_by(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    /// Whether it has to be written down before it is carried out.
    pub fn is_a_decision(&self) -> bool {
        match self.phase {
            Phase::Restarting(_)
            | Phase::Replacing { .. }
            | Phase::FetchFailed(_)
            | Phase::Failed(_)
            | Phase::Complete => true,
            Phase::Suspended | Phase::Queued(_) => !self.retire.is_empty() || !self.stop.is_empty(),
            _ => false,
        }
    }

    /// Whether it ends the job.
    pub fn ends(&self) -> bool {
        matches!(self.phase, Phase::Complete | Phase::Failed(_))
    }

    /// Whether carrying it out creates, changes or deletes anything.
    pub fn changes_objects(&self) -> bool {
        self.freeze
            || self.expose
            || !self.claims.is_empty()
            || self.fetch.is_some()
            || !self.create.is_empty()
            || !self.retire.is_empty()
            || !self.stop.is_empty()
            || self.unguard
            || self.queue.is_some()
            || self.delete_job
    }
}
