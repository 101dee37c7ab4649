//! The program `yolo-agent`.

use std::process::ExitCode;

use agent::settings::{Cli, Command};
use agent::{error_chain, install, run, telemetry};
use clap::Parser;
use contract::exit::FailureReason;
use tracing::{error, info};

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
    match cli.command {
        Command::Run(args) => run::run(args, |name| std::env::var(name).ok()),
        Command::Install { dir } => {
            telemetry::init(None);
            match install::install(&dir) {
                Ok(path) => {
                    info!("installed {}", path.display());
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    error!("{}", error_chain(&error));
                    FailureReason::IoFailed.exit_code().into()
                }
            }
        }
    }
}
