//! Condition types and reasons.
//!
//! Ten conditions, all present from the first reconcile on, so that `kubectl wait` and other programs
//! find them whatever their status:
//!
//! | type         | True means                                                                      |
//! |--------------|---------------------------------------------------------------------------------|
//! | Accepted     | the spec is valid, and configuration and images are frozen                      |
//! | Admitted     | the job's queue lets its workers run, or it waits in none                       |
//! | Scheduled    | every worker has a node                                                         |
//! | `WorkersReady` | the container of every worker runs; while False, the message says what is missing |
//! | `PreflightPassed` | the workers found what they need, and each other: their ranks were started     |
//! | Running      | the gang works: reason `Starting` before the first training step of the attempt, then `Training` |
//! | Restarting   | a worker failed and all are being replaced; the message says which and why      |
//! | Suspended    | the workers are stopped because `spec.suspend` is true                          |
//! | Complete     | every worker ended with success (terminal)                                      |
//! | Failed       | the job ended without success (terminal); the reason is the failure's word      |
//!
//! `Complete` and `Failed` are batch/v1 Job's names, so what waits for a Job can wait for this. Progress
//! inside a run is not a condition: it is in `status.progress`, and would change conditions all the time.

/// A condition's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The spec is valid, and configuration and images are frozen.
    Accepted,
    /// The job's queue lets its workers run, or it waits in none.
    Admitted,
    /// Every worker has a node.
    Scheduled,
    /// The container of every worker runs.
    WorkersReady,
    /// The workers found what they need, and each other.
    PreflightPassed,
    /// The gang works.
    Running,
    /// A worker failed and all are being replaced.
    Restarting,
    /// The workers are stopped because the spec says so.
    Suspended,
    /// Every worker ended with success.
    Complete,
    /// The job ended without success.
    Failed,
}

impl ConditionType {
    /// All types, in the order in which a status lists them.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::Admitted,
        Self::Scheduled,
        Self::WorkersReady,
        Self::PreflightPassed,
        Self::Running,
        Self::Restarting,
        Self::Suspended,
        Self::Complete,
        Self::Failed,
    ];

    /// The word in `status.conditions[].type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Admitted => "Admitted",
            Self::Scheduled => "Scheduled",
            Self::WorkersReady => "WorkersReady",
            Self::PreflightPassed => "PreflightPassed",
            Self::Running => "Running",
            Self::Restarting => "Restarting",
            Self::Suspended => "Suspended",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// A condition's reason, besides the words of `contract::exit::FailureReason`, which are used as
        /// they are by Failed and Restarting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name),+
        }

        impl Reason {
            /// All reasons, for tests and documentation.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The word in `status.conditions[].reason`.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name)),+
                }
            }
        }
    };
}

reasons! {
    /// Accepted: configuration and images are frozen.
    ConfigurationFrozen,
    /// Accepted, Failed: a setting cannot be obeyed.
    InvalidSpec,
    /// Accepted, `WorkersReady`: an object of the name the job needs exists and is not the job's.
    NameTaken,
    /// Admitted: the job waits in no queue.
    NotQueued,
    /// Admitted: the queue lets the workers run.
    QuotaReserved,
    /// Accepted, Admitted, Scheduled, `WorkersReady`, `PreflightPassed`, Running: the job waits in its queue.
    Queued,
    /// Scheduled: every worker has a node.
    NodesFound,
    /// Scheduled, `WorkersReady`: nobody here can schedule the workers together as the spec wants it.
    GangUnavailable,
    /// Scheduled, `WorkersReady`: pods are not created yet.
    CreatingPods,
    /// Accepted, Scheduled, `WorkersReady`: the API server refused to create pods or what they need, for example because of a
    /// quota.
    CreateRefused,
    /// Scheduled, `WorkersReady`: no node can take a pod.
    Unschedulable,
    /// Scheduled, `WorkersReady`: a PersistentVolumeClaim is not bound or not there.
    VolumeNotReady,
    /// Scheduled, `WorkersReady`: claims of devices are not there.
    DevicesNotClaimed,
    /// Scheduled, `WorkersReady`: no scheduler has looked at a pod.
    WaitingForScheduler,
    /// `WorkersReady`: an image cannot be pulled.
    ImagePullFailed,
    /// `WorkersReady`: a container cannot be created, for example because a volume does not mount.
    ContainerCreateFailed,
    /// `WorkersReady`: images are pulled, volumes mounted, containers created.
    ContainersStarting,
    /// Scheduled, `WorkersReady`: the data set is fetched before the workers begin.
    FetchingDataset,
    /// `WorkersReady`: the container of every worker runs or has succeeded.
    AllRunning,
    /// `WorkersReady`: a worker has ended without success, and the results of the others are awaited.
    SomeEnded,
    /// `PreflightPassed`: the workers look around, and for each other.
    Checking,
    /// `PreflightPassed`: workers run and do not find worker 0.
    NotJoined,
    /// `PreflightPassed`: workers run and do not answer the operator.
    NotReachable,
    /// `PreflightPassed`: the ranks were started.
    RanksStarted,
    /// Running: no training step was done in this attempt yet.
    Starting,
    /// Running: training steps are being done.
    Training,
    /// `PreflightPassed`, Running: not all workers run.
    WorkersNotReady,
    /// `WorkersReady`, Running, Restarting: workers are being replaced.
    Restarting,
    /// Restarting: no worker has failed.
    NoRestart,
    /// Restarting: the workers that replaced the failed gang run.
    Restarted,
    /// `WorkersReady`, Running, Suspended: the spec says that the job waits.
    JobSuspended,
    /// Suspended: the spec does not say that the job waits.
    NotSuspended,
    /// Suspended: the job waited and goes on.
    JobResumed,
    /// Complete: every worker ended with success.
    WorkersSucceeded,
    /// Complete, Failed: the job has not ended.
    NotFinished,
    /// All but Accepted and Complete: the job is complete.
    JobComplete,
    /// All but Accepted and Failed: the job has failed.
    JobFailed,
    /// Failed: the job took longer than `activeDeadlineSeconds`.
    DeadlineExceeded,
    /// Failed: a worker failed again after the last restart that the failure policy allows.
    RestartLimitReached,
    /// Scheduled, `WorkersReady`: the last restarts brought the run no further, so the next one waits.
    BackingOff,
    /// Restarting: a worker used more memory than its limit allows.
    OOMKilled,
    /// Restarting: the pod of a worker was deleted.
    PodDeleted,
    /// Restarting: the pod of a worker was evicted, preempted or refused by its node.
    PodEvicted,
    /// Running: a program that reports no progress runs.
    ProgramRunning,
    /// Restarting: the other workers lost touch with a worker.
    WorkerLost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_camel_case_words_that_the_api_server_accepts() {
        for reason in Reason::ALL {
            let word = reason.as_str();
            assert!(word.starts_with(|c: char| c.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|c| c.is_ascii_alphanumeric()), "{word}");
        }
    }
}
