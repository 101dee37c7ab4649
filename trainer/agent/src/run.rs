//! `yolo-agent run`: wires the parts, and does what the supervisor says.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contract::exit::FailureReason;
use contract::protocol::AgentMessage;
use contract::spec::Cache;
use tokio::runtime;
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep_until;
use tracing::{error, info, warn};
use trainer_cache::{MakeError, hand_down};

use crate::board::Board;
use crate::metrics::{RegisterError, TrainingMetrics};
use crate::outcome::Outcome;
use crate::ranks::{Launch, Ranks};
use crate::settings::{RunArgs, Settings};
use crate::shared::Shared;
use crate::signals::{Caught, Signals};
use crate::socket::Hub;
use crate::supervise::{Action, Event, Failure, Supervisor, Verdict, signal_name};
use crate::{error_chain, http, socket, telemetry};

/// The agent itself cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No event loop.
    #[error("the agent cannot start its event loop")]
    Runtime(#[source] io::Error),
    /// Signals cannot be caught, or orphans not adopted.
    #[error("the agent cannot look after processes")]
    Processes(#[source] io::Error),
    /// No socket for the ranks.
    #[error("the agent cannot listen on the socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The port is not to be had.
    #[error("the agent cannot listen on port {port}")]
    Port {
        /// Which.
        port: u16,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no place for decoded images.
    #[error(transparent)]
    Cache(#[from] MakeError),
    /// The file of decoded images cannot be handed to the ranks.
    #[error("the file of decoded images cannot be handed to the ranks")]
    HandDown(#[source] io::Error),
    /// The metrics cannot be set up.
    #[error("the agent cannot set up its metrics")]
    Metrics(#[source] RegisterError),
}

impl RunError {
    fn reason(&self) -> FailureReason {
        match self {
            Self::Metrics(_) => FailureReason::Internal,
            Self::Runtime(_)
            | Self::Processes(_)
            | Self::Socket { .. }
            | Self::Port { .. }
            | Self::Cache(_)
            | Self::HandDown(_) => FailureReason::IoFailed,
        }
    }
}

/// Runs the worker from the first rank's start to the last one's end, leaves the termination message,
/// and returns the container's exit code.
pub fn run(args: RunArgs, get_env: impl Fn(&str) -> Option<String>) -> ExitCode {
    let message_file = args.termination_message_file.clone();
    let settings = match Settings::read(args, get_env) {
        Ok(settings) => settings,
        Err(error) => {
            telemetry::init(None);
            let message = error_chain(&error);
            error!("{message}");
            let outcome = Outcome::of_agent(None, FailureReason::InvalidConfig, message);
            outcome.write(&message_file);
            return outcome.exit_code.into();
        }
    };
    telemetry::init(Some(&settings.place));
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(RunError::Runtime)
        .and_then(|runtime| runtime.block_on(run_worker(&settings)));
    let outcome = outcome.unwrap_or_else(|error| {
        let message = error_chain(&error);
        error!("{message}");
        let outcome = Outcome::of_agent(Some(&settings.place), error.reason(), message);
        outcome.write(&message_file);
        outcome
    });
    outcome.exit_code.into()
}

async fn run_worker(settings: &Settings) -> Result<Outcome, RunError> {
    let Settings { args, place, .. } = settings;
    let mut signals = Signals::catch().map_err(RunError::Processes)?;
    Ranks::adopt_orphans().map_err(RunError::Processes)?;
    let cache = image_cache(settings)?;
    let handed = cache.as_ref().map(hand_down).transpose();
    let metrics = TrainingMetrics::new(&settings.job, place.attempt).map_err(RunError::Metrics)?;
    let shared = Arc::new(Shared::new(Board::new(place.clone()), metrics));
    let listener = socket::bind(&args.socket).map_err(|source| RunError::Socket {
        path: args.socket.clone(),
        source,
    })?;
    let (sender, events) = unbounded_channel();
    let hub = Arc::new(Hub::new(place, Arc::clone(&shared), sender.clone()));
    tokio::spawn(Arc::clone(&hub).serve(listener));
    let port = args.port;
    let listener = http::bind(port)
        .await
        .map_err(|source| RunError::Port { port, source })?;
    tokio::spawn(http::serve(listener, Arc::clone(&shared)));

    let worker = Worker {
        settings,
        cache: handed.map_err(RunError::HandDown)?,
        shared: Arc::clone(&shared),
        hub,
        ranks: Ranks::default(),
        supervisor: Supervisor::new(place.ranks(), settings.patience()),
    };
    let outcome = worker.supervise(&mut signals, sender, events).await;
    log(&outcome);
    outcome.write(&args.termination_message_file);
    remove_socket(&args.socket);
    linger(
        &mut signals,
        Duration::from_secs(args.linger_seconds.into()),
    )
    .await;
    Ok(outcome)
}

/// The file in which the ranks keep decoded images, for the worker's whole life. A single rank has its own memory for
/// them, which is faster.
fn image_cache(settings: &Settings) -> Result<Option<File>, MakeError> {
    let Settings {
        training, place, ..
    } = settings;
    if training.cache == Cache::Ram && place.ranks_per_node == 1 {
        return Ok(None);
    }
    trainer_cache::make(training, &settings.args.scratch, 1)
}

/// The supervisor and the hands it has.
struct Worker<'a> {
    settings: &'a Settings,
    /// The number under which the file of decoded images is open.
    cache: Option<i32>,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    ranks: Ranks,
    supervisor: Supervisor,
}

impl Worker<'_> {
    async fn supervise(
        mut self,
        signals: &mut Signals,
        sender: UnboundedSender<Event>,
        mut events: UnboundedReceiver<Event>,
    ) -> Outcome {
        let mut happened = self.start_ranks(&sender);
        loop {
            for event in happened {
                if let Some(verdict) = self.handle(event) {
                    return self.finish(verdict);
                }
            }
            let deadline = self.supervisor.deadline();
            let tick = async {
                match deadline {
                    Some(at) => sleep_until(self.shared.instant(at).into()).await,
                    None => std::future::pending().await,
                }
            };
            happened = select! {
                // What ranks said comes before a signal that came after it: a rank that has just
                // said hello is to be asked, not signalled.
                biased;
                // The sender keeps the channel open.
                event = events.recv() => event.into_iter().collect(),
                caught = signals.next() => match caught {
                    Caught::Stop => {
                        info!("asked to stop");
                        vec![Event::StopRequested]
                    }
                    Caught::Forward(signal) => vec![Event::Forward(signal)],
                    Caught::Child => self.reap(),
                },
                () = tick => vec![Event::Tick],
            };
        }
    }

    /// Starts all ranks and returns what came of it. The supervisor hears of a failure only when all
    /// have had their turn: it may then signal those that run.
    fn start_ranks(&mut self, events: &UnboundedSender<Event>) -> Vec<Event> {
        let launch = Launch {
            command: &self.settings.args.command,
            place: &self.settings.place,
            socket: &self.settings.args.socket,
            config: &self.settings.config_path,
            cache: self.cache,
        };
        let mut failures = Vec::new();
        for rank in self.settings.place.ranks() {
            match self.ranks.start(rank, launch, events) {
                Ok(()) => self.shared.board().started(self.shared.now(), rank),
                Err(error) => {
                    let failure = Failure::explained(rank, error.reason(), error_chain(&error));
                    failures.push(Event::NotStarted { failure });
                }
            }
        }
        failures
    }

    fn reap(&mut self) -> Vec<Event> {
        let ended = self.ranks.reap();
        for &(rank, end) in &ended {
            info!("rank {rank} {end}");
            self.shared.board().exited(rank);
        }
        let events = ended.into_iter();
        events
            .map(|(rank, end)| Event::Exited { rank, end })
            .collect()
    }

    fn handle(&mut self, event: Event) -> Option<Verdict> {
        for action in self.supervisor.handle(self.shared.now(), event) {
            match action {
                Action::AskToStop { rank } => {
                    self.hub.send(rank, AgentMessage::StopAtStep { step: None });
                }
                Action::Signal { rank, signal } => {
                    info!("sending {} to rank {rank}", signal_name(signal.as_raw()));
                    self.ranks.signal(rank, signal);
                }
                Action::Finish(verdict) => return Some(verdict),
            }
        }
        None
    }

    fn finish(self, verdict: Verdict) -> Outcome {
        self.ranks.kill_leftovers();
        let failed = verdict.failure.as_ref().map(|failure| failure.rank);
        let log_end = failed
            .map(|rank| self.ranks.log_end(rank))
            .unwrap_or_default();
        let report = self.shared.board().report().cloned();
        Outcome::of_ranks(&self.settings.place, verdict, &log_end, report)
    }
}

fn log(outcome: &Outcome) {
    match outcome.result.reason {
        None => info!("all ranks succeeded"),
        Some(reason) => error!(
            exit_code = outcome.exit_code,
            "{}: {}",
            reason.as_str(),
            outcome.result.message
        ),
    }
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        warn!("cannot remove the socket {}: {error}", path.display());
    }
}

/// Leaves the HTTP server up for a last scrape, unless the worker is asked to end.
async fn linger(signals: &mut Signals, time: Duration) {
    let asked = async { while signals.next().await != Caught::Stop {} };
    select! {
        () = tokio::time::sleep(time) => {}
        () = asked => {}
    }
}
