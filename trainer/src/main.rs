//! The program `yolo-trainer`.

use std::process::ExitCode;

fn main() -> ExitCode {
    trainer::cli::main()
}
