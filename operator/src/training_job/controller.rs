//! Watches jobs and what belongs to them, and reconciles whatever changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::config::JobIdentity;
use crds::conditions::{ConditionType, Reason};
use crds::names;
use crds::v1alpha1::YoloTrainingJob;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Service};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::observe::from_cache;
use super::{JobMemory, ReconcileError, advance, kubernetes};
use crate::conditions::{Stated, merge};
use crate::context::{Context, GuardedJob};
use crate::retry::backoff;
use crate::telemetry::chain;

/// Jobs reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// A look at every job even if nothing changes, should a watch ever miss something.
const RESYNC: Duration = Duration::from_mins(5);
/// Reports objects that cannot be read; apart, so that it owns nothing else of a status.
const GUARD_MANAGER: &str = "yolo-operator-guard";

/// The ends of the watch caches that are written.
pub struct Writers {
    /// Of the jobs.
    pub jobs: Writer<GuardedJob>,
    /// Of the pods.
    pub pods: Writer<Pod>,
    /// Of the Services.
    pub services: Writer<PartialObjectMeta<Service>>,
}

/// Runs until `stop`; reconciles that have begun are finished.
pub async fn run(
    context: Arc<Context>,
    writers: Writers,
    namespace: Option<&str>,
    progressed: mpsc::UnboundedReceiver<ObjectRef<GuardedJob>>,
    mut stop: watch::Receiver<bool>,
) {
    let client = &context.client;
    let ours = || watcher::Config::default().labels(names::MANAGED_BY_SELECTOR);
    let jobs = watched(
        api::<GuardedJob>(client, namespace),
        watcher::Config::default(),
        prune::<GuardedJob>,
        writers.jobs,
    );
    let pods = watched(
        api::<Pod>(client, namespace),
        ours(),
        prune_pod,
        writers.pods,
    );
    let services = watched(
        api::<PartialObjectMeta<Service>>(client, namespace),
        ours(),
        prune::<PartialObjectMeta<Service>>,
        writers.services,
    );
    let progressed = stream::unfold(progressed, |mut receiver| async move {
        receiver.recv().await.map(|job| (job, receiver))
    });
    let stopped = async move {
        // A sender that is gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Controller::for_stream(jobs, context.caches.jobs.clone())
        .owns_stream(pods)
        .owns_stream(services)
        .reconcile_on(progressed)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopped)
        .run(reconcile, on_error, Arc::clone(&context))
        .for_each(|result| async {
            match result {
                // Reconcile errors are logged where their back-off is decided, and an object that is gone
                // needs nothing.
                Ok(_)
                | Err(
                    controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_),
                ) => {}
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a watch failed and is retried");
                }
            }
        })
        .await;
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// A watch that fills a cache and yields what changed, deletions included.
fn watched<K>(
    api: Api<K>,
    config: watcher::Config,
    prune: impl FnMut(&mut K) + Send + 'static,
    writer: Writer<K>,
) -> impl Stream<Item = watcher::Result<K>> + Send + 'static
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    watcher(api, config)
        .default_backoff()
        .modify(prune)
        .reflect(writer)
        .touched_objects()
}

/// Drops what nothing here reads and what can be larger than the rest of an object.
fn prune<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
    if let Some(annotations) = &mut object.meta_mut().annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

fn prune_pod(pod: &mut Pod) {
    prune(pod);
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec {
        node_name,
        ..PodSpec::default()
    });
    if let Some(status) = &mut pod.status {
        let statuses = [
            &mut status.container_statuses,
            &mut status.init_container_statuses,
        ];
        for status in statuses.into_iter().flatten().flatten() {
            status.volume_mounts = None;
            status.last_state = None;
            status.resources = None;
            status.allocated_resources = None;
        }
    }
}

async fn reconcile(
    object: Arc<GuardedJob>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let start = Instant::now();
    let uid = object.uid().unwrap_or_default();
    let mut memory = context.memory.take(&uid);
    let result = match &object.0 {
        Ok(job) if job.spec.is_foreign() => Ok(Action::await_change()),
        Ok(job) => Box::pin(take_up(job, &context, &mut memory)).await,
        Err(invalid) => report_unreadable(invalid, &context, &mut memory).await,
    };
    if result.is_ok() {
        memory.failures = 0;
    }
    context.memory.put(&uid, memory);
    let error = result.as_ref().err().map(ReconcileError::label);
    context
        .metrics
        .reconciled(start.elapsed().as_secs_f64(), error);
    result
}

async fn take_up(
    job: &YoloTrainingJob,
    context: &Context,
    memory: &mut JobMemory,
) -> Result<Action, ReconcileError> {
    let namespace = job.namespace().unwrap_or_default();
    let name = job.name_any();
    let uid = job.uid().unwrap_or_default();
    let pods = context.caches.pods_of(&namespace, &name);
    let service = context.caches.service_of(&namespace, &name, &uid);
    let progress = context.progress.get(&uid);
    let cached = from_cache(job, pods.iter().map(AsRef::as_ref), service, progress)?;
    let now = Timestamp::now();
    let outcome = Box::pin(advance(
        &context.cluster,
        job,
        cached,
        &context.policy,
        memory,
        now,
    ))
    .await?;
    if let Some(reason) = outcome.restarted {
        context.metrics.restarted(reason);
    }
    let wait = outcome.wake_at.map_or(RESYNC, |at| {
        Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
    });
    Ok(Action::requeue(wait.min(RESYNC)))
}

/// Says in the status of an object that cannot be read why that is so.
///
/// Only the condition Accepted is written: the job may run under another version of the operator, and
/// what that wrote stays.
async fn report_unreadable(
    invalid: &InvalidObject,
    context: &Context,
    memory: &mut JobMemory,
) -> Result<Action, ReconcileError> {
    let meta = &invalid.metadata;
    let id = JobIdentity {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    };
    if memory.unreadable.as_ref() == Some(&invalid.error) || meta.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let message = format!(
        "this version of the operator cannot read the job: {}",
        invalid.error
    );
    tracing::warn!(
        job = %format_args!("{}/{}", id.namespace, id.name),
        error = invalid.error,
        "a job cannot be read"
    );
    let accepted = Stated::new(
        ConditionType::Accepted,
        false,
        Reason::InvalidSpec.as_str(),
        message,
    );
    let conditions = merge(&[], &[accepted], meta.generation, Timestamp::now());
    let status = json!({"conditions": conditions});
    kubernetes::patch_status(&context.client, &id, GUARD_MANAGER, &status).await?;
    memory.unreadable = Some(invalid.error.clone());
    Ok(Action::await_change())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the controller prescribes the arguments"
)]
fn on_error(object: Arc<GuardedJob>, error: &ReconcileError, context: Arc<Context>) -> Action {
    let uid = object.uid().unwrap_or_default();
    let failures = context.memory.failed(&uid);
    let wait = backoff(&uid, failures);
    tracing::warn!(
        job = %format_args!("{}/{}", object.namespace().unwrap_or_default(), object.name_any()),
        error = %chain(error),
        failures,
        retry_seconds = wait.as_secs_f64(),
        "a reconcile failed and is retried"
    );
    Action::requeue(wait)
}
