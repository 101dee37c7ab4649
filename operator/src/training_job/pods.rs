//! A pod as the planner sees it: what its labels and its container `worker` say.
//!
//! The pod's phase decides nothing where the container has a state, since sidecars may outlive it.

use contract::attempt::Attempt;
use contract::exit::FailureReason;
use contract::progress::{RankFailure, RunReport};
use contract::result::WorkerResult;
use crds::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};
use kube::ResourceExt as _;

use super::gang::DEFAULT_SCHEDULER;
use super::waiting::WaitingOn;

/// One pod of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Which worker it is.
    pub index: u32,
    /// Which pod of that worker, from 0.
    pub number: u32,
    /// The incarnation it was made for.
    pub incarnation: u32,
    /// The attempt it was made for.
    pub made_for: Attempt,
    /// Whether the job's Service gives it its DNS name.
    pub active: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The node it is on.
    pub node: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Whether all of it has ended: containers that others added, proxies for example, may outlive the worker.
    pub over: bool,
    /// What its worker does.
    pub state: PodState,
    /// When its end was first seen; the observer's clock, so that nodes' clocks do not matter.
    pub end_seen: Option<Timestamp>,
}

/// What a worker's container does.
#[derive(Clone, Debug, PartialEq)]
pub enum PodState {
    /// It does not run yet.
    Waiting(WaitingOn),
    /// It runs.
    Running,
    /// It ended with success.
    Succeeded(Option<Box<WorkerResult>>),
    /// It ended without success.
    Failed(Box<Ended>),
    /// The pod was taken away by the cluster before its container ended by itself.
    Evicted(String),
}

/// How a worker that failed ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The container's exit code; none when it never ran.
    pub exit_code: Option<i32>,
    /// Why, in a word.
    pub reason: FailureReason,
    /// Whether it was killed because it used more memory than its limit.
    pub out_of_limit: bool,
    /// Why, in a sentence.
    pub message: String,
    /// The global rank that failed first, when one is known.
    pub rank: Option<u32>,
    /// The termination message, when it was one.
    pub result: Option<Box<WorkerResult>>,
}

impl PodView {
    /// Reads a pod; `None` when it is no worker of ours.
    pub fn of(pod: &Pod) -> Option<Self> {
        let label = |name: &str| pod.labels().get(name);
        let job = label(names::JOB_NAME)?;
        let index = label(names::WORKER_INDEX)?.parse().ok()?;
        let incarnation = label(names::INCARNATION)?.parse().ok()?;
        let made_for = pod.annotations().get(names::ATTEMPT);
        let made_for = made_for.and_then(|text| text.parse().ok());
        let made_for = made_for.filter(|attempt: &Attempt| attempt.incarnation == incarnation);
        let name = pod.name_any();
        let status = pod.status.as_ref();
        Some(Self {
            number: names::worker_pod_number(job, index, &name)?,
            index,
            incarnation,
            made_for: made_for.unwrap_or(Attempt {
                incarnation,
                restart: 0,
            }),
            active: label(names::ACTIVE).is_some_and(|value| value == names::ACTIVE_VALUE),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            ip: status.and_then(|status| status.pod_ip.clone()),
            over: is_over(pod),
            state: match status.map(|status| state(status, names::WORKER_CONTAINER)) {
                None | Some(PodState::Waiting(WaitingOn::ContainersStarting)) => {
                    PodState::Waiting(unseen(pod).unwrap_or(WaitingOn::ContainersStarting))
                }
                Some(state) => state,
            },
            uid: pod.uid().unwrap_or_default(),
            name,
            end_seen: None,
        })
    }

    /// What its worker said of the run when it ended.
    pub fn last_words(&self) -> Option<&RunReport> {
        self.result()?.report.as_ref()
    }

    /// The latest attempt that it is known to have taken part in.
    pub fn attempt(&self) -> Attempt {
        let told = self.result().map(|result| result.attempt);
        told.filter(|told| told.incarnation == self.incarnation)
            .unwrap_or_default()
            .max(self.made_for)
    }

    /// The failure after which this attempt began in place, as the worker said when it ended.
    pub fn restarted_after(&self, attempt: Attempt) -> Option<&RankFailure> {
        let result = self.result().filter(|result| result.attempt == attempt);
        result?.restarted_after.as_ref()
    }

    fn result(&self) -> Option<&WorkerResult> {
        match &self.state {
            PodState::Succeeded(result) => result.as_deref(),
            PodState::Failed(ended) => ended.result.as_deref(),
            _ => None,
        }
    }

    /// Whether its container has ended.
    pub fn ended(&self) -> bool {
        matches!(
            self.state,
            PodState::Succeeded(_) | PodState::Failed(_) | PodState::Evicted(_)
        )
    }
}

/// Whether all containers of a pod have ended.
pub(super) fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase.is_some_and(|phase| matches!(phase, "Succeeded" | "Failed"))
}

/// What the container of this name does, by which the pod is judged.
pub(super) fn state(status: &PodStatus, name: &str) -> PodState {
    let evicted = eviction(status);
    let worker = container(status.container_statuses.as_ref(), name);
    if let Some(ended) = worker.and_then(terminated) {
        let result = ended.message.as_deref().and_then(WorkerResult::parse);
        if ended.exit_code == 0 {
            return PodState::Succeeded(result.map(Box::new));
        }
        if let Some(message) = evicted {
            return PodState::Evicted(message);
        }
        return PodState::Failed(Box::new(failure(ended, result)));
    }
    if let Some(message) = evicted {
        return PodState::Evicted(message);
    }
    let agent = container(
        status.init_container_statuses.as_ref(),
        names::AGENT_CONTAINER,
    );
    if let Some(ended) = agent.and_then(terminated)
        && ended.exit_code != 0
    {
        return PodState::Failed(Box::new(Ended {
            exit_code: None,
            reason: FailureReason::Internal,
            out_of_limit: false,
            message: format!(
                "the init container {} ended with exit code {}{}",
                names::AGENT_CONTAINER,
                ended.exit_code,
                last_words(ended)
            ),
            rank: None,
            result: None,
        }));
    }
    match status.phase.as_deref() {
        // Ended, but nothing is known of the container: the node refused or lost it.
        Some("Failed" | "Succeeded") => PodState::Evicted(
            status
                .message
                .clone()
                .or_else(|| status.reason.clone())
                .unwrap_or_else(|| "the pod ended before its container ran".to_owned()),
        ),
        _ if worker.is_some_and(running) => PodState::Running,
        _ => PodState::Waiting(waiting(status)),
    }
}

fn container<'a>(
    statuses: Option<&'a Vec<ContainerStatus>>,
    name: &str,
) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|status| status.name == name)
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn running(status: &ContainerStatus) -> bool {
    status
        .state
        .as_ref()
        .is_some_and(|state| state.running.is_some())
}

/// Why the cluster took the pod away, when it did.
fn eviction(status: &PodStatus) -> Option<String> {
    let disrupted = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True");
    if let Some(condition) = disrupted {
        // Deleting a pod by hand is no disruption of this kind; the API server's eviction is.
        return Some(
            condition
                .message
                .clone()
                .or_else(|| condition.reason.clone())
                .unwrap_or_else(|| "the pod was disrupted".to_owned()),
        );
    }
    let by_node = matches!(
        status.reason.as_deref(),
        Some("Evicted" | "NodeLost" | "Shutdown" | "NodeShutdown" | "Terminated" | "Preempting")
    );
    (by_node && status.phase.as_deref() == Some("Failed")).then(|| {
        status
            .message
            .clone()
            .or_else(|| status.reason.clone())
            .unwrap_or_default()
    })
}

fn failure(ended: &ContainerStateTerminated, result: Option<WorkerResult>) -> Ended {
    let exit_code = Some(ended.exit_code);
    if ended.reason.as_deref() == Some("OOMKilled") {
        return Ended {
            exit_code,
            reason: FailureReason::Killed,
            out_of_limit: true,
            message: "the worker used more memory than its limit allows and was killed: raise workers.resources.limits.memory, or lower training.batchSize or training.loaderThreads".to_owned(),
            rank: None,
            result: result.map(Box::new),
        };
    }
    if let Some(mut result) = result {
        // An agent that was itself killed cannot have written a reason; the code then speaks.
        let reason = result
            .reason
            .or_else(|| FailureReason::from_exit_code(ended.exit_code))
            .unwrap_or(FailureReason::Internal);
        return Ended {
            exit_code,
            reason,
            out_of_limit: false,
            message: std::mem::take(&mut result.message),
            rank: result.rank,
            result: Some(Box::new(result)),
        };
    }
    let started = !matches!(
        ended.reason.as_deref(),
        Some("StartError" | "ContainerCannotRun")
    );
    if !started {
        return Ended {
            exit_code,
            reason: FailureReason::Internal,
            out_of_limit: false,
            message: format!("the container could not be started{}", last_words(ended)),
            rank: None,
            result: None,
        };
    }
    Ended {
        exit_code,
        reason: FailureReason::from_exit_code(ended.exit_code).unwrap_or(FailureReason::Internal),
        out_of_limit: false,
        message: match ended.exit_code - 128 {
            signal @ 1..=64 => format!(
                "the container was ended by signal {signal}{}",
                last_words(ended)
            ),
            _ => format!(
                "the container ended with exit code {}{}",
                ended.exit_code,
                last_words(ended)
            ),
        },
        rank: None,
        result: None,
    }
}

/// The last line a container left behind: its termination message or the end of its log.
fn last_words(ended: &ContainerStateTerminated) -> String {
    let text = ended.message.as_deref().unwrap_or_default();
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    match line {
        Some(line) => format!(": {}", super::status::shorten(line.trim(), 512)),
        None => " and left no message".to_owned(),
    }
}

/// What a pod waits for that no scheduler has looked at: its claims of devices, before which none does, nor says so, or
/// the scheduler.
fn unseen(pod: &Pod) -> Option<WaitingOn> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    if spec.node_name.is_some() || conditions.any(|condition| condition.type_ == "PodScheduled") {
        return None;
    }
    let claims = spec.resource_claims.iter().flatten().filter_map(|claim| {
        let made = claim.resource_claim_template_name.as_ref();
        let made = made.map(|name| format!("ResourceClaimTemplate {name}"));
        let there = claim.resource_claim_name.as_ref();
        made.or(there.map(|name| format!("ResourceClaim {name}")))
    });
    let claims: Vec<_> = claims.collect();
    if claims.is_empty() {
        let name = spec.scheduler_name.as_deref();
        let name = name.unwrap_or(DEFAULT_SCHEDULER).to_owned();
        let since = pod.metadata.creation_timestamp.as_ref()?.0;
        return Some(WaitingOn::Scheduler { name, since });
    }
    Some(WaitingOn::Devices {
        claims: claims.join(" and a "),
    })
}

fn waiting(status: &PodStatus) -> WaitingOn {
    let containers = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    for status in containers {
        let Some(waiting) = status
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref())
        else {
            continue;
        };
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = || match waiting.message.as_deref() {
            Some(message) if !message.is_empty() => super::status::shorten(message, 512),
            _ => format!("{reason} (image {})", status.image),
        };
        match reason {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
            | "ImageInspectError" => {
                return WaitingOn::ImagePull { message: message() };
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return WaitingOn::ContainerCreate { message: message() };
            }
            _ => {}
        }
    }
    let unschedulable = status.conditions.iter().flatten().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && matches!(
                condition.reason.as_deref(),
                Some("Unschedulable" | "SchedulerError")
            )
    });
    match unschedulable.map(|condition| condition.message.clone().unwrap_or_default()) {
        Some(message) if message.to_lowercase().contains("persistentvolumeclaim") => {
            WaitingOn::Volume { message }
        }
        Some(message) => WaitingOn::Unschedulable { message },
        None => WaitingOn::ContainersStarting,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(status: &Value) -> PodState {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "digits-worker-1-2",
                "labels": {
                    names::JOB_NAME: "digits",
                    names::WORKER_INDEX: "1",
                    names::INCARNATION: "2",
                    names::ACTIVE: "true",
                },
            },
            "status": status,
        }))
        .expect("a pod");
        let view = PodView::of(&pod).expect("a worker");
        assert_eq!(
            (1, 2, 2, true),
            (view.index, view.number, view.incarnation, view.active)
        );
        view.state
    }

    fn ended(state: &Value) -> PodState {
        view(&json!({"phase": "Running", "containerStatuses": [{
            "name": "worker", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": state},
        }]}))
    }

    #[test]
    fn a_termination_message_tells_reason_and_rank() {
        let message = r#"{"version":1,"attempt":{"incarnation":0,"restart":0},"nodeRank":1,"reason":"InvalidDataset","rank":1,"message":"labels/7.txt line 3"}"#;
        let PodState::Failed(ended) = ended(&json!({"exitCode": 65, "message": message})) else {
            panic!("not failed");
        };
        assert_eq!(
            (
                FailureReason::InvalidDataset,
                Some(1),
                "labels/7.txt line 3",
                Some(65)
            ),
            (
                ended.reason,
                ended.rank,
                ended.message.as_str(),
                ended.exit_code
            )
        );
    }

    #[test]
    fn exit_codes_speak_when_there_is_no_message() {
        let killed = ended(&json!({"exitCode": 137, "reason": "OOMKilled"}));
        assert!(matches!(&killed, PodState::Failed(e)
            if e.reason == FailureReason::Killed && e.message.contains("limits.memory")));
        let crashed = ended(&json!({"exitCode": 139, "message": "a\nSegmentation fault\n"}));
        assert!(matches!(&crashed, PodState::Failed(e)
            if e.reason == FailureReason::Killed
                && e.message == "the container was ended by signal 11: Segmentation fault"));
        let unknown = ended(&json!({"exitCode": 1}));
        assert!(matches!(&unknown, PodState::Failed(e) if e.reason == FailureReason::Internal));
        let cannot = ended(
            &json!({"exitCode": 128, "reason": "StartError", "message": "exec: no such file"}),
        );
        assert!(matches!(&cannot, PodState::Failed(e)
            if e.reason == FailureReason::Internal && e.message.contains("exec: no such file")));
        assert_eq!(PodState::Succeeded(None), ended(&json!({"exitCode": 0})));
    }

    #[test]
    fn the_cluster_taking_a_pod_away_is_no_failure_of_the_worker() {
        let evicted =
            view(&json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        assert_eq!(PodState::Evicted("low on memory".to_owned()), evicted);
        let preempted = view(&json!({"phase": "Running", "conditions": [
            {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "message": "preempted"}]}));
        assert_eq!(PodState::Evicted("preempted".to_owned()), preempted);
        let refused = view(&json!({"phase": "Failed", "reason": "OutOfcpu"}));
        assert_eq!(PodState::Evicted("OutOfcpu".to_owned()), refused);
    }

    #[test]
    fn what_a_pod_waits_for_is_read_from_its_status() {
        let scheduling = |message: &str| {
            view(&json!({"phase": "Pending", "conditions": [
                {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]}))
        };
        assert!(matches!(
            scheduling("0/2 nodes are available: 2 Insufficient cpu."),
            PodState::Waiting(WaitingOn::Unschedulable { .. })
        ));
        assert!(matches!(
            scheduling("persistentvolumeclaim \"runs\" not found"),
            PodState::Waiting(WaitingOn::Volume { .. })
        ));
        let container = |reason: &str| {
            view(&json!({"phase": "Pending", "initContainerStatuses": [{
                "name": "agent", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason}}}]}))
        };
        assert_eq!(
            PodState::Waiting(WaitingOn::ImagePull {
                message: "ErrImagePull (image i:1)".to_owned()
            }),
            container("ErrImagePull")
        );
        assert_eq!(
            PodState::Waiting(WaitingOn::ContainersStarting),
            container("PodInitializing")
        );
    }

    #[test]
    fn a_pod_that_no_scheduler_looks_at_waits_for_its_claims_of_devices_or_for_that() {
        let state = |change: &dyn Fn(&mut Value)| {
            let mut pod = json!({
                "metadata": {
                    "name": "digits-worker-1-2",
                    "labels": {
                        names::JOB_NAME: "digits",
                        names::WORKER_INDEX: "1",
                        names::INCARNATION: "2",
                    },
                },
                "spec": {"containers": [], "resourceClaims": [
                    {"name": "gpu", "resourceClaimTemplateName": "one-gpu"},
                    {"name": "nic", "resourceClaimName": "shared-nic"},
                ]},
                "status": {"phase": "Pending"},
            });
            change(&mut pod);
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            PodView::of(&pod).expect("a worker").state
        };
        let devices = PodState::Waiting(WaitingOn::Devices {
            claims: "ResourceClaimTemplate one-gpu and a ResourceClaim shared-nic".to_owned(),
        });
        assert_eq!(devices, state(&|_| {}));
        assert_eq!(devices, state(&|pod| pod["status"] = json!({})));
        let starting = PodState::Waiting(WaitingOn::ContainersStarting);
        let late = |pod: &mut Value| {
            pod["spec"] = json!({"containers": [], "schedulerName": "mine"});
            pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        };
        let scheduler = WaitingOn::Scheduler {
            name: "mine".to_owned(),
            since: "2026-01-01T00:00:00Z".parse().expect("a time"),
        };
        assert_eq!(PodState::Waiting(scheduler), state(&late));
        assert_eq!(starting, state(&|pod| pod["spec"]["nodeName"] = "a".into()));
        let looked_at = |reason: &str| {
            state(&|pod| {
                pod["status"]["conditions"] = json!([{
                    "type": "PodScheduled", "status": "False", "reason": reason, "message": "2 cannot allocate all claims",
                }]);
            })
        };
        assert_eq!(starting, looked_at("SchedulingGated"));
        let message = "2 cannot allocate all claims".to_owned();
        assert_eq!(
            PodState::Waiting(WaitingOn::Unschedulable { message }),
            looked_at("Unschedulable")
        );
        let evicted = state(&|pod| pod["status"] = json!({"phase": "Failed", "reason": "Evicted"}));
        assert!(matches!(evicted, PodState::Evicted(_)), "{evicted:?}");
    }
}
