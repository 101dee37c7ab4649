//! Wires everything and joins it: whatever ends first ends the process, and nothing ends unseen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, header::USER_AGENT};
use crds::v1alpha1::YoloTrainingJob;
use futures::FutureExt as _;
use kube::api::{Api, ListParams};
use kube::config::{Config, InferConfigError};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector;
use kube::{Client, CustomResourceExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;

use crate::context::{Caches, Context, Memory};
use crate::http::{self, Readiness, Shown};
use crate::lease::{Candidate, LeaseError};
use crate::metrics::{Metrics, MetricsError};
use crate::pod_index::PodIndex;
use crate::poller;
use crate::progress_board::ProgressBoard;
use crate::settings::Settings;
use crate::training_job::controller::{self, Writers};
use crate::training_job::kubernetes::{KubeCluster, is_not_found};

/// Time for the reconciles that have begun when the process is asked to stop. Together with giving the
/// lease back it stays below five seconds.
const FINISH: Duration = Duration::from_millis(2500);

/// The process cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime.
    #[error("the asynchronous runtime could not be started")]
    Runtime(#[source] std::io::Error),
    /// The cluster's address and credentials.
    #[error("no cluster is configured: run inside one, or set KUBECONFIG to a file that names one")]
    Config(#[source] Box<InferConfigError>),
    /// The client.
    #[error("the Kubernetes client could not be made")]
    Client(#[source] Box<kube::Error>),
    /// The metrics.
    #[error("the metrics could not be set up")]
    Metrics(#[from] MetricsError),
    /// The web server's port.
    #[error("listening on {addresses:?} failed")]
    Listen {
        /// Where.
        addresses: Vec<SocketAddr>,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The web server.
    #[error("the web server ended")]
    Http(#[source] std::io::Error),
    /// The lease.
    #[error("this replica no longer leads")]
    Lease(#[from] LeaseError),
    /// Signals.
    #[error("signals could not be received")]
    Signal(#[source] std::io::Error),
    /// A part that must not end has ended.
    #[error("the {part} ended although nobody asked it to")]
    Ended {
        /// Which.
        part: &'static str,
    },
    /// A part panicked.
    #[error("the {part} panicked")]
    Panicked {
        /// Which.
        part: &'static str,
        /// What is known.
        #[source]
        source: JoinError,
    },
}

/// The host's name, which in a cluster is the pod's.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// Runs the operator until it is asked to stop.
pub fn run(settings: Settings) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The work is waiting for the API server; more threads would only hold more memory.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    let result = runtime.block_on(serve(settings));
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// How long the API server may say nothing while something is awaited.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// A client of the API server, which asks again after a while where that is too busy (429).
fn client(mut config: Config) -> Result<Client, RunError> {
    // By this an audit log and the API server's metrics tell whose requests they are.
    let agent = HeaderValue::from_static(concat!("yolo-operator/", env!("CARGO_PKG_VERSION")));
    config.headers.push((USER_AGENT, agent));
    // Of several API servers behind one address, one may be gone without a word: nothing is waited for longer. What is
    // no watch ends after a minute there, and watches have a bookmark a minute.
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))
}

async fn serve(settings: Settings) -> Result<(), RunError> {
    let config = Config::infer()
        .await
        .map_err(|error| RunError::Config(Box::new(error)))?;
    let server = config.cluster_url.to_string();
    let client = client(config)?;
    let (caches, writers) = stores();
    let reporter = Reporter {
        controller: crds::names::FIELD_MANAGER.to_owned(),
        instance: Some(settings.identity.clone()),
    };
    let metrics = Arc::new(Metrics::new()?);
    let readiness = Arc::new(Readiness::new());
    let context = Arc::new(Context {
        cluster: KubeCluster::new(
            client.clone(),
            Recorder::new(client.clone(), reporter),
            settings.gang_scheduling,
        ),
        client: client.clone(),
        caches: caches.clone(),
        progress: Arc::new(ProgressBoard::default()),
        policy: settings.policy.clone(),
        metrics: Arc::clone(&metrics),
        memory: Memory::default(),
    });
    let (stop, stopped) = watch::channel(false);
    let (leading, leads) = watch::channel(false);
    let (release, released) = watch::channel(false);

    let listener = TcpListener::bind(&settings.listen[..]).await;
    let listener = listener.map_err(|source| RunError::Listen {
        addresses: settings.listen.clone(),
        source,
    })?;
    let web = http::router(Shown {
        metrics: Arc::clone(&metrics),
        caches: caches.clone(),
        readiness: Arc::clone(&readiness),
    });
    let mut web = tokio::spawn(axum::serve(listener, web).into_future());
    let candidate = Candidate::new(
        client.clone(),
        &settings.lease_namespace,
        &settings.lease_name,
        &settings.identity,
    );
    let mut election = tokio::spawn(candidate.run(leading, released));
    let namespace = settings.namespace.clone();
    tokio::spawn(watch_readiness(
        client,
        namespace.clone(),
        caches,
        leads.clone(),
        readiness,
    ));
    let interval = settings.progress_interval;
    let mut work = tokio::spawn(work(context, writers, namespace, interval, leads, stopped));
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        server,
        identity = settings.identity,
        listen = ?settings.listen,
        "the operator runs"
    );
    tokio::select! {
        signal = signal() => signal?,
        end = &mut web => {
            joined(end, "web server")?.map_err(RunError::Http)?;
            return Err(RunError::Ended { part: "web server" });
        }
        end = &mut election => {
            joined(end, "election")??;
            return Err(RunError::Ended { part: "election" });
        }
        end = &mut work => {
            joined(end, "controller")?;
            return Err(RunError::Ended { part: "controller" });
        }
    }
    // The lease is given back last: a successor must not begin while reconciles are under way.
    stop.send_replace(true);
    if tokio::time::timeout(FINISH, &mut work).await.is_err() {
        tracing::warn!("reconciles did not finish in time and are left to the next leader");
        work.abort();
    }
    release.send_replace(true);
    joined(election.await, "election")??;
    tracing::info!("the operator ends as it was asked to");
    Ok(())
}

/// Empty caches, and what fills them.
fn stores() -> (Caches, Writers) {
    let (jobs, jobs_writer) = reflector::store();
    let (pods, pods_writer) = reflector::store();
    let (services, services_writer) = reflector::store();
    let (workloads, workloads_writer) = reflector::store();
    let caches = Caches {
        jobs,
        pods,
        pod_index: PodIndex::default(),
        services,
        workloads,
    };
    let writers = Writers {
        jobs: jobs_writer,
        pods: pods_writer,
        services: services_writer,
        workloads: workloads_writer,
    };
    (caches, writers)
}

fn joined<T>(end: Result<T, JoinError>, part: &'static str) -> Result<T, RunError> {
    end.map_err(|source| RunError::Panicked { part, source })
}

/// Waits until this replica leads, then reconciles until `stopped`.
async fn work(
    context: Arc<Context>,
    writers: Writers,
    namespace: Option<String>,
    interval: Duration,
    mut leads: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
) {
    tokio::select! {
        leads = leads.wait_for(|leads| *leads) => if leads.is_err() { return },
        _ = stopped.wait_for(|stop| *stop) => return,
    }
    tracing::info!("this replica leads");
    context.metrics.lead(true);
    let (changed, progressed) = mpsc::unbounded_channel();
    let poller = poller::run(Arc::clone(&context), interval, changed, stopped.clone());
    let controller = controller::run(context, writers, namespace.as_deref(), progressed, stopped);
    futures::future::join(poller, controller).await;
}

/// Keeps the readiness up to date: the resource is there, and a leader's caches are filled.
async fn watch_readiness(
    client: Client,
    namespace: Option<String>,
    caches: Caches,
    leads: watch::Receiver<bool>,
    readiness: Arc<Readiness>,
) {
    let jobs: Api<YoloTrainingJob> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    loop {
        let mut missing = Vec::new();
        let limit = Duration::from_secs(5);
        let list = ListParams::default().limit(1);
        match tokio::time::timeout(limit, jobs.list_metadata(&list)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) if is_not_found(&error) => {
                tracing::warn!(
                    name = YoloTrainingJob::crd_name(),
                    "the CustomResourceDefinition is not installed"
                );
                missing.push("the CustomResourceDefinition is not installed");
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                missing.push("this operator may not list jobs");
            }
            Ok(Err(_)) | Err(_) => missing.push("the API server does not answer"),
        }
        let leader = *leads.borrow();
        let filled = caches.jobs.wait_until_ready().now_or_never().is_some()
            && caches.pods.wait_until_ready().now_or_never().is_some()
            && caches.services.wait_until_ready().now_or_never().is_some();
        if leader && !filled {
            missing.push("the caches are being filled");
        }
        let pause = if missing.is_empty() { 5 } else { 1 };
        readiness.missing(missing);
        tokio::time::sleep(Duration::from_secs(pause)).await;
    }
}

async fn signal() -> Result<(), RunError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("asked to stop by SIGTERM"),
        _ = interrupt.recv() => tracing::info!("asked to stop by SIGINT"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Says that it is too busy, and then that all is well.
    async fn busy_once(listener: TcpListener) {
        let answers = ["429 Too Many Requests\r\nRetry-After: 1", "200 OK"];
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a request");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("readable");
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            assert!(request.contains("user-agent: yolo-operator/"), "{request}");
            let answer =
                format!("HTTP/1.1 {answer}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.expect("writable");
        }
    }

    #[tokio::test]
    async fn a_request_that_the_api_server_is_too_busy_for_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(busy_once(listener));
        let url = format!("http://{address}").parse().expect("an address");
        let client = client(Config::new(url)).expect("a client");
        let request = hyper::Request::get("/api").body(Vec::new()).expect("valid");
        let answer = client.request_text(request).await.expect("an answer");
        assert_eq!("{}", answer);
        server.await.expect("both requests came");
    }
}
