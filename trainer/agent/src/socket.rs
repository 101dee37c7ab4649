//! The Unix socket over which ranks talk to the agent: [`contract::protocol`].
//!
//! A rank's connection is known by its hello. Whatever else comes, a line that cannot be understood
//! is logged and dropped: a rank's bug must not end its neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::attempt::Attempt;
use contract::metric_names::{TRAIN_STEP_SECONDS, TRAIN_WAIT_SECONDS};
use contract::protocol::{AgentMessage, PROTOCOL_VERSION, RankMessage, Sample, encode};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{debug, info, warn};

use crate::error_chain;
use crate::lines::{Line, Lines, MAX_LINE};
use crate::place::Place;
use crate::shared::Shared;
use crate::supervise::Event;

/// So many different complaints about samples are logged; a rank could invent names for ever.
const MAX_COMPLAINTS: usize = 50;

/// Why a connection was closed after its first line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Refusal {
    #[error("its first line is not hello")]
    NotHello,
    #[error("it speaks version {version} of the protocol, this agent {PROTOCOL_VERSION}")]
    Version { version: u32 },
    #[error("it belongs to attempt {attempt}, this agent to {expected}")]
    Attempt { attempt: Attempt, expected: Attempt },
    #[error("rank {rank} is not one of this worker's, {} to {}", ranks.start, ranks.end - 1)]
    Rank { rank: u32, ranks: Range<u32> },
}

/// The connections of all ranks.
pub struct Hub {
    ranks: Range<u32>,
    shared: Arc<Shared>,
    links: Mutex<Links>,
    complaints: Mutex<BTreeSet<String>>,
}

struct Links {
    /// The attempt whose ranks are welcome.
    attempt: Attempt,
    /// Where its supervisor listens.
    events: UnboundedSender<Event>,
    /// Numbers connections, so that the end of a replaced one is not taken for that of its successor.
    next: u64,
    open: BTreeMap<u32, (u64, UnboundedSender<AgentMessage>)>,
}

/// Makes the socket. What a killed agent left at `path` is removed; anything but a socket is not.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        // Binding says what is wrong with anything else.
        Ok(_) | Err(_) => {}
    }
    UnixListener::bind(path)
}

impl Hub {
    /// Nobody is connected yet. Connections, their ends and results go to `events`; the other news to
    /// `shared`.
    pub fn new(place: &Place, shared: Arc<Shared>, events: UnboundedSender<Event>) -> Self {
        Self {
            ranks: place.ranks(),
            shared,
            links: Mutex::new(Links {
                attempt: place.attempt,
                events,
                next: 0,
                open: BTreeMap::new(),
            }),
            complaints: Mutex::default(),
        }
    }

    /// Turns to the ranks of another attempt: those of the one before are heard no more.
    pub fn begin(&self, attempt: Attempt, events: UnboundedSender<Event>) {
        let mut links = self.links();
        links.attempt = attempt;
        links.events = events;
        links.open.clear();
    }

    /// Takes connections until the task is aborted.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(Arc::clone(&self).converse(stream));
                }
                Err(error) => {
                    warn!("a rank's connection could not be accepted: {error}");
                    // Without descriptors the next try fails too, for a while.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Sends a line to a rank; without a connection it is dropped.
    pub fn send(&self, rank: u32, message: AgentMessage) {
        if let Some((_, sender)) = self.links().open.get(&rank) {
            // A closed channel is a connection that is about to be taken down.
            let _ = sender.send(message);
        }
    }

    async fn converse(self: Arc<Self>, stream: UnixStream) {
        let (read, write) = stream.into_split();
        let mut lines = Lines::new(BufReader::new(read));
        let Some(first) = lines.next().await else {
            return;
        };
        let rank = match self.check_hello(&first) {
            Ok(rank) => rank,
            Err(refusal) => {
                warn!("a connection is closed: {refusal}");
                return;
            }
        };
        let (sender, receiver) = unbounded_channel();
        let version = PROTOCOL_VERSION;
        // The receiver is alive: it is moved into the task below.
        let _ = sender.send(AgentMessage::Welcome { version });
        tokio::spawn(write_messages(write, receiver));
        let link = self.join(rank, sender);
        while let Some(line) = lines.next().await {
            if !self.is_open(rank, link) {
                return;
            }
            self.take_line(rank, &line);
        }
        self.leave(rank, link);
    }

    fn check_hello(&self, line: &Line) -> Result<u32, Refusal> {
        let Line::Whole(line) = line else {
            return Err(Refusal::NotHello);
        };
        let Ok(RankMessage::Hello {
            version,
            attempt,
            rank,
            pid,
        }) = serde_json::from_slice(line)
        else {
            return Err(Refusal::NotHello);
        };
        if version != PROTOCOL_VERSION {
            return Err(Refusal::Version { version });
        }
        let expected = self.links().attempt;
        if attempt != expected {
            return Err(Refusal::Attempt { attempt, expected });
        }
        if !self.ranks.contains(&rank) {
            let ranks = self.ranks.clone();
            return Err(Refusal::Rank { rank, ranks });
        }
        debug!(rank, pid, "connected");
        Ok(rank)
    }

    fn join(&self, rank: u32, sender: UnboundedSender<AgentMessage>) -> u64 {
        let mut links = self.links();
        let link = links.next;
        links.next += 1;
        links.open.insert(rank, (link, sender));
        drop(links);
        self.shared.board().heard(self.shared.now(), rank);
        self.tell(Event::Connected { rank });
        link
    }

    fn is_open(&self, rank: u32, link: u64) -> bool {
        let links = self.links();
        links.open.get(&rank).is_some_and(|(open, _)| *open == link)
    }

    fn leave(&self, rank: u32, link: u64) {
        let mut links = self.links();
        if links.open.get(&rank).is_some_and(|(open, _)| *open == link) {
            links.open.remove(&rank);
            drop(links);
            self.shared.board().left(rank);
            self.tell(Event::Disconnected { rank });
        }
    }

    fn take_line(&self, rank: u32, line: &Line) {
        self.shared.board().heard(self.shared.now(), rank);
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => {
                warn!(rank, "a line of more than {MAX_LINE} bytes is dropped");
                return;
            }
        };
        match serde_json::from_slice(line) {
            Ok(message) => self.take(rank, message),
            Err(error) => warn!(rank, "a line that is no message is dropped: {error}"),
        }
    }

    fn take(&self, rank: u32, message: RankMessage) {
        match message {
            RankMessage::Hello { .. } => warn!(rank, "a second hello is dropped"),
            RankMessage::Heartbeat { step, phase } => {
                self.shared.board().at_step(rank, step, phase);
            }
            RankMessage::Metrics { samples } => {
                if let Some((step, waited)) = pace(&samples) {
                    self.shared.board().paced(rank, step, waited);
                }
                for sample in samples {
                    if let Err(dropped) = self.shared.metrics().record(rank, &sample) {
                        self.complain(rank, &error_chain(&dropped));
                    }
                }
            }
            RankMessage::Report(report) => self.shared.board().reported(rank, *report),
            RankMessage::Snapshot {
                step,
                path,
                checksum,
            } => info!(rank, step, path, checksum, "snapshot"),
            RankMessage::Result(result) => self.tell(Event::Said { rank, result }),
        }
    }

    /// Logs a complaint about a sample once.
    fn complain(&self, rank: u32, complaint: &str) {
        let mut complaints = self
            .complaints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if complaints.len() < MAX_COMPLAINTS && complaints.insert(complaint.to_owned()) {
            warn!(rank, "a sample is dropped: {complaint}");
        }
    }

    fn tell(&self, event: Event) {
        // Without a receiver the agent is at its end.
        let _ = self.links().events.send(event);
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds of a step and of waiting for the others in it, where the samples have both.
fn pace(samples: &[Sample]) -> Option<(f64, f64)> {
    let step = samples
        .iter()
        .find(|sample| sample.metric == TRAIN_STEP_SECONDS.name)?;
    let waited = samples.iter().find(|sample| {
        sample.metric == TRAIN_WAIT_SECONDS.name
            && sample.labels.get("on").is_some_and(|on| on == "collective")
    })?;
    Some((step.value, waited.value))
}

async fn write_messages(mut write: OwnedWriteHalf, mut messages: UnboundedReceiver<AgentMessage>) {
    while let Some(message) = messages.recv().await {
        let Ok(line) = encode(&message) else {
            continue;
        };
        if write.write_all(line.as_bytes()).await.is_err() {
            // The reading half sees the same end and takes the connection down.
            return;
        }
    }
}

#[cfg(test)]
mod tests;
