//! The effects of a reconcile on a real cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::config::JobIdentity;
use contract::progress::AgentProgress;
use crds::names;
use crds::v1alpha1::{Gang, YoloTrainingJob, YoloTrainingJobStatus};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod, Secret, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt as _};
use rand::distr::{Alphanumeric, SampleString as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Mutex;

use super::build::{Prepared, PreparedStep};
use super::cluster::{ApplyError, Cluster, WriteError};
use super::gang::{self, Served};
use super::observe::{self, ObserveError, Observed};
use super::plan::Retired;
use super::queue::{self, QueueStep};
use super::status::Applied;
use crate::events::JobEvent;
use crate::kueue::{PriorityClassRef, QUEUE_LABEL, Workload};

/// How long it is remembered who can schedule workers together.
const SERVED_FOR: Duration = Duration::from_secs(30);

/// Requests in flight for one job. Pods of a gang are useless one by one, so they are made together; an
/// API server takes this many at once without queueing.
const IN_FLIGHT: usize = 64;

/// A cluster behind a client.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    recorder: Recorder,
    /// Who can schedule workers together, and when that was asked.
    served: Arc<Mutex<Option<(Instant, Served)>>>,
    /// Whether that is wanted here.
    gang_scheduling: bool,
}

impl KubeCluster {
    /// The cluster of this client; events are published through the recorder.
    pub fn new(client: Client, recorder: Recorder, gang_scheduling: bool) -> Self {
        Self {
            client,
            recorder,
            served: Arc::default(),
            gang_scheduling,
        }
    }

    /// Who can schedule the job's workers together. Asked again after a while: programs are installed.
    async fn served(&self, job: &YoloTrainingJob) -> Result<Served, ObserveError> {
        let alone = job.spec.workers.replicas < 2;
        if !self.gang_scheduling || alone || job.spec.scheduling.gang == Gang::None {
            return Ok(Served::default());
        }
        let mut known = self.served.lock().await;
        if let Some((at, served)) = &*known
            && at.elapsed() < SERVED_FOR
        {
            return Ok(served.clone());
        }
        let served = discover(&self.client).await.map_err(ObserveError::Served)?;
        *known = Some((Instant::now(), served.clone()));
        Ok(served)
    }

    fn api<K>(&self, id: &JobIdentity) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &id.namespace)
    }
}

impl Cluster for KubeCluster {
    async fn fresh(
        &self,
        id: &JobIdentity,
        progress: Option<AgentProgress>,
    ) -> Result<(YoloTrainingJob, Observed), ObserveError> {
        let (job, mut observed) = observe::fresh(&self.client, id, progress).await?;
        observed.served = Some(self.served(&job).await?);
        Ok((job, observed))
    }

    async fn apply(&self, id: &JobIdentity, prepared: Prepared) -> Result<Applied, ApplyError> {
        // Without `..`, so that a new field fails to compile here instead of never being applied.
        let Prepared {
            config_map,
            secret,
            service,
            retire,
            stop,
            budget,
            drop_budget,
            pod_group,
            pods,
            queue,
            delete_job,
        } = prepared;
        if delete_job {
            delete_own(&self.api::<YoloTrainingJob>(id), id).await?;
        }
        if let Some(config_map) = &config_map {
            create(&self.api::<ConfigMap>(id), config_map, "ConfigMap").await?;
        }
        if let Some(secret) = secret {
            create(&self.api::<Secret>(id), &with_token(secret), "Secret").await?;
        }
        if let Some(service) = &service {
            create(&self.api::<Service>(id), service, "Service").await?;
        }
        if let Some(name) = drop_budget {
            let api = self.api::<PodDisruptionBudget>(id);
            delete_one(&api, "PodDisruptionBudget", name).await?;
        }
        if let Some(budget) = &budget {
            let api = self.api::<PodDisruptionBudget>(id);
            create(&api, budget, "PodDisruptionBudget").await?;
        }
        let groups = pod_group.as_ref().map(|group| {
            let client = self.client.clone();
            Api::<DynamicObject>::namespaced_with(client, &id.namespace, &group.resource)
        });
        if let (Some(groups), Some(group)) = (&groups, &pod_group) {
            match create(groups, &group.object, "PodGroup").await {
                // Pods without their group would be nobody's.
                Err(ApplyError::Create { source, .. }) if is_refusal(&source) => {
                    let first = pods.first().map_or(0, |(index, _)| *index);
                    let message = format!("the PodGroup: {source}");
                    return Ok(Applied {
                        refused: Some((first, message)),
                        ..Applied::default()
                    });
                }
                made => made?,
            }
        }
        let api = self.api::<Pod>(id);
        release(&api, &retire).await?;
        let leaving = retire
            .into_iter()
            .filter(|pod| pod.delete)
            .map(|pod| pod.name);
        let deleted = delete(&api, leaving.chain(stop).collect());
        let (deleted, created) = futures::future::join(deleted, create_pods(&api, pods)).await;
        deleted?;
        let mut applied = created?;
        let before = pod_group.and_then(|group| group.before);
        if let (Some(groups), Some(name)) = (groups, before) {
            delete_one(&groups, "PodGroup", name).await?;
        }
        if let Some(step) = queue {
            applied.not_queued = in_queue(&self.client, id, step).await?;
        }
        Ok(applied)
    }

    async fn write_status(
        &self,
        id: &JobIdentity,
        status: &YoloTrainingJobStatus,
    ) -> Result<(), WriteError> {
        patch_status(&self.client, id, names::FIELD_MANAGER, &json!(status)).await
    }

    async fn publish(&self, id: &JobIdentity, event: JobEvent) {
        let regarding = ObjectReference {
            api_version: Some(YoloTrainingJob::api_version(&()).into_owned()),
            kind: Some(YoloTrainingJob::kind(&()).into_owned()),
            name: Some(id.name.clone()),
            namespace: Some(id.namespace.clone()),
            uid: Some(id.uid.clone()),
            ..ObjectReference::default()
        };
        tracing::info!(
            job = %format_args!("{}/{}", id.namespace, id.name),
            reason = event.reason,
            note = event.note,
            "job changed"
        );
        if let Err(error) = self.recorder.publish(&event.into_event(), &regarding).await {
            tracing::warn!(error = %crate::telemetry::chain(&error), "an event was not published");
        }
    }
}

/// The kinds of `PodGroup` that the API server serves.
async fn discover(client: &Client) -> Result<Served, kube::Error> {
    let mut found = Vec::new();
    for group in client.list_api_groups().await?.groups {
        for version in &group.versions {
            if !Served::wanted(&group.name).contains(&version.version.as_str()) {
                continue;
            }
            // A version may be served for other kinds alone.
            let kinds = client.list_api_group_resources(&version.group_version);
            match kinds.await {
                Ok(kinds) if kinds.resources.iter().any(|r| r.kind == "PodGroup") => {
                    found.push((group.name.clone(), version.version.clone()));
                }
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(gang::served(&found))
}

/// Applies a status as the given field manager. The uid keeps it off a new job of the same name.
pub async fn patch_status(
    client: &Client,
    id: &JobIdentity,
    manager: &str,
    status: &serde_json::Value,
) -> Result<(), WriteError> {
    let resource = ApiResource::erase::<YoloTrainingJob>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &id.namespace, &resource);
    let body = json!({
        "apiVersion": YoloTrainingJob::api_version(&()),
        "kind": YoloTrainingJob::kind(&()),
        "metadata": {"name": id.name, "uid": id.uid},
        "status": status,
    });
    let params = PatchParams::apply(manager).force();
    match api
        .patch_status(&id.name, &params, &Patch::Apply(&body))
        .await
    {
        // A job that was deleted meanwhile needs no status.
        Err(error) if is_not_found(&error) => Ok(()),
        other => other.map(drop).map_err(|error| WriteError(Box::new(error))),
    }
}

/// Creates an object that is written once. One that is there already is of an earlier try: the plan was
/// made from a read that did not have it, and the next one will judge it.
async fn create<K>(api: &Api<K>, object: &K, kind: &'static str) -> Result<(), ApplyError>
where
    K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    match api.create(&parameters(), object).await {
        Err(error) if !is_conflict(&error) => Err(ApplyError::Create {
            kind,
            name: object.meta().name.clone().unwrap_or_default(),
            source: Box::new(error),
        }),
        _ => Ok(()),
    }
}

/// The Secret with a token that nobody else knows.
fn with_token(secret: Secret) -> Secret {
    let token = Alphanumeric.sample_string(&mut rand::rng(), 43);
    Secret {
        string_data: Some([(names::GROUP_TOKEN_KEY.to_owned(), token)].into()),
        ..secret
    }
}

async fn create_pods(api: &Api<Pod>, pods: Vec<(u32, Pod)>) -> Result<Applied, ApplyError> {
    let results: Vec<_> = stream::iter(pods)
        .map(|(index, pod)| async move {
            let result = api.create(&parameters(), &pod).await;
            (index, pod.name_any(), result)
        })
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await;
    let mut applied = Applied::default();
    let mut refused = Vec::new();
    for (index, name, result) in results {
        match result {
            Ok(_) => applied.created.push((index, name)),
            // A pod of ours would have been seen by the read that the plan was made from, unless this is a
            // repeated request; then the next read shows it.
            Err(error) if is_conflict(&error) => {
                refused.push((index, format!("a pod named {name} exists already")));
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                refused.push((index, status.message.clone()));
            }
            Err(error) => {
                return Err(ApplyError::Create {
                    kind: "pod",
                    name,
                    source: Box::new(error),
                });
            }
        }
    }
    applied.refused = refused.into_iter().min();
    applied.created.sort();
    Ok(applied)
}

/// Takes pods out of the Service, so that the DNS names are free for their replacements.
async fn release(api: &Api<Pod>, retire: &[Retired]) -> Result<(), ApplyError> {
    let patch = json!({"metadata": {"labels": {names::ACTIVE: null}}});
    let patch = &Patch::Merge(&patch);
    let params = &PatchParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let active = retire.iter().filter(|pod| pod.release);
    let names: Vec<String> = active.map(|pod| pod.name.clone()).collect();
    stream::iter(names)
        .map(|name| async move {
            match api.patch_metadata(&name, params, patch).await {
                Err(error) if !is_not_found(&error) => Err(ApplyError::Release {
                    name,
                    source: Box::new(error),
                }),
                _ => Ok(()),
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Deletes pods gracefully: their workers may still write a checkpoint.
async fn delete(api: &Api<Pod>, names: Vec<String>) -> Result<(), ApplyError> {
    stream::iter(names)
        .map(|name| delete_one(api, "pod", name))
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

async fn delete_one<K>(api: &Api<K>, kind: &'static str, name: String) -> Result<(), ApplyError>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    match api.delete(&name, &DeleteParams::default()).await {
        Err(error) if !is_not_found(&error) => Err(ApplyError::Delete {
            kind,
            name,
            source: Box::new(error),
        }),
        _ => Ok(()),
    }
}

/// Deletes the job; the garbage collector takes what it owns.
async fn delete_own(api: &Api<YoloTrainingJob>, id: &JobIdentity) -> Result<(), ApplyError> {
    let only_this = Preconditions {
        uid: Some(id.uid.clone()),
        resource_version: None,
    };
    let params = DeleteParams::background().preconditions(only_this);
    match api.delete(&id.name, &params).await {
        // A new job of the same name is another one.
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(ApplyError::DeleteJob(Box::new(error))),
        Ok(_) => Ok(()),
    }
}

/// Tells Kueue of the job; returns why nothing could be put into its queue, when that is so.
async fn in_queue(
    client: &Client,
    id: &JobIdentity,
    step: PreparedStep,
) -> Result<Option<String>, ApplyError> {
    let api = Api::<Workload>::namespaced(client.clone(), &id.namespace);
    match step {
        PreparedStep::Create(workload) => enter(client, &api, *workload).await,
        PreparedStep::Change(name, QueueStep::Leave) => {
            delete_one(&api, "Workload", name).await?;
            Ok(None)
        }
        PreparedStep::Change(name, step) => {
            let told = tell(client, id, &name, &step).await;
            told.map_err(|source| ApplyError::Tell {
                name,
                source: Box::new(source),
            })?;
            Ok(None)
        }
    }
}

async fn enter(
    client: &Client,
    api: &Api<Workload>,
    mut workload: Workload,
) -> Result<Option<String>, ApplyError> {
    let name = workload.name_any();
    if let Some(class) = &workload.spec.priority_class_ref {
        match priority(client, class).await {
            Ok(value) => workload.spec.priority = Some(value),
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                return Ok(Some(format!("there is no {} {}", class.kind, class.name)));
            }
            Err(error) => {
                return Err(ApplyError::Create {
                    kind: "Workload",
                    name,
                    source: Box::new(error),
                });
            }
        }
    }
    match api.create(&parameters(), &workload).await {
        Err(error) if is_not_found(&error) => Ok(Some(format!(
            "Kueue is not installed (the API server knows no {}): install it, or remove the label {QUEUE_LABEL}",
            Workload::api_version(&())
        ))),
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
            Ok(Some(status.message.clone()))
        }
        Err(error) if !is_conflict(&error) => Err(ApplyError::Create {
            kind: "Workload",
            name,
            source: Box::new(error),
        }),
        _ => Ok(None),
    }
}

async fn priority(client: &Client, class: &PriorityClassRef) -> Result<i32, kube::Error> {
    let workload = Workload::version(&());
    let (version, plural) = if class.kind == "PriorityClass" {
        ("v1", "priorityclasses")
    } else {
        (workload.as_ref(), "workloadpriorityclasses")
    };
    let kind = GroupVersionKind::gvk(&class.group, version, &class.kind);
    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
    let classes = Api::<DynamicObject>::all_with(client.clone(), &resource);
    let found = classes.get(&class.name).await?;
    let value = found.data["value"].as_i64().unwrap_or_default();
    Ok(i32::try_from(value).unwrap_or_default())
}

/// Changes the status of a `Workload`. What is not ours in it is written back as it was read, and an object that
/// changed meanwhile is a conflict.
async fn tell(
    client: &Client,
    id: &JobIdentity,
    name: &str,
    step: &QueueStep,
) -> Result<(), kube::Error> {
    let resource = ApiResource::erase::<Workload>(&());
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &id.namespace, &resource);
    let Some(mut workload) = api.get_opt(name).await? else {
        return Ok(());
    };
    let generation = workload.metadata.generation;
    let status = &mut workload.data["status"];
    if status.is_null() {
        *status = json!({});
    }
    queue::tell(status, step, generation, Timestamp::now());
    workload.metadata.managed_fields = None;
    api.replace_status(name, &parameters(), &workload).await?;
    Ok(())
}

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden() || status.is_invalid())
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
