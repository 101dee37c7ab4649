//! What a job waits for. Status, events, log and tests share these words.

use crds::conditions::Reason;
use crds::v1alpha1::Gang;
use jiff::Timestamp;

use super::status::shorten;

/// What keeps a worker, or the whole job, from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitingOn {
    /// An object of the name the job needs exists and is not the job's.
    NameTaken {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A claim of the name the job needs exists and is not the job's.
    ClaimTaken {
        /// Its name.
        name: String,
        /// The field that would use it.
        field: &'static str,
    },
    /// The data set is fetched.
    Fetching {
        /// By this pod.
        pod: String,
    },
    /// The pod that fetches the data set does not run yet.
    FetchPod {
        /// Its name.
        pod: String,
        /// What it waits for.
        what: Box<WaitingOn>,
    },
    /// Fetching the data set failed and is tried again.
    FetchBackOff {
        /// Why it failed, in a word.
        reason: String,
        /// In a sentence.
        message: String,
        /// Seconds that the next try waits.
        seconds: u32,
    },
    /// The API server refused to create pods or what they need, for example because of a quota.
    CreateRefused {
        /// What it said.
        message: String,
    },
    /// An image cannot be pulled.
    ImagePull {
        /// The kubelet's words.
        message: String,
    },
    /// A container cannot be created.
    ContainerCreate {
        /// The kubelet's words.
        message: String,
    },
    /// A claim is missing or not bound.
    Volume {
        /// The scheduler's words.
        message: String,
    },
    /// No node can take a pod.
    Unschedulable {
        /// The scheduler's words.
        message: String,
    },
    /// The claims of devices are not there, before which no node is looked for.
    Devices {
        /// What makes them, or what they are.
        claims: String,
    },
    /// No scheduler has looked at the pod.
    Scheduler {
        /// The one that is to.
        name: String,
        /// When the pod was created.
        since: Timestamp,
    },
    /// Images are pulled, volumes mounted, containers created.
    ContainersStarting,
    /// Pods are being created.
    PodCreation,
    /// The job's queue has no room for it, or wants its room back.
    Queue {
        /// The `LocalQueue`.
        queue: String,
        /// Kueue's words, or those of the API server.
        message: Option<String>,
    },
    /// The scheduler that the spec asks for is not there.
    GangUnavailable {
        /// What the spec asks for.
        gang: Gang,
        /// The API group of its `PodGroup`.
        group: &'static str,
        /// The versions that would do.
        versions: &'static [&'static str],
    },
    /// The last restarts brought the run no further.
    BackOff {
        /// Restarts before the latest that led to none.
        fruitless: u32,
        /// Seconds that the latest waits.
        seconds: u32,
    },
    /// A worker failed; the others' results are awaited for a moment, because the first result is often
    /// only the echo of another worker's failure.
    OtherResults,
}

impl WaitingOn {
    /// A job in this queue, with Kueue's words.
    pub fn queue(queue: &str, message: Option<&str>) -> Self {
        Self::Queue {
            queue: queue.to_owned(),
            message: message
                .filter(|text| !text.is_empty())
                .map(|text| shorten(text, 512)),
        }
    }

    /// The condition reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::NameTaken { .. } | Self::ClaimTaken { .. } => Reason::NameTaken,
            Self::Fetching { .. } => Reason::FetchingDataset,
            Self::FetchPod { what, .. } => match what.reason() {
                Reason::ContainersStarting | Reason::CreatingPods => Reason::FetchingDataset,
                other => other,
            },
            Self::CreateRefused { .. } => Reason::CreateRefused,
            Self::ImagePull { .. } => Reason::ImagePullFailed,
            Self::ContainerCreate { .. } => Reason::ContainerCreateFailed,
            Self::Volume { .. } => Reason::VolumeNotReady,
            Self::Unschedulable { .. } => Reason::Unschedulable,
            Self::Devices { .. } => Reason::DevicesNotClaimed,
            Self::Scheduler { .. } => Reason::WaitingForScheduler,
            Self::ContainersStarting => Reason::ContainersStarting,
            Self::PodCreation => Reason::CreatingPods,
            Self::Queue { .. } => Reason::Queued,
            Self::GangUnavailable { .. } => Reason::GangUnavailable,
            Self::BackOff { .. } | Self::FetchBackOff { .. } => Reason::BackingOff,
            Self::OtherResults => Reason::SomeEnded,
        }
    }

    /// The reason in a sentence; what a user can do is in it where there is something.
    pub fn message(&self) -> String {
        match self {
            Self::NameTaken { kind, name } => format!(
                "a {kind} named {name} exists and does not belong to this job: delete it or give the job another name (one left by an earlier job of this name goes by itself)"
            ),
            Self::ClaimTaken { name, field } => format!(
                "a PersistentVolumeClaim named {name} exists and does not belong to this job: name it in {field} to use it, delete it, or give the job another name"
            ),
            Self::Fetching { pod } => {
                format!("the pod {pod} fetches the data set; its log says how far it is")
            }
            Self::FetchPod { pod, what } => {
                format!("the pod {pod} is to fetch the data set: {}", what.message())
            }
            Self::FetchBackOff {
                reason,
                message,
                seconds,
            } => format!(
                "fetching the data set failed, waiting {seconds} s before the next try: {reason}: {message}"
            ),
            Self::CreateRefused { message } => {
                format!(
                    "the API server refused to create what the job needs, trying again: {message}"
                )
            }
            Self::ImagePull { message } => format!("an image cannot be pulled: {message}"),
            Self::ContainerCreate { message } => {
                format!("a container cannot be created: {message}")
            }
            Self::Volume { message } => format!("a volume is not ready: {message}"),
            Self::Unschedulable { message } => format!("no node can take the pod: {message}"),
            Self::Devices { claims } => format!(
                "no node is looked for before the pod's claims of devices are there: look whether there is a {claims}; the pod's events may say more"
            ),
            Self::Scheduler { name, .. } => format!(
                "the scheduler {name} has not looked at the pod: look whether one of that name runs (workers.template.schedulerName)"
            ),
            Self::ContainersStarting => {
                "images are being pulled, volumes mounted and containers started".to_owned()
            }
            Self::PodCreation => "the pods are being created".to_owned(),
            Self::GangUnavailable {
                gang,
                group,
                versions,
            } => format!(
                "scheduling.gang is {}, but the API server serves no PodGroup of {group}/{}: install what brings it (the chart's gangScheduling.enabled must be true, too), or create the job anew with auto or None",
                gang.as_str(),
                versions.join(" or ")
            ),
            Self::Queue { queue, message } => match message {
                Some(message) => format!("the job waits in the queue {queue}: {message}"),
                None => format!("the job waits in the queue {queue}"),
            },
            Self::BackOff { fruitless, seconds } => {
                let times = match fruitless {
                    1 => "the restart before".to_owned(),
                    n => format!("the {n} restarts before"),
                };
                format!(
                    "{times} brought the run no further: waiting {seconds} s before the next one"
                )
            }
            Self::OtherResults => {
                "a worker has ended without success; waiting a moment for the results of the others"
                    .to_owned()
            }
        }
    }

    /// How much a user should know of it, when workers wait for different things: higher is more.
    fn urgency(&self) -> u8 {
        match self {
            Self::ContainersStarting => 0,
            Self::PodCreation | Self::Fetching { .. } => 1,
            Self::FetchPod { what, .. } => what.urgency(),
            Self::Devices { .. }
            | Self::Scheduler { .. }
            | Self::Queue { .. }
            | Self::BackOff { .. }
            | Self::FetchBackOff { .. }
            | Self::OtherResults => 2,
            Self::Unschedulable { .. } => 3,
            Self::Volume { .. } => 4,
            Self::ContainerCreate { .. } => 5,
            Self::ImagePull { .. } => 6,
            Self::CreateRefused { .. } | Self::GangUnavailable { .. } => 7,
            Self::NameTaken { .. } | Self::ClaimTaken { .. } => 8,
        }
    }
}

/// One line for all waiting workers: the most urgent reason, how many workers share it, and its message.
pub fn summary(waiting: &[(u32, WaitingOn)], workers: u32) -> Option<(Reason, String)> {
    let (index, worst) = waiting
        .iter()
        .rev()
        .max_by_key(|(_, waiting_on)| waiting_on.urgency())?;
    let same = waiting
        .iter()
        .filter(|(_, waiting_on)| waiting_on.reason() == worst.reason())
        .count();
    let who = match same {
        1 => format!("worker {index}"),
        n => format!("{n} of {workers} workers, first worker {index}"),
    };
    Some((worst.reason(), format!("{who}: {}", worst.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_urgent_reason_is_told_with_its_first_worker() {
        let pull = |text: &str| WaitingOn::ImagePull {
            message: text.to_owned(),
        };
        let waiting = [
            (0, WaitingOn::ContainersStarting),
            (1, pull("not found")),
            (3, pull("denied")),
        ];
        let (reason, message) = summary(&waiting, 4).expect("some wait");
        assert_eq!(Reason::ImagePullFailed, reason);
        assert_eq!(
            "2 of 4 workers, first worker 1: an image cannot be pulled: not found",
            message
        );
        assert_eq!(None, summary(&[], 4));
    }
}
