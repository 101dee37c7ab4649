//! What each subcommand does: the edge at which errors become words and exit codes.

mod eval;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use contract::env::RankEnv;
use contract::exit::FailureReason;
use contract::protocol::RankResult;
use trainer_data::{DigitsConfig, make_dataset_digits};

use crate::agent_link::AgentLink;
use crate::cli::{
    AnchorsArgs, BenchArgs, CheckDataArgs, ConvertArgs, DigitsArgs, EvalArgs, ExportArgs, InfoArgs,
    PredictArgs, TrainArgs,
};
use crate::console::{self, Bar, Speaks, chain};
use crate::error::Error;
use crate::inspect::{self, InspectError};
use crate::job::{self, Request};
use crate::report::Reporter;
use crate::session::{CachePlaces, Session, StartOptions};
use crate::shutdown::StopRequest;
use crate::threads::{Threads, available_cpus};

/// The text of the last panic of the main thread.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// `train`.
pub fn train(args: &TrainArgs) -> ExitCode {
    let place = match RankEnv::read(variable) {
        Ok(place) => place,
        Err(error) => return failed(FailureReason::InvalidConfig, &chain(&error)),
    };
    let socket = variable(contract::env::AGENT_SOCKET);
    let prefix = if socket.is_some() || place.world_size > 1 {
        format!("[attempt {} rank {}] ", place.attempt, place.rank)
    } else {
        String::new()
    };
    let speaks = if place.rank == 0 {
        Speaks::Everything
    } else {
        Speaks::Problems
    };
    console::init(prefix, speaks);

    let mut reporter = Reporter::new(None, place.rank == 0);
    let result = without_panic(|| run_job(args, place, socket, &mut reporter));
    let (last_words, code) = match &result {
        Ok(message) => {
            reporter.say(message);
            let result = RankResult {
                reason: None,
                message: message.clone(),
            };
            (result, ExitCode::SUCCESS)
        }
        Err(error) => {
            let (reason, message) = (error.reason(), error.message());
            let code = failed(reason, &message);
            let reason = Some(reason);
            (RankResult { reason, message }, code)
        }
    };
    reporter.finish(last_words);
    code
}

fn run_job(
    args: &TrainArgs,
    place: RankEnv,
    socket: Option<String>,
    reporter: &mut Reporter,
) -> Result<String, Error> {
    let stop = StopRequest::from_signals().map_err(Error::Signals)?;
    if let Some(path) = socket {
        let (attempt, rank) = (place.attempt, place.rank);
        reporter.link(AgentLink::connect(
            Path::new(&path),
            attempt,
            rank,
            stop.clone(),
        )?);
    }
    let request = Request {
        manifest: args.manifest.clone(),
        dataset: args.dataset.clone(),
        output: args.output.clone(),
        data_file: args.data_file.clone(),
    };
    let resolved = job::resolve(&request, place, variable)?;
    if !resolved.unused.is_empty() {
        reporter.say(&format!(
            "without Kubernetes these parts of the manifest are not used: {}",
            resolved.unused.join(", ")
        ));
    }
    let options = StartOptions {
        stop,
        cache: CachePlaces {
            handed_down: variable(contract::env::CACHE_FD),
            scratch: args.scratch.clone().unwrap_or_else(std::env::temp_dir),
        },
        snapshots: variable(contract::env::SNAPSHOTS).map(PathBuf::from),
        verify_ranks: args.verify_ranks,
        faults: args.make_non_finite.clone(),
        out_of_memory: args.make_out_of_memory.clone(),
    };
    crate::train::train(Session::open(resolved.job, options, reporter)?)
}

/// `eval`.
pub fn eval(args: &EvalArgs) -> ExitCode {
    keep_output(args.json);
    match eval::eval(args) {
        Ok(text) => {
            console::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// `predict`.
pub fn predict(args: &PredictArgs) -> ExitCode {
    let result = local_threads()
        .apply()
        .map_err(crate::predict::PredictError::Libtorch)
        .and_then(|()| crate::predict::predict(args));
    match result {
        Ok(summary) => {
            console::say(&summary);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// `export`.
pub fn export(args: &ExportArgs) -> ExitCode {
    match crate::export::export(args) {
        Ok(summary) => {
            console::say(&summary);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// `convert`.
pub fn convert(args: &ConvertArgs) -> ExitCode {
    keep_output(args.output.is_none());
    match crate::convert::convert(args) {
        Ok(text) => {
            console::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// `info`.
pub fn info(args: &InfoArgs) -> ExitCode {
    keep_output(args.json || args.yaml);
    match crate::info::info(args) {
        Ok(text) => {
            console::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(FailureReason::InvalidConfig, &chain(&error)),
    }
}

/// `bench`.
pub fn bench(args: &BenchArgs) -> ExitCode {
    keep_output(args.json);
    match crate::bench::bench(args) {
        Ok(measured) if args.json => {
            console::say(&serde_json::to_string(&measured).expect("plain fields become JSON"));
            ExitCode::SUCCESS
        }
        Ok(measured) => {
            console::say(&measured.line());
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// `check-data`.
pub fn check_data(args: &CheckDataArgs) -> ExitCode {
    tell(inspect::check_data(args))
}

/// `anchors`.
pub fn anchors(args: &AnchorsArgs) -> ExitCode {
    tell(inspect::anchors(args))
}

/// Prints a report on a data set, or why there is none.
fn tell(report: Result<String, InspectError>) -> ExitCode {
    match report {
        Ok(text) => {
            console::say(&text);
            ExitCode::SUCCESS
        }
        Err(error) => failed(FailureReason::InvalidDataset, &chain(&error)),
    }
}

/// `make-dataset digits`.
pub fn make_digits(args: &DigitsArgs) -> ExitCode {
    let config = DigitsConfig {
        image_size: args.image_size,
        train: args.train,
        val: args.val,
        seed: args.seed,
        ..DigitsConfig::default()
    };
    let mut bar = Bar::new("scenes", u64::from(args.train) + u64::from(args.val));
    let result = make_dataset_digits(&args.output, &config, &mut |progress| {
        bar.set(progress.done.into(), String::new);
    });
    drop(bar);
    match result {
        Ok(summary) => {
            console::say(&format!(
                "{} scenes with {} digits in {}; train with dataset.config: data.yaml",
                summary.images,
                summary.objects,
                args.output.display()
            ));
            ExitCode::SUCCESS
        }
        Err(error) => failed(error.reason(), &chain(&error)),
    }
}

/// Keeps standard output for a document: JSON, a job, a model file.
fn keep_output(is_document: bool) {
    if is_document {
        console::init_document();
    }
}

/// All CPUs for one process.
fn local_threads() -> Threads {
    Threads::plan(&contract::spec::Training::default(), available_cpus(), 1)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn failed(reason: FailureReason, message: &str) -> ExitCode {
    console::fail(&format!("{message} ({})", reason.as_str()));
    ExitCode::from(reason.exit_code())
}

/// Makes panics one line without a backtrace; those of the main thread end up in an error.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let text = info.payload_as_str().unwrap_or("a panic without a text");
        let thread = std::thread::current();
        if thread.name() == Some("main") {
            *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = format!("{text}{place}");
        } else {
            let name = thread.name().unwrap_or("a thread");
            console::warn(&format!("{name} panicked: {text}{place}"));
        }
    }));
}

/// libtorch's calls report failures that are faults of this program by panicking.
fn without_panic<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let mut text = std::mem::take(&mut *PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        // One that came over from a thread, which the hook told of under that thread's name.
        if text.is_empty() {
            text = match payload.downcast::<String>() {
                Ok(text) => *text,
                Err(payload) => (*payload.downcast_ref::<&str>().unwrap_or(&"a panic")).to_string(),
            };
        }
        Err(Error::Panic(text))
    })
}

/// Does a command; one that panics ends with an error in a line, and its exit code.
pub fn guarded(command: impl FnOnce() -> ExitCode) -> ExitCode {
    without_panic(|| Ok(command())).unwrap_or_else(|error| failed(error.reason(), &error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        *PANIC.lock().expect("not poisoned") = "index out of bounds".to_owned();
        let error = without_panic::<()>(|| panic!("x")).expect_err("panicked");
        assert_eq!(FailureReason::Internal, error.reason());
        assert!(error.message().starts_with("index out of bounds"));
        // Nothing of the hook's: it was a thread's panic.
        let error = without_panic::<()>(|| std::panic::resume_unwind(Box::new("no pixel")));
        let message = error.expect_err("panicked").message();
        assert!(
            message.starts_with("no pixel; this is a fault"),
            "{message}"
        );
        let internal = ExitCode::from(FailureReason::Internal.exit_code());
        let code = guarded(|| panic!("in a command"));
        assert_eq!(format!("{internal:?}"), format!("{code:?}"));
    }
}
