//! Watches jobs and what belongs to them, and reconciles whatever changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::config::JobIdentity;
use crds::conditions::{ConditionType, Reason};
use crds::names;
use crds::v1alpha1::YoloTrainingJob;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::utils::Backoff;
use kube::runtime::{PredicateConfig, WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::cluster::Cluster as _;
use super::news::news;
use super::observe::from_cache;
use super::unseen::AGAIN;
use super::{JobMemory, Policy, ReconcileError, advance, kubernetes};
use crate::conditions::{Stated, merge};
use crate::context::{Context, GuardedJob};
use crate::events::{JobEvent, note};
use crate::kueue::Workload;
use crate::lean::Lean;
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
    /// Of what stands in queues.
    pub workloads: Writer<Workload>,
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
        api::<Lean<GuardedJob>>(client, namespace),
        watcher::Config::default(),
        |_| {},
        writers.jobs,
    )
    .predicate_filter(news, PredicateConfig::default());
    let pod_index = context.caches.pod_index.clone();
    let pods = watched(
        api::<Lean<Pod>>(client, namespace),
        ours(),
        move |event| pod_index.note(event),
        writers.pods,
    );
    let services = watched(
        api::<Lean<PartialObjectMeta<Service>>>(client, namespace),
        ours(),
        |_| {},
        writers.services,
    );
    let workloads = when_served(api::<Workload>(client, namespace)).flat_map({
        let api = api::<Lean<Workload>>(client, namespace);
        let mut writer = Some(writers.workloads);
        move |()| {
            let writer = writer.take().expect("the signal comes once");
            while_served(watched(api.clone(), ours(), |_| {}, writer))
        }
    });
    let progressed = stream::unfold(progressed, |mut receiver| async move {
        receiver.recv().await.map(|job| (job, receiver))
    });
    let stopped = async move {
        // A sender that is gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let mut results = Controller::for_stream(jobs, context.caches.jobs.clone())
        .owns_stream(pods)
        .owns_stream(services)
        .owns_stream(workloads)
        .reconcile_on(progressed)
        .with_config(controller::Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(stopped)
        .run(reconcile, on_error, Arc::clone(&context))
        .boxed();
    while let Some(result) = results.next().await {
        match result {
            // Reconcile errors are logged where their back-off is decided, and an object that is gone needs
            // nothing.
            Ok(_)
            | Err(controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_)) =>
                {}
            Err(error) => {
                let text = chain(&error).to_string();
                tracing::warn!(error = text, "a watch failed and is retried");
                if text.contains(OTHER_PAST) {
                    tracing::error!(
                        "the API server was put back to an earlier state: what is known here is of no use, and this process begins anew"
                    );
                    return;
                }
            }
        }
    }
}

/// What an API server says to a watch from a state that it has not come to: it was restored from a backup. The watch
/// would be tried from there for ever.
const OTHER_PAST: &str = "Too large resource version";

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// How often to look whether Kueue was installed meanwhile.
const SERVED_RETRY: Duration = Duration::from_secs(15);

/// Yields once, as soon as the API server knows the kind and lets it be listed.
fn when_served<K>(api: Api<K>) -> impl Stream<Item = ()> + Send + 'static
where
    K: Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    stream::once(async move {
        let one = ListParams::default().limit(1);
        while let Err(error) = api.list_metadata(&one).await {
            tracing::debug!(kind = %K::kind(&()), error = %chain(&error), "not to be had");
            tokio::time::sleep(SERVED_RETRY).await;
        }
    })
}

/// Says once of a kind that is served no longer that it is so: its watch fails until the kind is served again.
fn while_served<K>(
    watch: impl Stream<Item = watcher::Result<K>> + Send + 'static,
) -> impl Stream<Item = watcher::Result<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    let mut served = true;
    watch.filter_map(move |result| {
        let gone = result.as_ref().is_err_and(is_unserved);
        if gone && served {
            tracing::warn!(kind = %K::kind(&()), "the API server no longer serves this kind; jobs in queues wait for it");
        }
        served = !gone;
        future::ready((!gone).then_some(result))
    })
}

fn is_unserved(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) => kubernetes::is_not_found(error),
        _ => false,
    }
}

/// How long a watch that failed waits before it is tried again: as everybody else's, but never for long. An API server
/// that is restarted more than once would leave workers that died meanwhile alone for half a minute, and an operator
/// has few watches.
#[derive(Default)]
struct Prompt(watcher::DefaultBackoff);

const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Iterator for Prompt {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0.next()?.min(LONGEST_PAUSE))
    }
}

impl Backoff for Prompt {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// A watch that fills a cache and yields what changed, deletions included. `note` sees every event first.
fn watched<K>(
    api: Api<Lean<K>>,
    config: watcher::Config,
    note: impl Fn(&watcher::Event<K>) + Send + 'static,
    writer: Writer<K>,
) -> impl Stream<Item = watcher::Result<K>> + Send + 'static
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
    Lean<K>: DeserializeOwned,
{
    watcher(api, config)
        .backoff(Prompt::default())
        .map_ok(whole)
        .inspect_ok(note)
        .reflect(writer)
        .touched_objects()
}

fn whole<K>(event: watcher::Event<Lean<K>>) -> watcher::Event<K> {
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};
    match event {
        Apply(Lean(object)) => Apply(object),
        Delete(Lean(object)) => Delete(object),
        Init => Init,
        InitApply(Lean(object)) => InitApply(object),
        InitDone => InitDone,
    }
}

async fn reconcile(
    object: Arc<GuardedJob>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let start = Instant::now();
    let uid = object.uid().unwrap_or_default();
    let mut memory = context.memory.take(&uid);
    let cached = object.meta().resource_version.as_deref();
    if memory.unseen.awaited(cached, start) {
        // Neither a success nor a failure: errors in a row are counted by those that do something.
        context.memory.put(&uid, memory);
        return Ok(Action::requeue(AGAIN));
    }
    let result = match &object.0 {
        Ok(job) if job.spec.is_foreign() => Ok(Action::await_change()),
        Ok(job) => Box::pin(take_up(job, &context, &mut memory)).await,
        Err(invalid) => report_unreadable(invalid, &context, &mut memory).await,
    };
    match &result {
        Ok(_) => memory.failures = 0,
        // What was refused is in the status. One failure in passing is nobody's business.
        Err(error) if memory.failures > 0 && !matches!(error, ReconcileError::Refused { .. }) => {
            let id = identity(&object);
            context.cluster.publish(&id, failed(error)).await;
        }
        Err(_) => {}
    }
    context.memory.put(&uid, memory);
    let error = result.as_ref().err().map(ReconcileError::label);
    context
        .metrics
        .reconciled(start.elapsed().as_secs_f64(), error);
    result
}

fn identity(object: &GuardedJob) -> JobIdentity {
    identity_of(object.meta())
}

fn identity_of(meta: &ObjectMeta) -> JobIdentity {
    JobIdentity {
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// The event that tells the job's owner of a reconcile that fails again and again.
fn failed(error: &ReconcileError) -> JobEvent {
    JobEvent {
        warning: true,
        reason: "ReconcileFailed".to_owned(),
        note: note(&format!("{}; trying again", chain(error))),
        action: format!("ReconcileFailed-{}", error.label()),
    }
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
    let queue = context.caches.queue_of(&namespace, &name, &uid);
    let progress = context.progress.get(&uid);
    let pods = pods.iter().map(AsRef::as_ref);
    let mut cached = from_cache(job, pods, service, queue, progress)?;
    cached.silent = context.progress.silent(&uid);
    let now = Timestamp::now();
    let policy = Policy {
        pace: context.pace(),
        ..context.policy.clone()
    };
    let step = advance(&context.cluster, job, cached, &policy, memory, now);
    let outcome = Box::pin(step).await?;
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
    let id = identity_of(meta);
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

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use kube::Config;
    use kube::core::{DeserializeGuard, Status};
    use kube::runtime::events::{Recorder, Reporter};
    use kube::runtime::reflector;

    use super::*;
    use crate::context::{Caches, Memory};
    use crate::metrics::Metrics;
    use crate::pod_index::PodIndex;
    use crate::progress_board::ProgressBoard;
    use crate::sim::fixture;
    use crate::training_job::kubernetes::KubeCluster;
    use crate::training_job::pace::Pace;

    /// Of an API server that does not answer.
    fn context() -> Context {
        let nobody = "http://127.0.0.1:1".parse().expect("an address");
        let client = Client::try_from(Config::new(nobody)).expect("a client");
        let reporter = Reporter {
            controller: "test".to_owned(),
            instance: None,
        };
        let recorder = Recorder::new(client.clone(), reporter);
        Context {
            cluster: KubeCluster::new(client.clone(), recorder, false),
            client,
            caches: Caches {
                jobs: reflector::store().0,
                pods: reflector::store().0,
                pod_index: PodIndex::default(),
                services: reflector::store().0,
                workloads: reflector::store().0,
            },
            progress: Arc::new(ProgressBoard::default()),
            policy: Policy {
                images: fixture::images(),
                pace: Pace {
                    progress: SignedDuration::ZERO,
                    workers: SignedDuration::ZERO,
                },
            },
            metrics: Arc::new(Metrics::new().expect("metrics")),
            memory: Memory::default(),
        }
    }

    #[tokio::test]
    async fn nothing_is_done_by_a_status_that_is_older_than_the_one_written() {
        let context = Arc::new(context());
        let mut job = fixture::job("digits", 1);
        let uid = job.uid().expect("a uid");
        let mut memory = JobMemory {
            failures: 1,
            ..JobMemory::default()
        };
        memory.unseen.wrote(Some(10));
        context.memory.put(&uid, memory);
        let mut look = |version: &str| {
            job.metadata.resource_version = Some(version.to_owned());
            let job = Arc::new(DeserializeGuard(Ok(job.clone())));
            reconcile(job, Arc::clone(&context))
        };
        for _ in 0..2 {
            let action = look("9").await.expect("nobody is asked");
            assert_eq!(Action::requeue(AGAIN), action);
        }
        let error = look("10").await.expect_err("the API server is asked");
        assert_eq!("observe", error.label());
        // The waits were no successes.
        assert_eq!(2, context.memory.failed(&uid));
        // Nothing is kept of a job that is gone.
        context.memory.keep(|_| false);
        look("9").await.expect_err("the API server is asked");
    }

    fn failed(code: u16) -> watcher::Error {
        let status = Status::failure("no", "Why").with_code(code).boxed();
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
    }

    #[tokio::test]
    async fn a_kind_that_is_served_no_longer_is_no_failure_of_its_watch() {
        let watch = [Err(failed(404)), Err(failed(500)), Err(failed(404))];
        let watch = watch.into_iter().chain([Ok(Pod::default())]);
        let seen: Vec<_> = while_served(stream::iter(watch)).collect().await;
        assert!(
            matches!(&seen[..], [Err(error), Ok(_)] if !is_unserved(error)),
            "{seen:?}"
        );
    }
}
