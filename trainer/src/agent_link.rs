//! The conversation with the agent of this worker, over its Unix socket (see [`contract::protocol`]).
//!
//! Two threads keep the training loop free of it: one writes what the loop hands over, a heartbeat and
//! the latest report; the other reads requests to stop. A connection that breaks is said once and
//! otherwise ignored: the agent is the parent of this process, and ends it when it must.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use contract::attempt::Attempt;
use contract::progress::{Phase, RunReport};
use contract::protocol::{AgentMessage, PROTOCOL_VERSION, RankMessage, RankResult, Sample, encode};

use crate::shutdown::StopRequest;

/// How often a heartbeat goes out, and a report that is not urgent.
const BEAT: Duration = Duration::from_secs(1);
/// How long the agent may take to answer the first line.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(30);
/// Messages that may wait for a slow agent before metrics are dropped.
const QUEUE: usize = 1024;

/// Why the conversation could not begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentLinkError {
    /// Nobody listens at the socket.
    #[error(
        "cannot reach the agent at {} (from {})", path.display(), contract::env::AGENT_SOCKET
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The agent closed the connection or answered nonsense: it runs another attempt or version.
    #[error("the agent did not welcome rank {rank} of attempt {attempt}")]
    Welcome {
        /// This rank.
        rank: u32,
        /// This attempt.
        attempt: Attempt,
        /// What happened instead.
        #[source]
        source: io::Error,
    },
    /// The agent speaks another version.
    #[error("the agent speaks version {agent} of the protocol, this program {PROTOCOL_VERSION}")]
    Version {
        /// The agent's version.
        agent: u32,
    },
}

/// When a report should reach the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// At once: an epoch, an evaluation or a checkpoint ended.
    Now,
    /// With the next heartbeat; a later report replaces it.
    Soon,
}

/// An open conversation.
#[derive(Debug)]
pub struct AgentLink {
    queue: SyncSender<RankMessage>,
    shared: Arc<Shared>,
    writer: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    step: AtomicU64,
    phase: Mutex<Phase>,
    report: Mutex<Option<Box<RunReport>>>,
}

impl AgentLink {
    /// Says hello and starts the two threads. Requests of the agent to stop go to `stop`.
    pub fn connect(
        path: &Path,
        attempt: Attempt,
        rank: u32,
        stop: StopRequest,
    ) -> Result<Self, AgentLinkError> {
        let connect_failed = |source| AgentLinkError::Connect {
            path: path.to_owned(),
            source,
        };
        let welcome_failed = |source| AgentLinkError::Welcome {
            rank,
            attempt,
            source,
        };
        let mut stream = UnixStream::connect(path).map_err(connect_failed)?;
        let hello = RankMessage::Hello {
            version: PROTOCOL_VERSION,
            attempt,
            rank,
            pid: std::process::id(),
        };
        send(&mut stream, &hello).map_err(welcome_failed)?;
        stream
            .set_read_timeout(Some(WELCOME_TIMEOUT))
            .map_err(connect_failed)?;
        let mut lines = BufReader::new(stream.try_clone().map_err(connect_failed)?);
        match read(&mut lines).map_err(welcome_failed)? {
            Some(AgentMessage::Welcome { version }) if version == PROTOCOL_VERSION => {}
            Some(AgentMessage::Welcome { version }) => {
                return Err(AgentLinkError::Version { agent: version });
            }
            Some(AgentMessage::StopAtStep { step }) => stop.request(step),
            None => return Err(welcome_failed(io::ErrorKind::UnexpectedEof.into())),
        }
        stream.set_read_timeout(None).map_err(connect_failed)?;

        let shared = Arc::new(Shared::default());
        let (queue, messages) = sync_channel(QUEUE);
        std::thread::spawn(move || listen(&mut lines, &stop));
        let for_writer = Arc::clone(&shared);
        let writer = std::thread::spawn(move || talk(stream, &messages, &for_writer));
        Ok(Self {
            queue,
            shared,
            writer,
        })
    }

    /// What heartbeats say from now on.
    pub fn beat(&self, step: u64, phase: Phase) {
        self.shared.step.store(step, Ordering::Relaxed);
        *lock(&self.shared.phase) = phase;
    }

    /// Sends new values of series; drops them when the agent has fallen far behind.
    pub fn metrics(&self, samples: Vec<Sample>) {
        match self.queue.try_send(RankMessage::Metrics { samples }) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Sends how the run stands.
    pub fn report(&self, report: RunReport, urgency: Urgency) {
        let report = Box::new(report);
        match urgency {
            Urgency::Now => {
                *lock(&self.shared.report) = None;
                self.send(RankMessage::Report(report));
            }
            Urgency::Soon => *lock(&self.shared.report) = Some(report),
        }
    }

    /// Says that a whole checkpoint is in `path`.
    pub fn snapshot(&self, step: u64, path: String, checksum: String) {
        self.send(RankMessage::Snapshot {
            step,
            path,
            checksum,
        });
    }

    /// Sends the last line and waits until all lines have left.
    pub fn finish(self, result: RankResult) {
        self.send(RankMessage::Result(result));
        drop(self.queue);
        // A writer that panicked has nothing more to say.
        let _ = self.writer.join();
    }

    /// Fails only after the connection broke, which the writer has said.
    fn send(&self, message: RankMessage) {
        let _ = self.queue.send(message);
    }
}

/// Writes what comes through the queue and, every [`BEAT`], a heartbeat and the report that waits.
fn talk(mut stream: UnixStream, messages: &Receiver<RankMessage>, shared: &Shared) {
    let mut next_beat = Instant::now();
    loop {
        let wait = next_beat.saturating_duration_since(Instant::now());
        let result = match messages.recv_timeout(wait) {
            Ok(message) => send(&mut stream, &message),
            Err(RecvTimeoutError::Timeout) => {
                next_beat = Instant::now() + BEAT;
                beat(&mut stream, shared)
            }
            Err(RecvTimeoutError::Disconnected) => {
                // The reading thread holds the socket too: without this, it and the agent would wait for
                // each other. An agent that is gone already needs no goodbye.
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        };
        if let Err(error) = result {
            crate::console::warn(&format!(
                "the connection to the agent broke ({error}); metrics and progress are no longer reported"
            ));
            return;
        }
    }
}

fn beat(stream: &mut UnixStream, shared: &Shared) -> io::Result<()> {
    let heartbeat = RankMessage::Heartbeat {
        step: shared.step.load(Ordering::Relaxed),
        phase: *lock(&shared.phase),
    };
    send(stream, &heartbeat)?;
    let report = lock(&shared.report).take();
    report.map_or(Ok(()), |report| send(stream, &RankMessage::Report(report)))
}

/// Passes requests to stop on until the connection ends.
fn listen(lines: &mut impl BufRead, stop: &StopRequest) {
    while let Ok(Some(message)) = read(lines) {
        match message {
            AgentMessage::StopAtStep { step } => stop.request(step),
            AgentMessage::Welcome { .. } => {}
        }
    }
}

fn send(stream: &mut UnixStream, message: &RankMessage) -> io::Result<()> {
    stream.write_all(encode(message)?.as_bytes())
}

/// The next message; `None` at the end of the connection.
fn read(lines: &mut impl BufRead) -> io::Result<Option<AgentMessage>> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// A panic while holding one of these locks cannot leave its value half-changed.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// Accepts one rank, answers its hello with `answer`, and returns all its lines.
    fn agent(listener: UnixListener, answer: &'static str) -> JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a rank");
            let mut lines = BufReader::new(stream.try_clone().expect("clone"));
            let mut hello = String::new();
            lines.read_line(&mut hello).expect("hello");
            stream.write_all(answer.as_bytes()).expect("answered");
            let rest = lines.lines().map(|line| line.expect("a line"));
            std::iter::once(hello.trim().to_owned())
                .chain(rest)
                .collect()
        })
    }

    fn connect(
        answer: &'static str,
    ) -> (
        Result<AgentLink, AgentLinkError>,
        JoinHandle<Vec<String>>,
        StopRequest,
    ) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("agent.sock");
        let agent = agent(UnixListener::bind(&path).expect("bound"), answer);
        let stop = StopRequest::default();
        let link = AgentLink::connect(&path, Attempt::default(), 3, stop.clone());
        (link, agent, stop)
    }

    const WELCOME: &str = "{\"type\":\"welcome\",\"version\":1}\n";

    #[test]
    fn lines_leave_in_order_and_the_result_is_the_last() {
        let (link, agent, _) = connect(WELCOME);
        let link = link.expect("welcomed");
        link.beat(4, Phase::Training);
        link.report(RunReport::default(), Urgency::Now);
        link.snapshot(4, "p".to_owned(), "c".to_owned());
        link.finish(RankResult {
            reason: None,
            message: "done".to_owned(),
        });
        let lines = agent.join().expect("no panic");
        let kind = |line: &String| {
            let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
            value["type"].as_str().expect("a type").to_owned()
        };
        let kinds: Vec<_> = lines
            .iter()
            .map(kind)
            .filter(|kind| kind != "heartbeat")
            .collect();
        assert_eq!(["hello", "report", "snapshot", "result"], kinds[..]);
    }

    #[test]
    fn the_agent_can_stop_the_rank() {
        let answer =
            "{\"type\":\"welcome\",\"version\":1}\n{\"type\":\"stopAtStep\",\"step\":12}\n";
        let (link, _agent, stop) = connect(answer);
        let _link = link.expect("welcomed");
        let deadline = Instant::now() + Duration::from_secs(10);
        while !stop.is_due(12) {
            assert!(Instant::now() < deadline, "the request never arrived");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!stop.is_due(11));
    }

    #[test]
    fn another_version_is_refused() {
        let (link, _agent, _) = connect("{\"type\":\"welcome\",\"version\":2}\n");
        let text = link.expect_err("refused").to_string();
        assert_eq!(
            "the agent speaks version 2 of the protocol, this program 1",
            text
        );
    }
}
