//! The operator's process.

use std::process::ExitCode;

use clap::Parser as _;
use operator::settings::Arguments;
use operator::telemetry::{self, chain};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match arguments.check(operator::run::host_name()) {
        Ok(settings) => settings,
        Err(error) => return complain(&error),
    };
    if let Err(error) = telemetry::start(settings.log_format, &settings.log_level) {
        return complain(&error);
    }
    match operator::run::run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the operator ends");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "there is no log yet")]
fn complain(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    eprintln!("yolo-operator: {}", chain(error));
    ExitCode::from(2)
}
