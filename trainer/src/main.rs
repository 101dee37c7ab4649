//! The program `yolo-trainer`.

use std::process::ExitCode;

use clap::Parser as _;
use trainer::{cli, commands};

fn main() -> ExitCode {
    commands::install_panic_hook();
    commands::guarded(|| cli::run(cli::Cli::parse()))
}
