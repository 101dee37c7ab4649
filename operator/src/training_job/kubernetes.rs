//! The effects of a reconcile on a real cluster.

use contract::config::JobIdentity;
use contract::progress::AgentProgress;
use crds::names;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{
    ConfigMap, ObjectReference, PersistentVolumeClaim, Pod, Secret, Service,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::DynamicObject;
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt as _};
use rand::distr::{Alphanumeric, SampleString as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::build::Prepared;
use super::cluster::{ApplyError, Cluster, WriteError};
use super::observe::{self, ObserveError, Observed};
use super::plan::Retired;
use super::status::Applied;
use crate::events::JobEvent;

/// Requests in flight for one job. Pods of a gang are useless one by one, so they are made together; an
/// API server takes this many at once without queueing.
const IN_FLIGHT: usize = 64;

/// A cluster behind a client.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    recorder: Recorder,
}

impl KubeCluster {
    /// The cluster of this client; events are published through the recorder.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
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
        observe::fresh(&self.client, id, progress).await
    }

    async fn apply(&self, id: &JobIdentity, prepared: Prepared) -> Result<Applied, ApplyError> {
        // Without `..`, so that a new field fails to compile here instead of never being applied.
        let Prepared {
            config_map,
            claims,
            secret,
            service,
            retire,
            stop,
            fetch,
            pods,
            delete_job,
        } = prepared;
        if delete_job {
            delete_own(&self.api::<YoloTrainingJob>(id), id).await?;
        }
        if let Some(config_map) = &config_map {
            create(&self.api::<ConfigMap>(id), config_map, "ConfigMap").await?;
        }
        for claim in &claims {
            claim_new(&self.api(id), claim).await?;
        }
        if let Some(secret) = secret {
            create(&self.api::<Secret>(id), &with_token(secret), "Secret").await?;
        }
        if let Some(service) = &service {
            create(&self.api::<Service>(id), service, "Service").await?;
        }
        let api = self.api::<Pod>(id);
        release(&api, &retire).await?;
        let leaving = retire
            .into_iter()
            .filter(|pod| pod.delete)
            .map(|pod| pod.name);
        let deleted = delete(&api, leaving.chain(stop).collect());
        // Never both: workers begin when the data set is there. It is no worker, so what is created is not told;
        // the watch shows it.
        let created = async {
            let fetch = create_pods(&api, fetch.map(|pod| (0, pod)).into_iter().collect()).await?;
            let workers = create_pods(&api, pods).await?;
            Ok(Applied {
                refused: fetch.refused.or(workers.refused),
                ..workers
            })
        };
        let (deleted, created) = futures::future::join(deleted, created).await;
        deleted?;
        created
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

/// Applies a status as the given field manager. The uid keeps it off a new job of the same name.
pub async fn patch_status(
    client: &Client,
    id: &JobIdentity,
    manager: &str,
    status: &serde_json::Value,
) -> Result<(), WriteError> {
    let resource = kube::core::ApiResource::erase::<YoloTrainingJob>(&());
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

/// Creates a claim. One that is there already was not there a moment ago, so it is somebody else's, or of an
/// earlier try: what is mounted must not be a guess, so the next read decides.
async fn claim_new(
    api: &Api<PersistentVolumeClaim>,
    claim: &PersistentVolumeClaim,
) -> Result<(), ApplyError> {
    let created = api.create(&parameters(), claim).await;
    created.map(drop).map_err(|source| ApplyError::Create {
        kind: "PersistentVolumeClaim",
        name: claim.name_any(),
        source: Box::new(source),
    })
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
        .map(|name| async move {
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => Err(ApplyError::Delete {
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

fn parameters() -> PostParams {
    PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
