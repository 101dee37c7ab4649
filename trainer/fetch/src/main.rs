//! The program `yolo-fetch`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use contract::exit::FailureReason;
use fetch::error::{FetchError, chain};
use fetch::folder::Complete;
use fetch::keep::{self, Desk};
use fetch::run::run;
use fetch::settings::{self, Cli, Command, KeepArgs};
use fetch::source::Patience;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no mistakes.
            let _ = error.print();
            return if error.use_stderr() {
                FailureReason::InvalidConfig.exit_code().into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // Only our own lines: those of the libraries may hold what servers answered.
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("off,fetch=info,yolo_fetch=info"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    let done = match &cli.command {
        None => serve(&cli).map(|Complete { files, bytes }| {
            info!("complete: {files} files, {bytes} bytes");
        }),
        Some(Command::Keep(args)) => keep(&cli, args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = chain(&error);
            error!("{text}");
            // Where there is no such file nobody waits for it.
            let _ = std::fs::write(&cli.termination_message_file, &text);
            error.reason().exit_code().into()
        }
    }
}

fn serve(cli: &Cli) -> Result<Complete, FetchError> {
    let config = settings::config(&cli.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(FetchError::volume("start threads for", "/"))?;
    let result = runtime.block_on(async {
        let terminate = signal(SignalKind::terminate());
        let interrupt = signal(SignalKind::interrupt());
        let (mut terminate, mut interrupt) = (
            terminate.map_err(FetchError::volume("receive signals in", "/"))?,
            interrupt.map_err(FetchError::volume("receive signals in", "/"))?,
        );
        // A task of its own: unpacking holds up the one that does it, and a signal must be seen all the same.
        let folder = cli.folder.clone();
        let dataset = config.spec.dataset;
        let work = tokio::spawn(async move {
            run(&dataset, &folder, Patience::default(), |name| {
                std::env::var(name).ok()
            })
            .await
        });
        tokio::select! {
            result = work => match result {
                Ok(result) => result,
                // Nobody cancels it, so only a panic ends it otherwise.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            _ = terminate.recv() => Err(FetchError::Stopped),
            _ = interrupt.recv() => Err(FetchError::Stopped),
        }
    });
    // What still unpacks need not be awaited: the next fetch does it again.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Keeps a run until it is asked to stop.
fn keep(cli: &Cli, args: &KeepArgs) -> Result<(), FetchError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let owner = format!("{} {}", args.owner, now.unwrap_or_default().as_millis());
    let desk = Desk::open(&args.desk, &owner);
    let config = settings::config(&cli.config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(FetchError::volume("start threads for", "/"))?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate());
        let mut terminate = terminate.map_err(FetchError::volume("receive signals in", "/"))?;
        let stop = async move {
            terminate.recv().await;
        };
        keep::keep(config, &args.output, &desk, stop).await
    })
}
