//! The command line: what is fetched, and where to.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use contract::config::JobConfig;
use contract::{env, paths};

use crate::error::FetchError;

/// Fills a volume with the data set of a job, from object storage or from an archive.
#[derive(Clone, Debug, Parser)]
#[command(name = "yolo-fetch", version)]
pub struct Cli {
    /// The job's frozen configuration, whose data set is fetched.
    #[arg(long, env = env::CONFIG, default_value = paths::CONFIG_FILE)]
    pub config: PathBuf,
    /// The folder to fill.
    #[arg(long, env = env::FETCH_FOLDER, default_value = paths::FETCH_DIR)]
    pub folder: PathBuf,
    /// The file the kubelet reads the last words from.
    #[arg(
        long,
        env = "YOLO_TERMINATION_MESSAGE_FILE",
        default_value = paths::TERMINATION_MESSAGE_FILE
    )]
    pub termination_message_file: PathBuf,
    /// Without one, the data set is fetched.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else the program can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Keeps the folder of a run in an object store, until it is asked to stop.
    Keep(KeepArgs),
}

/// The flags of `keep`.
#[derive(Clone, Debug, Args)]
pub struct KeepArgs {
    /// The folder in which the run has its own.
    #[arg(long, env = "YOLO_OUTPUT", default_value = paths::OUTPUT_DIR)]
    pub output: PathBuf,
    /// The folder through which the keeper and the agent speak.
    #[arg(long, env = env::KEEP, default_value = paths::KEEP_DIR)]
    pub desk: PathBuf,
    /// What tells this pod from others of the same worker.
    #[arg(long, env = "POD_NAME")]
    pub owner: String,
}

/// Reads the job's configuration.
pub fn config(path: &Path) -> Result<JobConfig, FetchError> {
    let text = std::fs::read_to_string(path).map_err(|source| FetchError::ReadConfig {
        path: path.to_owned(),
        source,
    })?;
    JobConfig::from_json(&text).map_err(|source| FetchError::Config {
        path: path.to_owned(),
        source,
    })
}
