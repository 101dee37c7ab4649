//! Reads the cluster into plain data. The only module that does.

use std::collections::HashMap;

use contract::config::{ConfigError, JobConfig, JobIdentity};
use contract::progress::AgentProgress;
use contract::spec::DataFile;
use crds::conditions::{ConditionType, Reason};
use crds::names;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};

use super::gang::Served;
use super::kubernetes::is_not_found;
use super::pods::{PodState, PodView};
use super::prefetch::FetchView;
use super::queue::{self, QueueView};
use super::waiting::WaitingOn;
use crate::kueue::{QUEUE_LABEL, ResourceFlavor, Workload};
use crate::lean::Lean;
use crate::metadata::owned_by;

/// A job and everything around it, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Which job.
    pub id: JobIdentity,
    /// Its generation.
    pub generation: Option<i64>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its status as it stands.
    pub status: YoloTrainingJobStatus,
    /// Its ConfigMap.
    pub config: ConfigView,
    /// Its Service.
    pub service: ServiceView,
    /// The claims that are made for it.
    pub claims: Claims,
    /// Whether the data file that it takes from a ConfigMap is there, as far as its first pods wait for that.
    pub has_data_file: bool,
    /// Its pods, of all incarnations, by worker and number.
    pub pods: Vec<PodView>,
    /// Worker and number of pods that an earlier job of this name left and that still hold their names.
    pub strangers: Vec<(u32, u32)>,
    /// Who can schedule workers together here; known only from a fresh read.
    pub served: Option<Served>,
    /// What stands in a queue for it.
    pub queue: QueueView,
    /// The pods that fetch its data set, by number.
    pub fetch: Vec<FetchView>,
    /// Numbers of those that an earlier job of this name left.
    pub fetch_strangers: Vec<u32>,
    /// What the agents last said.
    pub progress: Option<AgentProgress>,
    /// The incarnation none of whose agents has answered for long.
    pub silent: Option<u32>,
}

/// The job's ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub enum ConfigView {
    /// There is none.
    Absent,
    /// There should be one; its content was not read.
    Present,
    /// Its content.
    Frozen(Box<JobConfig>),
    /// One of that name belongs to somebody else.
    Foreign,
}

/// The claims that are made for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The one for its results.
    pub output: ClaimView,
    /// The one that its data set is fetched to.
    pub dataset: ClaimView,
}

impl Claims {
    /// All alike.
    pub fn all(view: ClaimView) -> Self {
        Self {
            output: view,
            dataset: view,
        }
    }
}

/// A claim that the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimView {
    /// There is none.
    Absent,
    /// It is there, or the job has no need of it.
    Present,
    /// One of that name belongs to somebody else.
    Foreign,
}

/// The job's Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceView {
    /// There is none.
    Absent,
    /// It is there.
    Present,
    /// One of that name belongs to somebody else.
    Foreign,
}

/// The cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// The job has no namespace or uid: not an object of an API server.
    #[error("the object has no namespace or no uid")]
    NoIdentity,
    /// The job itself.
    #[error("reading the job failed")]
    Job(#[source] kube::Error),
    /// Its pods.
    #[error("listing the job's pods failed")]
    Pods(#[source] kube::Error),
    /// Its Service.
    #[error("reading the Service {name} failed")]
    Service {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: kube::Error,
    },
    /// A claim.
    #[error("reading the PersistentVolumeClaim {name} failed")]
    Claim {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: kube::Error,
    },
    /// Its ConfigMap.
    #[error("reading the ConfigMap {name} failed")]
    ConfigMap {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: kube::Error,
    },
    /// The ConfigMap belongs to the job and cannot be understood.
    #[error(
        "the ConfigMap {name} cannot be used; it was written by another version or changed by hand"
    )]
    Config {
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: ConfigError,
    },
    /// What stands in a queue for it, or what the queue gives.
    #[error("reading the {kind} {name} of Kueue failed")]
    Queue {
        /// The kind of object.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What went wrong.
        #[source]
        source: kube::Error,
    },
    /// Which kinds of objects there are.
    #[error("asking the API server for its kinds of PodGroup failed")]
    Served(#[source] kube::Error),
    /// The job is gone.
    #[error("the job is gone")]
    Gone,
}

/// When the end of a pod was first seen, by pod uid. Kept for one job between its reconciles.
pub type EndsSeen = HashMap<String, Timestamp>;

/// What the caches know: the job, its pods, whether its Service is there.
///
/// Pods are those that carry the job's name; those of another uid are told apart here.
pub fn from_cache<'a>(
    job: &YoloTrainingJob,
    pods: impl IntoIterator<Item = &'a Pod>,
    service: ServiceView,
    queue: QueueView,
    progress: Option<AgentProgress>,
) -> Result<Observed, ObserveError> {
    let id = identity(job)?;
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let (fetch, fetch_strangers) = fetches(&pods, &id.uid);
    let (own, strangers) = workers(pods, &id.uid);
    let status = job.status.clone().unwrap_or_default();
    let frozen = crate::conditions::holds(&status.conditions, ConditionType::Accepted);
    Ok(Observed {
        generation: job.metadata.generation,
        deleting: job.metadata.deletion_timestamp.is_some(),
        config: if frozen {
            ConfigView::Present
        } else {
            ConfigView::Absent
        },
        service,
        // Nothing tells when a claim goes, and a job that runs has no need to know.
        claims: Claims::all(if frozen {
            ClaimView::Present
        } else {
            ClaimView::Absent
        }),
        has_data_file: true,
        pods: own,
        strangers,
        served: None,
        queue,
        fetch,
        fetch_strangers,
        progress,
        silent: None,
        status,
        id,
    })
}

/// What the API server says now.
pub async fn fresh(
    client: &Client,
    id: &JobIdentity,
    progress: Option<AgentProgress>,
) -> Result<(YoloTrainingJob, Observed), ObserveError> {
    let namespace = &id.namespace;
    let jobs = Api::<YoloTrainingJob>::namespaced(client.clone(), namespace);
    let pods = Api::<Lean<Pod>>::namespaced(client.clone(), namespace);
    let services = Api::<Service>::namespaced(client.clone(), namespace);
    let config_maps = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let service_name = names::service(&id.name);
    let config_name = names::config_map(&id.name);
    let selector = format!("{}={}", names::JOB_NAME, id.name);
    let list = ListParams::default().labels(&selector);
    let (job, pods, service, config_map) = futures::future::join4(
        jobs.get_opt(&id.name),
        pods.list(&list),
        services.get_opt(&service_name),
        config_maps.get_opt(&config_name),
    )
    .await;
    let job = job
        .map_err(ObserveError::Job)?
        .filter(|job| job.uid().as_deref() == Some(&id.uid))
        .ok_or(ObserveError::Gone)?;
    let pods = pods.map_err(ObserveError::Pods)?;
    let service = service.map_err(|source| ObserveError::Service {
        name: service_name,
        source,
    })?;
    let config_map = config_map.map_err(|source| ObserveError::ConfigMap {
        name: config_name,
        source,
    })?;
    let queue = queue_of(client, &job, id).await?;
    let mut observed = from_cache(
        &job,
        pods.items.iter().map(|Lean(pod)| pod),
        service_view(service.as_ref(), &id.uid),
        queue,
        progress,
    )?;
    observed.config = config_view(config_map.as_ref(), &id.uid)?;
    observed.claims = claims(client, id, &job).await?;
    if let Some(file) = job.spec.dataset.config_map.as_ref()
        && observed.pods.is_empty()
    {
        let found = config_maps.get_opt(&file.name).await;
        let found = found.map_err(|source| ObserveError::ConfigMap {
            name: file.name.clone(),
            source,
        })?;
        observed.has_data_file = holds(found.as_ref(), file);
    }
    Ok((job, observed))
}

/// What stands in a queue for the job, with what its pods carry because of that.
async fn queue_of(
    client: &Client,
    job: &YoloTrainingJob,
    id: &JobIdentity,
) -> Result<QueueView, ObserveError> {
    // Of a job that was never seen in a queue nothing is asked.
    let conditions = job.status.as_ref().map_or(&[][..], |s| &s.conditions);
    let admitted = crate::conditions::find(conditions, ConditionType::Admitted);
    let waited = admitted.is_some_and(|c| c.reason != Reason::NotQueued.as_str());
    let labelled = job.labels().contains_key(QUEUE_LABEL);
    if !labelled && !waited {
        return Ok(QueueView::Absent);
    }
    let name = names::workload(&id.name, &id.uid);
    let failed = |kind, name: &str| {
        let name = name.to_owned();
        move |source| ObserveError::Queue { kind, name, source }
    };
    let workloads = Api::<Workload>::namespaced(client.clone(), &id.namespace);
    let workload = match workloads.get_opt(&name).await {
        // Without the right to look (the chart's kueue.enabled) nothing of ours stands in a queue. A job that is
        // to wait in one has to know.
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Ok(if labelled {
                QueueView::Hidden
            } else {
                QueueView::Absent
            });
        }
        // So does nothing where Kueue is not installed.
        Err(error) if is_not_found(&error) => None,
        read => read.map_err(failed("Workload", &name))?,
    };
    let mut view = queue::view(workload.as_ref(), &id.uid);
    if let (QueueView::Entered(entry), Some(workload)) = (&mut view, &workload)
        && entry.admitted
    {
        let flavors = Api::<ResourceFlavor>::all(client.clone());
        let mut given = Vec::new();
        for flavor in queue::flavors(workload) {
            match flavors.get(&flavor).await {
                Err(kube::Error::Api(status)) if status.is_forbidden() => {
                    entry.unreadable = Some(format!(
                        "it is admitted, but the operator may not read the ResourceFlavor {flavor}: set the chart's kueue.clusterRole to true"
                    ));
                }
                read => given.push(read.map_err(failed("ResourceFlavor", &flavor))?.spec),
            }
        }
        entry.placement = queue::placement(workload, &given);
    }
    Ok(view)
}

/// The claims that the job's templates ask for; others are not read.
async fn claims(
    client: &Client,
    id: &JobIdentity,
    job: &YoloTrainingJob,
) -> Result<Claims, ObserveError> {
    let api = Api::<PersistentVolumeClaim>::namespaced(client.clone(), &id.namespace);
    let view = async |wanted: bool, name: String| {
        if !wanted {
            return Ok(ClaimView::Present);
        }
        match api.get_opt(&name).await {
            Ok(claim) => Ok(claim_view(claim.as_ref(), &id.uid)),
            Err(source) => Err(ObserveError::Claim { name, source }),
        }
    };
    let output = job.spec.output.volume_claim_template.is_some();
    let to = job.spec.dataset.fetch_to.as_ref();
    let dataset = to.is_some_and(|to| to.volume_claim_template.is_some());
    Ok(Claims {
        output: view(output, names::output_claim(&id.name)).await?,
        dataset: view(dataset, names::dataset_claim(&id.name)).await?,
    })
}

/// Fills in when each ended pod was first seen to have ended, and forgets pods that are gone.
pub fn remember_ends(observed: &mut Observed, seen: &mut EndsSeen, now: Timestamp) {
    let workers = observed.pods.iter_mut();
    let workers = workers.filter(|pod| pod.ended());
    let workers = workers.map(|pod| (&pod.uid, &mut pod.end_seen));
    let fetches = observed.fetch.iter_mut();
    let fetches = fetches.filter(|pod| pod.ended());
    let fetches = fetches.map(|pod| (&pod.uid, &mut pod.end_seen));
    let before = std::mem::take(seen);
    for (uid, end_seen) in workers.chain(fetches) {
        let time = *before.get(uid).unwrap_or(&now);
        seen.insert(uid.clone(), time);
        *end_seen = Some(time);
    }
}

/// How long a scheduler may take before it is told that it has not looked at a pod.
const TO_SCHEDULE: SignedDuration = SignedDuration::from_secs(10);

/// Gives schedulers time before they are spoken of, and returns when that is over.
pub fn allow_for_scheduling(observed: &mut Observed, now: Timestamp) -> Option<Timestamp> {
    let mut next = None;
    for pod in &mut observed.pods {
        let PodState::Waiting(WaitingOn::Scheduler { since, .. }) = &pod.state else {
            continue;
        };
        let late = *since + TO_SCHEDULE;
        if now < late {
            pod.state = PodState::Waiting(WaitingOn::ContainersStarting);
            next = next.into_iter().chain([late]).min();
        }
    }
    next
}

fn identity(job: &YoloTrainingJob) -> Result<JobIdentity, ObserveError> {
    Ok(JobIdentity {
        namespace: job.namespace().ok_or(ObserveError::NoIdentity)?,
        name: job.name_any(),
        uid: job.uid().ok_or(ObserveError::NoIdentity)?,
    })
}

/// The job's pods that fetch, and the numbers of those that an earlier job of its name left.
fn fetches(pods: &[&Pod], uid: &str) -> (Vec<FetchView>, Vec<u32>) {
    let mut own = Vec::new();
    let mut strangers = Vec::new();
    for pod in pods {
        match FetchView::of(pod) {
            Some(view)
                if pod
                    .labels()
                    .get(names::JOB_UID)
                    .is_some_and(|label| label == uid) =>
            {
                own.push(view);
            }
            Some(view) => strangers.push(view.number),
            None => {}
        }
    }
    own.sort_by_key(|pod| pod.number);
    (own, strangers)
}

/// The job's own pods, and what is left of an earlier job of its name.
fn workers<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    uid: &str,
) -> (Vec<PodView>, Vec<(u32, u32)>) {
    let mut own = Vec::new();
    let mut strangers = Vec::new();
    for pod in pods {
        let Some(view) = PodView::of(pod) else {
            continue;
        };
        if pod
            .labels()
            .get(names::JOB_UID)
            .is_some_and(|label| label == uid)
        {
            own.push(view);
        } else {
            strangers.push((view.index, view.number));
        }
    }
    own.sort_by_key(|pod| (pod.index, pod.number));
    (own, strangers)
}

/// Whether this ConfigMap holds the data file.
pub(crate) fn holds(config_map: Option<&ConfigMap>, file: &DataFile) -> bool {
    config_map.is_some_and(|map| {
        let text = map.data.as_ref();
        let binary = map.binary_data.as_ref();
        text.is_some_and(|data| data.contains_key(&file.key))
            || binary.is_some_and(|data| data.contains_key(&file.key))
    })
}

pub(crate) fn service_view(service: Option<&Service>, uid: &str) -> ServiceView {
    match service {
        None => ServiceView::Absent,
        Some(service) if owned_by(&service.metadata, uid) => ServiceView::Present,
        Some(_) => ServiceView::Foreign,
    }
}

/// A claim that outlives its job has no owner, but always the label.
pub(crate) fn claim_view(claim: Option<&PersistentVolumeClaim>, uid: &str) -> ClaimView {
    match claim {
        None => ClaimView::Absent,
        Some(claim)
            if claim
                .labels()
                .get(names::JOB_UID)
                .is_some_and(|label| label == uid) =>
        {
            ClaimView::Present
        }
        Some(_) => ClaimView::Foreign,
    }
}

pub(crate) fn config_view(
    config_map: Option<&ConfigMap>,
    uid: &str,
) -> Result<ConfigView, ObserveError> {
    let Some(config_map) = config_map else {
        return Ok(ConfigView::Absent);
    };
    if !owned_by(&config_map.metadata, uid) {
        return Ok(ConfigView::Foreign);
    }
    let text = config_map
        .data
        .as_ref()
        .and_then(|data| data.get(names::CONFIG_KEY))
        .map(String::as_str)
        .unwrap_or_default();
    JobConfig::from_json(text)
        .map(|config| ConfigView::Frozen(Box::new(config)))
        .map_err(|source| ObserveError::Config {
            name: config_map.name_any(),
            source,
        })
}
