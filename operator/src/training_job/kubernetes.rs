//! The effects of a reconcile on a real cluster.

mod scheduling;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::config::JobIdentity;
use contract::progress::AgentProgress;
use crds::names;
use crds::v1alpha1::{YoloTrainingJob, YoloTrainingJobStatus};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hyper::header::{ACCEPT, HeaderValue};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, Request};
use kube::runtime::events::Recorder;
use kube::{Client, Resource, ResourceExt as _};
use rand::distr::{Alphanumeric, SampleString as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Mutex, Semaphore};

use self::scheduling::{discover, in_queue};
use super::build::Prepared;
use super::cluster::{ApplyError, Cluster, WriteError};
use super::gang::{self, Served};
use super::observe::{self, ObserveError, Observed};
use super::plan::Retired;
use super::status::Applied;
use super::unseen;
use crate::events::JobEvent;

/// How long it is remembered who can schedule workers together.
const SERVED_FOR: Duration = Duration::from_secs(30);

/// Requests in flight for one job; an API server takes this many at once without queueing.
const IN_FLIGHT: usize = 64;
/// Pods that are being created at once, over all jobs. Those of a gang are useless one by one, and scheduler and
/// kubelets already work on the first of them: with more on the way, less of the API server's time goes there before
/// the last exists. What is beyond the share of an operator (about 245 of 600 by default) waits in the API server's
/// queues, which hold more.
const CREATED_AT_ONCE: usize = 256;

/// A cluster behind a client.
#[derive(Clone)]
pub struct KubeCluster {
    client: Client,
    recorder: Recorder,
    /// Who can schedule workers together, and when that was asked.
    served: Arc<Mutex<Option<(Instant, Served)>>>,
    /// Whether that is wanted here.
    gang_scheduling: bool,
    /// One for each pod that may be on its way.
    creating: Arc<Semaphore>,
}

impl KubeCluster {
    /// The cluster of this client; events are published through the recorder.
    pub fn new(client: Client, recorder: Recorder, gang_scheduling: bool) -> Self {
        Self {
            client,
            recorder,
            served: Arc::default(),
            gang_scheduling,
            creating: Arc::new(Semaphore::new(CREATED_AT_ONCE)),
        }
    }

    /// Who can schedule the job's workers together. Asked again after a while: programs are installed.
    async fn served(&self, job: &YoloTrainingJob) -> Result<Served, ObserveError> {
        let workers = &job.spec.workers;
        let named = workers.template.scheduler_name.as_deref();
        let wanted = gang::wanted(job.spec.scheduling.gang, named, workers.replicas);
        if !self.gang_scheduling || wanted.is_none() {
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

    async fn create<K>(&self, id: &JobIdentity, object: &K) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = requests::<K>(id).create(&parameters(), body);
        send(&self.client, request).await.map(drop)
    }

    /// Creates an object that is written once. One that is there already is of an earlier try: the plan was
    /// made from a read that did not have it, and the next one will judge it.
    async fn create_once<K>(
        &self,
        id: &JobIdentity,
        object: Option<&K>,
        kind: &'static str,
    ) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let Some(object) = object else {
            return Ok(());
        };
        match self.create(id, object).await {
            Err(error) if !is_conflict(&error) => Err(ApplyError::Create {
                kind,
                name: object.meta().name.clone().unwrap_or_default(),
                source: Box::new(error),
            }),
            _ => Ok(()),
        }
    }

    async fn create_pods(
        &self,
        id: &JobIdentity,
        pods: Vec<(u32, Pod)>,
    ) -> Result<Applied, ApplyError> {
        let results: Vec<_> = stream::iter(pods)
            .map(|(index, pod)| async move {
                // Nobody closes it.
                let _turn = self.creating.acquire().await;
                let result = self.create(id, &pod).await;
                (index, pod.name_any(), result)
            })
            .buffer_unordered(CREATED_AT_ONCE)
            .collect()
            .await;
        judge_created(results)
    }

    /// Does all of it, up to the first error.
    async fn carry_out(&self, id: &JobIdentity, prepared: Prepared) -> Result<Applied, ApplyError> {
        // Without `..`, so that a new field fails to compile here instead of never being applied.
        let Prepared {
            config_map,
            claims,
            secret,
            has_secret,
            service,
            retire,
            stop,
            budget,
            drop_budget,
            pod_group,
            fetch,
            pods,
            queue,
            delete_job,
        } = prepared;
        if delete_job {
            delete_own(&self.api::<YoloTrainingJob>(id), id).await?;
        }
        let secret = secret.map(with_token);
        let (config_map, secret, service, budget) = futures::future::join4(
            self.create_once(id, config_map.as_ref(), "ConfigMap"),
            self.create_once(id, secret.as_ref(), "Secret"),
            self.create_once(id, service.as_ref(), "Service"),
            self.create_once(id, budget.as_ref(), "PodDisruptionBudget"),
        )
        .await;
        let secret = match secret {
            // A quota that counts it speaks before who has it already.
            Err(ApplyError::Create { ref source, .. })
                if has_secret && refusal(source).is_some() =>
            {
                Ok(())
            }
            other => other,
        };
        config_map.and(secret).and(service).and(budget)?;
        if let Some(name) = drop_budget {
            let api = self.api::<PodDisruptionBudget>(id);
            delete_one(&api, "PodDisruptionBudget", name).await?;
        }
        for claim in &claims {
            claim_new(&self.api(id), claim).await?;
        }
        let groups = pod_group.as_ref().map(|group| {
            let client = self.client.clone();
            Api::<DynamicObject>::namespaced_with(client, &id.namespace, &group.resource)
        });
        if let (Some(groups), Some(group)) = (&groups, &pod_group) {
            match groups.create(&parameters(), &group.object).await {
                // Pods without their group would be nobody's.
                Err(error) if !is_conflict(&error) => {
                    return Err(ApplyError::Create {
                        kind: "PodGroup",
                        name: group.object.name_any(),
                        source: Box::new(error),
                    });
                }
                _ => {}
            }
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
            let fetch = self
                .create_pods(id, fetch.map(|pod| (0, pod)).into_iter().collect())
                .await?;
            let workers = self.create_pods(id, pods).await?;
            Ok(Applied {
                refused: fetch.refused.or(workers.refused),
                ..workers
            })
        };
        let (deleted, created) = futures::future::join(deleted, created).await;
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
        let (job, mut observed) = Box::pin(observe::fresh(&self.client, id, progress)).await?;
        observed.served = Some(self.served(&job).await?);
        Ok((job, observed))
    }

    async fn apply(&self, id: &JobIdentity, prepared: Prepared) -> Result<Applied, ApplyError> {
        let first = prepared.pods.first().map_or(0, |(index, _)| *index);
        match Box::pin(self.carry_out(id, prepared)).await {
            // A quota or an admission webhook: the owner reads it in the status, as for pods.
            Err(ApplyError::Create {
                kind,
                ref name,
                ref source,
            }) if let Some(why) = refusal(source) => Ok(Applied {
                refused: Some((first, format!("the {kind} {name}: {why}"))),
                unfrozen: kind == "ConfigMap",
                ..Applied::default()
            }),
            applied => applied,
        }
    }

    async fn write_status(
        &self,
        id: &JobIdentity,
        status: &YoloTrainingJobStatus,
    ) -> Result<Option<u64>, WriteError> {
        patch_status(&self.client, id, names::FIELD_MANAGER, status).await
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

/// What a status is applied as.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Applying<'a, S> {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    metadata: ApplyingMeta<'a>,
    status: &'a S,
}

#[derive(Serialize)]
struct ApplyingMeta<'a> {
    name: &'a str,
    uid: &'a str,
}

/// Applies a status as the given field manager. The uid keeps it off a new job of the same name. The answer is the
/// version of the job that has it, where versions can be compared.
pub async fn patch_status(
    client: &Client,
    id: &JobIdentity,
    manager: &str,
    status: &impl Serialize,
) -> Result<Option<u64>, WriteError> {
    let body = Applying {
        api_version: YoloTrainingJob::api_version(&()),
        kind: YoloTrainingJob::kind(&()),
        metadata: ApplyingMeta {
            name: &id.name,
            uid: &id.uid,
        },
        status,
    };
    let params = PatchParams::apply(manager).force();
    let request = requests::<YoloTrainingJob>(id).patch_subresource(
        "status",
        &id.name,
        &params,
        &Patch::Apply(&body),
    );
    match send(client, request).await {
        // A job that was deleted meanwhile needs no status.
        Err(error) if is_not_found(&error) => Ok(None),
        answer => answer
            .map(|text| version_of(&text))
            .map_err(|error| WriteError(Box::new(error))),
    }
}

fn requests<K>(id: &JobIdentity) -> Request
where
    K: Resource<DynamicType = ()>,
{
    Request::new(K::url_path(&(), Some(&id.namespace)))
}

/// Sends what writes an object and has only its metadata sent back, as text: nobody reads the rest.
async fn send(
    client: &Client,
    request: Result<hyper::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<String, kube::Error> {
    const ONLY_METADATA: HeaderValue =
        HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, ONLY_METADATA);
    client.request_text(request).await
}

/// The version that an answer with an object's metadata names.
fn version_of(answer: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Answer {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        resource_version: String,
    }
    let answer: Answer = serde_json::from_str(answer).ok()?;
    unseen::number(&answer.metadata.resource_version)
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

/// What became of the pods that were to be created.
fn judge_created(
    results: Vec<(u32, String, Result<(), kube::Error>)>,
) -> Result<Applied, ApplyError> {
    let mut applied = Applied::default();
    let mut refused = Vec::new();
    for (index, name, result) in results {
        match result {
            Ok(()) => {
                applied.created.insert(index, name);
            }
            // A pod of ours would have been seen by the read that the plan was made from, unless this is a
            // repeated request; then the next read shows it.
            Err(error) if is_conflict(&error) => {
                refused.push((index, format!("a pod named {name} exists already")));
            }
            Err(error) => match refusal(&error) {
                Some(why) => refused.push((index, why.to_owned())),
                None => {
                    return Err(ApplyError::Create {
                        kind: "pod",
                        name,
                        source: Box::new(error),
                    });
                }
            },
        }
    }
    applied.refused = refused.into_iter().min();
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
        Err(kube::Error::Api(status)) if status.code == 404 || status.is_conflict() => Ok(()),
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

/// What the API server says to an object that it does not take; `None` where it failed otherwise, or where the operator
/// lacks a right, which is nothing that a job's owner can mend. Webhooks refuse with 400 when they choose no code.
fn refusal(error: &kube::Error) -> Option<&str> {
    let kube::Error::Api(status) = error else {
        return None;
    };
    let no_right = status.is_forbidden() && status.message.contains("cannot create resource");
    let refused = status.is_forbidden() || status.is_invalid() || status.code == 400;
    (refused && !no_right).then_some(status.message.as_str())
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// Whether there is no such object, or no such kind: of a group that it does not serve the API server says that in
/// plain text, which the client's own question does not understand.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use kube::Config;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request for each of these.
    async fn answer(listener: TcpListener, answers: Vec<(&str, serde_json::Value)>) {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("a request");
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await.expect("readable");
            let body = body.to_string();
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.expect("writable");
        }
    }

    #[tokio::test]
    async fn a_written_status_tells_the_version_that_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let metadata = |version: &str| {
            let metadata = json!({"name": "digits", "resourceVersion": version});
            json!({"kind": "PartialObjectMetadata", "metadata": metadata})
        };
        let gone = json!({"kind": "Status", "status": "Failure", "code": 404});
        let answers = vec![
            ("200 OK", metadata("1234")),
            ("200 OK", metadata("a")),
            ("404 Not Found", gone),
        ];
        let server = tokio::spawn(answer(listener, answers));
        let url = format!("http://{address}").parse().expect("an address");
        let client = Client::try_from(Config::new(url)).expect("a client");
        let id = JobIdentity {
            namespace: "team".to_owned(),
            name: "digits".to_owned(),
            uid: "uid".to_owned(),
        };
        for version in [Some(1234), None, None] {
            let status = YoloTrainingJobStatus::default();
            let written = patch_status(&client, &id, names::FIELD_MANAGER, &status).await;
            assert_eq!(version, written.expect("an answer"));
        }
        server.await.expect("all requests came");
    }
}
