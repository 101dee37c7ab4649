//! `yolo-agent run`: wires the parts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use contract::exit::FailureReason;
use contract::spec::Cache;
use tokio::runtime;
use tokio::select;
use tokio::sync::mpsc::unbounded_channel;
use tracing::{error, info, warn};
use trainer_cache::{MakeError, hand_down};

use crate::group::Membership;
use crate::group::host::HostError;
use crate::katib::TrialError;
use crate::keeper::Keeper;
use crate::metrics::RegisterError;
use crate::outcome::Outcome;
use crate::ranks::Ranks;
use crate::settings::{RunArgs, Settings};
use crate::shared::Shared;
use crate::signals::{Caught, Signals};
use crate::socket::Hub;
use crate::worker::Worker;
use crate::{error_chain, http, preflight, socket, telemetry};

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
    /// The workers have no place to meet.
    #[error(transparent)]
    Group(#[from] HostError),
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
            | Self::Group(_)
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
    let told = |result: Result<(), TrialError>| {
        // The training itself is whole without it.
        if let Err(error) = result {
            warn!("{}", error_chain(&error));
        }
    };
    if let Some(trial) = &settings.trial {
        told(trial.begin());
    }
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
    if let Some(trial) = settings.trial.as_ref().filter(|_| outcome.exit_code == 0) {
        told(trial.complete(&settings.results(), std::process::id()));
    }
    outcome.exit_code.into()
}

async fn asked_to_stop(signals: &mut Signals) {
    while signals.next().await != Caught::Stop {}
}

async fn run_worker(settings: &Settings) -> Result<Outcome, RunError> {
    let Settings { args, place, .. } = settings;
    let mut signals = Signals::catch().map_err(RunError::Processes)?;
    Ranks::adopt_orphans().map_err(RunError::Processes)?;
    let cache = image_cache(settings)?;
    let handed = cache.as_ref().map(hand_down).transpose();
    let shared = Arc::new(Shared::new(&settings.job, place).map_err(RunError::Metrics)?);
    let listener = socket::bind(&args.socket).map_err(|source| RunError::Socket {
        path: args.socket.clone(),
        source,
    })?;
    // Nobody listens before the first attempt, and no rank runs.
    let (unheard, _) = unbounded_channel();
    let hub = Arc::new(Hub::new(place, Arc::clone(&shared), unheard));
    tokio::spawn(Arc::clone(&hub).serve(listener));
    let port = args.port;
    let listener = http::bind(port)
        .await
        .map_err(|source| RunError::Port { port, source })?;
    tokio::spawn(http::serve(listener, Arc::clone(&shared)));

    let problem = select! {
        problem = preflight::check(settings, &shared) => {
            problem.map(|problem| (FailureReason::PreflightFailed, problem))
        }
        // Volumes that do not answer are waited for longer than a pod that is to end has time.
        () = asked_to_stop(&mut signals) => Some((
            FailureReason::Stopped,
            "asked to stop before the volumes had answered".to_owned(),
        )),
    };
    if let Some((reason, problem)) = problem {
        return Ok(end_before_ranks(settings, reason, problem));
    }
    let keeper = args.keep.clone().map(Keeper::new);
    if let Some(keeper) = &keeper {
        tokio::spawn(keeper.clone().watch(Arc::clone(&shared)));
        if let Err(failure) = keeper.ready(&mut signals).await {
            return Ok(end_before_ranks(settings, failure.reason, failure.message));
        }
    }
    let membership = Membership::join(&settings.group, &shared).await?;
    let mut worker = Worker::new(
        settings,
        handed.map_err(RunError::HandDown)?,
        &shared,
        hub,
        membership,
    );
    let mut outcome = worker.run(&mut signals).await;
    outcome.result.restarted_after = shared.board().restarted_after();
    if let Some(keeper) = &keeper {
        let asked = worker.asked_at();
        keeper.settle(&mut outcome, asked, &mut signals).await;
    }
    log(&outcome);
    outcome.write(&args.termination_message_file);
    remove_socket(&args.socket);
    worker.leave().await;
    linger(
        &mut signals,
        Duration::from_secs(args.linger_seconds.into()),
    )
    .await;
    Ok(outcome)
}

fn end_before_ranks(settings: &Settings, reason: FailureReason, message: String) -> Outcome {
    let outcome = Outcome::of_agent(Some(&settings.place), reason, message);
    log(&outcome);
    outcome.write(&settings.args.termination_message_file);
    remove_socket(&settings.args.socket);
    outcome
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
    select! {
        () = tokio::time::sleep(time) => {}
        () = asked_to_stop(signals) => {}
    }
}
