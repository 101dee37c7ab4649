//! Reads the agents' progress by pod address, outside reconcile: a slow worker must not hold up others.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use contract::paths;
use contract::progress::{AgentProgress, PROGRESS_VERSION};
use crds::v1alpha1::YoloTrainingJobStatus;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::context::{Caches, Context, GuardedJob};
use crate::progress_board::{ProgressBoard, TURN};
use crate::training_job::pods::{PodState, PodView};
use crate::training_job::state::is_training;
use crate::training_job::status::has_ended;

/// Time for one worker to answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Between reads of a job that has not done its first step yet, so that its start is seen soon. Also how
/// often the poller looks for work.
const EAGER: Duration = Duration::from_secs(1);
/// Jobs that are asked in one round, whatever their number.
const AT_LEAST: usize = 64;
/// Jobs that are asked at the same time at most.
const MOST_IN_FLIGHT: usize = 512;
/// Longer than all tries at a job take, after which it is not asked until it has answered.
const UNTIL_ANSWERED: Duration = Duration::from_mins(1);
/// Between two jobs of one round. Asked all at once, hundreds of them would hold up whatever else is to be done.
const LONGEST_GAP: Duration = Duration::from_millis(5);
/// Workers that are tried when worker 0 does not answer.
const TRIES: usize = 4;
/// The longest document that is read. A worker has at most 16 ranks of a hundred bytes each.
const BODY_LIMIT: usize = 1 << 20;

/// A worker that may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    ip: String,
    incarnation: u32,
}

/// A job with the workers to ask, best first.
struct Round {
    uid: String,
    job: ObjectRef<GuardedJob>,
    targets: Vec<Target>,
}

/// Asks the running jobs' agents until `stop`; sends jobs whose progress changed to `changed`.
pub async fn run(
    context: Arc<Context>,
    interval: Duration,
    changed: mpsc::UnboundedSender<ObjectRef<GuardedJob>>,
    stop: watch::Receiver<bool>,
) {
    let numbers = tell_numbers(&context, &changed, stop.clone());
    futures::future::join(ask_all(&context, interval, &changed, stop), numbers).await;
}

/// One job after the other: where all were told as soon as they may be, those that began together would come
/// together for ever.
async fn tell_numbers(
    context: &Context,
    changed: &mpsc::UnboundedSender<ObjectRef<GuardedJob>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut turns = tokio::time::interval(TURN);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        if let Some(job) = context.progress.next(Instant::now()) {
            // The receiver ends with the process.
            let _ = changed.send(job);
        }
    }
}

async fn ask_all(
    context: &Context,
    interval: Duration,
    changed: &mpsc::UnboundedSender<ObjectRef<GuardedJob>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut next: HashMap<String, Instant> = HashMap::new();
    let mut ticks = tokio::time::interval(EAGER);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = context.policy.pace.progress.unsigned_abs();
    // One that does not answer holds up none of the others.
    let mut under_question = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(said) = under_question.next() => {
                let (round, answer): (Round, Option<AgentProgress>) = said;
                let now = Instant::now();
                next.insert(round.uid.clone(), now + pause_after(answer.as_ref(), interval));
                if news(&context.progress, &round, answer, patience, now) {
                    // The receiver ends with the process.
                    let _ = changed.send(round.job);
                }
                continue;
            }
            _ = stop.wait_for(|stop| *stop) => return,
        }
        forget_deleted(context, &mut next);
        let now = Instant::now();
        let under_way = under_way(&context.caches);
        context.progress.set_starting(starting(&under_way));
        let due = |uid: &str| next.get(uid).is_none_or(|at| *at <= now);
        let mut rounds = rounds(&context.caches, &under_way, due);
        rounds.sort_by_key(|round| next.get(&round.uid).copied());
        let room = MOST_IN_FLIGHT.saturating_sub(under_question.len());
        rounds.truncate(at_once(under_way.len(), interval).min(room));
        let gap = (EAGER * 4 / 5 / rounds.len().max(1) as u32).min(LONGEST_GAP);
        for (round, turn) in rounds.into_iter().zip(0_u32..) {
            next.insert(round.uid.clone(), now + UNTIL_ANSWERED);
            under_question.push(ask_later(round, now + gap * turn));
        }
    }
}

async fn ask_later(round: Round, at: Instant) -> (Round, Option<AgentProgress>) {
    tokio::time::sleep_until(at).await;
    let answer = ask_any(&round.targets).await;
    (round, answer)
}

/// Notes what a job's agents answered, if one did; whether the job is to be looked at because of it.
fn news(
    board: &ProgressBoard,
    round: &Round,
    answer: Option<AgentProgress>,
    patience: Duration,
    now: Instant,
) -> bool {
    if let Some(progress) = answer {
        let heard_again = board.answered(&round.uid);
        return board.put(&round.uid, &round.job, progress, patience, now) || heard_again;
    }
    let incarnation = round.targets.first().map_or(0, |first| first.incarnation);
    let silent = board.unanswered(&round.uid, incarnation, now);
    if silent {
        tracing::warn!(
            job = %round.job,
            port = paths::AGENT_PORT,
            "no agent of the job answers: its progress is not seen"
        );
    }
    silent
}

/// How long a job is left alone after it was asked.
fn pause_after(answer: Option<&AgentProgress>, interval: Duration) -> Duration {
    if answer.is_some_and(|progress| is_training(&progress.report)) {
        interval
    } else {
        EAGER.min(interval)
    }
}

/// How many of so many jobs are asked in one round, so that all have their turn within the interval and those that
/// began together do not stay together.
fn at_once(jobs: usize, interval: Duration) -> usize {
    let rounds = interval.div_duration_f64(EAGER).max(1.0);
    AT_LEAST.max((jobs as f64 / rounds).ceil() as usize)
}

/// Drops what is kept of jobs that no longer exist.
fn forget_deleted(context: &Context, next: &mut HashMap<String, Instant>) {
    let uids: HashSet<String> = context
        .caches
        .jobs
        .state()
        .iter()
        .filter_map(|job| job.uid())
        .collect();
    let exists = |uid: &str| uids.contains(uid);
    context.progress.keep(exists);
    context.memory.keep(exists);
    next.retain(|uid, _| exists(uid));
}

/// The jobs that have not ended.
fn under_way(caches: &Caches) -> Vec<Arc<GuardedJob>> {
    let mut jobs = caches.readable_jobs();
    jobs.retain(|job| {
        let status = job.0.as_ref().ok().and_then(|job| job.status.as_ref());
        !status.is_some_and(has_ended)
    });
    jobs
}

/// Of how many of them some workers are still to run.
fn starting(under_way: &[Arc<GuardedJob>]) -> usize {
    let jobs = under_way.iter().filter_map(|job| job.0.as_ref().ok());
    let starts = |status: &YoloTrainingJobStatus| {
        !status.workers.is_empty() && status.ready_workers < status.total_workers
    };
    jobs.filter(|job| job.status.as_ref().is_none_or(starts))
        .count()
}

/// Those of them whose turn it is and that have running workers.
fn rounds(
    caches: &Caches,
    under_way: &[Arc<GuardedJob>],
    due: impl Fn(&str) -> bool,
) -> Vec<Round> {
    let rounds = under_way.iter().filter_map(|guarded| {
        let job = guarded.0.as_ref().ok()?;
        let uid = job.metadata.uid.as_ref()?;
        if !due(uid) {
            return None;
        }
        let pods = caches.pods_of(&job.namespace()?, &job.name_any());
        let own = pods
            .iter()
            .filter(|pod| pod.labels().get(crds::names::JOB_UID) == Some(uid));
        let targets = targets(own.filter_map(|pod| PodView::of(pod)).collect());
        (!targets.is_empty()).then(|| Round {
            uid: uid.clone(),
            job: ObjectRef::from_obj(guarded.as_ref()),
            targets,
        })
    });
    rounds.collect()
}

/// The workers of the latest incarnation that run, from worker 0 on: it knows the most. Then one beside it, which tells
/// whether its node is cut off with it, and one of each other node first, since those of a node are cut off together.
fn targets(mut pods: Vec<PodView>) -> Vec<Target> {
    let latest = pods
        .iter()
        .map(|pod| pod.incarnation)
        .max()
        .unwrap_or_default();
    pods.retain(|pod| pod.incarnation == latest && pod.state == PodState::Running);
    // Of two pods of a worker the earlier one was given up.
    pods.sort_by_key(|pod| (pod.index, Reverse(pod.number)));
    pods.dedup_by_key(|pod| pod.index);
    if let Some(first) = pods.first().map(|pod| pod.node.clone())
        && let Some(beside) = pods.iter().skip(1).position(|pod| pod.node == first)
    {
        let beside = pods.remove(beside + 1);
        pods.insert(1, beside);
    }
    let others = pods.split_off(pods.len().min(2));
    let mut nodes: HashSet<_> = pods.iter().map(|pod| pod.node.clone()).collect();
    let (first, rest): (Vec<_>, Vec<_>) = others
        .into_iter()
        .partition(|pod| nodes.insert(pod.node.clone()));
    let running = pods.into_iter().chain(first).chain(rest).filter_map(|pod| {
        Some(Target {
            ip: pod.ip?,
            incarnation: pod.incarnation,
        })
    });
    running.take(TRIES).collect()
}

/// The first answer. A worker that belongs to another attempt is not believed.
async fn ask_any(targets: &[Target]) -> Option<AgentProgress> {
    for target in targets {
        match tokio::time::timeout(TIMEOUT, ask(&target.ip, paths::AGENT_PORT)).await {
            Ok(Ok(progress)) if progress.attempt.incarnation == target.incarnation => {
                return Some(progress);
            }
            Ok(Ok(progress)) => tracing::debug!(
                ip = target.ip,
                attempt = %progress.attempt,
                "an agent answered for another attempt"
            ),
            Ok(Err(error)) => tracing::debug!(
                ip = target.ip,
                error = %crate::telemetry::chain(&error),
                "an agent could not be asked"
            ),
            Err(_) => tracing::debug!(ip = target.ip, "an agent did not answer in time"),
        }
    }
    None
}

/// An agent could not be asked for its progress.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("connecting failed")]
    Connect(#[source] std::io::Error),
    #[error("the exchange failed")]
    Http(#[source] hyper::Error),
    #[error("the request could not be written")]
    Request(#[source] hyper::http::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("its answer could not be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("its answer is no progress")]
    Parse(#[source] serde_json::Error),
    #[error("its progress has version {found}; this operator reads {PROGRESS_VERSION}")]
    Version { found: u32 },
}

async fn ask(ip: &str, port: u16) -> Result<AgentProgress, AskError> {
    // An IPv6 address stands in brackets wherever a port follows it.
    let authority = if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    };
    let stream = TcpStream::connect(&authority)
        .await
        .map_err(AskError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AskError::Http)?;
    let request = Request::get("/progress")
        .header(HOST, &authority)
        .body(Empty::<Bytes>::new())
        .map_err(AskError::Request)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(AskError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(AskError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_LIMIT);
        let bytes = body.collect().await.map_err(AskError::Body)?.to_bytes();
        let progress: AgentProgress = serde_json::from_slice(&bytes).map_err(AskError::Parse)?;
        if progress.version != PROGRESS_VERSION {
            return Err(AskError::Version {
                found: progress.version,
            });
        }
        Ok(progress)
    };
    // The connection does the reading and writing; it is dropped with the exchange.
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        ended = connection => match ended {
            // The agent closed after its answer, which may still lie in a buffer.
            Ok(()) => exchange.await,
            Err(error) => Err(AskError::Http(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use contract::attempt::Attempt;
    use contract::progress::RunReport;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// An agent that answers every request with this text.
    async fn agent(answer: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        port
    }

    fn ok(body: &str) -> String {
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn progress(version: u32) -> AgentProgress {
        AgentProgress {
            version,
            attempt: Attempt::default(),
            node_rank: 0,
            report: RunReport::default(),
            ranks: Vec::new(),
            restarted_after: None,
            started: true,
            straggler: None,
            warnings: Vec::new(),
            lost: Vec::new(),
            absent: Vec::new(),
            slow_check: None,
        }
    }

    #[test]
    fn worker_0_its_neighbour_and_one_of_each_other_node_are_asked_first() {
        let pod = |index, number, node: &str| PodView {
            name: String::new(),
            uid: String::new(),
            index,
            number,
            incarnation: 1,
            made_for: Attempt::default(),
            active: true,
            deleting: false,
            node: Some(node.to_owned()),
            ip: Some(format!("{index}.{number}")),
            over: false,
            state: PodState::Running,
            end_seen: None,
        };
        let mut pods = vec![
            pod(3, 0, "a"),
            pod(2, 0, "a"),
            pod(0, 0, "b"),
            pod(0, 1, "a"),
            pod(1, 0, "b"),
            pod(4, 0, "b"),
            pod(5, 0, "c"),
        ];
        pods.push(PodView {
            incarnation: 0,
            ..pod(6, 0, "d")
        });
        let asked: Vec<String> = targets(pods).into_iter().map(|target| target.ip).collect();
        assert_eq!(["0.1", "2.0", "1.0", "5.0"], asked[..]);
    }

    #[tokio::test]
    async fn an_answer_is_read_and_anything_else_is_an_error() {
        let text = |version| serde_json::to_string(&progress(version)).expect("plain data");
        let port = agent(ok(&text(PROGRESS_VERSION))).await;
        assert_eq!(
            progress(PROGRESS_VERSION),
            ask("127.0.0.1", port).await.expect("an answer")
        );

        let newer = ask("127.0.0.1", agent(ok(&text(99))).await).await;
        assert!(
            matches!(newer, Err(AskError::Version { found: 99 })),
            "{newer:?}"
        );
        let other = ask("127.0.0.1", agent(ok("hello")).await).await;
        assert!(matches!(other, Err(AskError::Parse(_))), "{other:?}");
        let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned();
        let refused = ask("127.0.0.1", agent(missing).await).await;
        assert!(
            matches!(refused, Err(AskError::Refused(StatusCode::NOT_FOUND))),
            "{refused:?}"
        );
        let cut = ask("127.0.0.1", agent(String::new()).await).await;
        assert!(cut.is_err(), "{cut:?}");
    }
}
