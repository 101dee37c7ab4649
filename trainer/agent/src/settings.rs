//! The command line and the environment: as written ([`Cli`]), then as meant ([`Settings`]).

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use contract::attempt::Attempt;
use contract::config::{ConfigError, JobConfig, JobIdentity};
use contract::spec::Training;
use contract::{env, paths};

use crate::group::coordinator::Rules;
use crate::katib::Trial;
use crate::place::{Place, PlaceError};
use crate::supervise::Patience;

/// PID 1 of a worker pod: starts ranks, serves metrics and progress.
#[derive(Debug, Parser)]
#[command(name = "yolo-agent", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copies this program into a folder (what the init container does).
    Install {
        /// The folder; the copy is DIR/yolo-agent.
        dir: PathBuf,
    },
    /// Starts the ranks of this worker and looks after them until they have ended.
    Run(RunArgs),
}

/// The flags of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The Unix socket on which ranks talk to the agent; it is made anew.
    #[arg(long, env = env::AGENT_SOCKET, default_value = paths::AGENT_SOCKET)]
    pub socket: PathBuf,
    /// The TCP port of /metrics, /progress and /healthz; 0 takes a free one and logs it.
    #[arg(long, env = "YOLO_AGENT_PORT", default_value_t = paths::AGENT_PORT)]
    pub port: u16,
    /// The file the kubelet reads the worker's final words from.
    #[arg(
        long,
        env = "YOLO_TERMINATION_MESSAGE_FILE",
        default_value = paths::TERMINATION_MESSAGE_FILE
    )]
    pub termination_message_file: PathBuf,
    /// Seconds from SIGTERM until ranks that have not ended get SIGTERM themselves. With the three
    /// seconds until SIGKILL it must stay below the pod's terminationGracePeriodSeconds.
    #[arg(long, env = "YOLO_STOP_GRACE_SECONDS", default_value_t = 25)]
    pub stop_grace_seconds: u32,
    /// Seconds that the other ranks of this worker have to end by themselves when one has failed.
    #[arg(long, env = "YOLO_PEER_GRACE_SECONDS", default_value_t = 10)]
    pub peer_grace_seconds: u32,
    /// Seconds to go on serving /metrics and /progress after the ranks have ended.
    #[arg(long, env = "YOLO_LINGER_SECONDS", default_value_t = 0)]
    pub linger_seconds: u32,
    /// The folder for the file of decoded images when training.cache is disk; nothing stays in it.
    #[arg(long, env = "YOLO_SCRATCH", default_value = paths::CACHE_DIR)]
    pub scratch: PathBuf,
    /// The file with the secret that the agents of a job share; without it this worker is on its own.
    #[arg(long, env = env::GROUP_TOKEN_FILE)]
    pub group_token_file: Option<PathBuf>,
    /// The TCP port on worker 0 at which the agents meet.
    #[arg(long, env = "YOLO_GROUP_PORT", default_value_t = paths::GROUP_PORT)]
    pub group_port: u16,
    /// How often ranks may be started anew in place; what is counted against failurePolicy.maxRestarts.
    #[arg(long, env = env::RESTARTS_LEFT, default_value_t = 0)]
    pub restarts_left: u32,
    /// Which pod of this worker it is; the agents listen to the one with the highest number.
    #[arg(long, env = env::POD_NUMBER, default_value_t = 0)]
    pub pod_number: u32,
    /// The folder through which the keeper of a run in an object store speaks; without it the run is on a volume.
    #[arg(long, env = env::KEEP)]
    pub keep: Option<PathBuf>,
    /// The folder in which Katib collects the metrics of a trial, where this worker is one.
    #[arg(long, env = "YOLO_KATIB_FOLDER", default_value = paths::KATIB_DIR)]
    pub katib: PathBuf,
    /// The program that each rank runs, and its arguments.
    #[arg(required = true, last = true, value_name = "PROGRAM")]
    pub command: Vec<OsString>,
}

/// Everything `run` needs to know, checked.
#[derive(Debug)]
pub struct Settings {
    /// The flags.
    pub args: RunArgs,
    /// Where this worker is in the group.
    pub place: Place,
    /// Path of the frozen job configuration.
    pub config_path: PathBuf,
    /// Whose worker this is.
    pub job: JobIdentity,
    /// GPUs that this worker should see.
    pub gpus: u32,
    /// Whether the ranks run another program than the trainer, whose needs are not known.
    pub other_program: bool,
    /// The trial of Katib that it is, if it is one.
    pub trial: Option<Trial>,
    /// What ranks are told of training, for the cache of images.
    pub training: Training,
    /// The job's agents.
    pub group: Group,
}

/// A secret, which is not shown by accident.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// What an agent knows of the others of its job.
#[derive(Clone, Debug)]
pub struct Group {
    /// How many workers there are.
    pub workers: u32,
    /// Which one this is.
    pub worker: u32,
    /// The attempt that this worker's pod was made for.
    pub attempt: Attempt,
    /// Which pod of this worker it is.
    pub number: u32,
    /// What only the agents of this job know; without it this worker is on its own.
    pub token: Option<Token>,
    /// Host name of worker 0.
    pub address: String,
    /// The port there.
    pub port: u16,
    /// The node that this worker is on.
    pub node: Option<String>,
    /// What follows a failure.
    pub rules: Rules,
}

/// The worker cannot be what its environment says.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The pod's variables are incomplete or wrong.
    #[error("this worker's place in the group is unclear")]
    Place(#[source] PlaceError),
    /// The variable with the configuration's path is absent.
    #[error(
        "the environment variable {} is not set: it names the file with the job's configuration",
        env::CONFIG
    )]
    ConfigMissing,
    /// The configuration file cannot be read.
    #[error("cannot read the job configuration {}", path.display())]
    ReadConfig {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The configuration file holds something else.
    #[error("{} is not a job configuration this agent can use", path.display())]
    ParseConfig {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ConfigError,
    },
    /// The secret of the group cannot be read.
    #[error("cannot read the secret of this job's workers, {}", path.display())]
    ReadToken {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An empty secret keeps nobody out.
    #[error("the secret of this job's workers, {}, is empty", path.display())]
    EmptyToken {
        /// Its path.
        path: PathBuf,
    },
    /// The environment and the configuration contradict each other.
    #[error(
        "{}={from_env}, but workers.processesPerWorker of the job configuration is {from_config}",
        env::NPROC_PER_NODE
    )]
    Layout {
        /// What the environment says.
        from_env: u32,
        /// What the configuration says.
        from_config: u32,
    },
}

impl Settings {
    /// Completes the flags from the environment, looked up by `get`, and from the job's configuration.
    pub fn read(
        args: RunArgs,
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let place = Place::read(&get).map_err(SettingsError::Place)?;
        let config_path: PathBuf = get(env::CONFIG).ok_or(SettingsError::ConfigMissing)?.into();
        let text = fs::read_to_string(&config_path).map_err(|source| {
            let path = config_path.clone();
            SettingsError::ReadConfig { path, source }
        })?;
        let config = JobConfig::from_json(&text).map_err(|source| {
            let path = config_path.clone();
            SettingsError::ParseConfig { path, source }
        })?;
        // The number of workers may differ: a group that shrank or grew keeps its configuration.
        if place.ranks_per_node != config.workers.processes_per_worker {
            return Err(SettingsError::Layout {
                from_env: place.ranks_per_node,
                from_config: config.workers.processes_per_worker,
            });
        }
        let token = args.group_token_file.as_deref().map(token).transpose()?;
        // Alone among others, a worker cannot restart its ranks: theirs would not.
        let alone = token.is_none() && place.nodes > 1;
        let group = Group {
            workers: place.nodes,
            worker: place.node_rank,
            attempt: place.attempt,
            number: args.pod_number,
            token,
            address: place.master_addr.clone(),
            port: args.group_port,
            node: get(env::NODE_NAME),
            rules: Rules {
                policy: config.failure_policy.unwrap_or_default(),
                restarts_left: if alone { 0 } else { args.restarts_left },
            },
        };
        let trial = Trial::find(&args.katib, &get);
        Ok(Self {
            args,
            place,
            group,
            trial,
            config_path,
            gpus: config.workers.gpus_per_worker,
            other_program: !config.command.is_empty(),
            job: config.job,
            training: config.spec.training,
        })
    }

    /// The run's table of epochs.
    pub fn results(&self) -> PathBuf {
        let run = paths::run_folder(&self.job.name, &self.job.uid);
        Path::new(paths::OUTPUT_DIR).join(run).join(paths::RESULTS)
    }

    /// How long ranks are waited for.
    pub fn patience(&self) -> Patience {
        Patience {
            stop: Duration::from_secs(self.args.stop_grace_seconds.into()),
            peers: Duration::from_secs(self.args.peer_grace_seconds.into()),
            kill: Duration::from_secs(3),
        }
    }
}

fn token(path: &Path) -> Result<Token, SettingsError> {
    let path = path.to_owned();
    match fs::read_to_string(&path) {
        Ok(token) if token.is_empty() => Err(SettingsError::EmptyToken { path }),
        Ok(token) => Ok(Token(token)),
        Err(source) => Err(SettingsError::ReadToken { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_args(line: &[&str]) -> Result<RunArgs, clap::Error> {
        let line = ["yolo-agent", "run"].iter().chain(line);
        match Cli::try_parse_from(line)?.command {
            Command::Run(args) => Ok(args),
            Command::Install { .. } => unreachable!("the line says run"),
        }
    }

    #[test]
    fn the_program_and_its_flags_come_after_two_dashes() {
        let args = run_args(&["--port", "0", "--", "yolo-trainer", "train", "--port", "7"]);
        let args = args.expect("valid");
        assert_eq!(
            (0, 25, 10, 0),
            (
                args.port,
                args.stop_grace_seconds,
                args.peer_grace_seconds,
                args.linger_seconds,
            )
        );
        assert_eq!(
            ["yolo-trainer", "train", "--port", "7"],
            args.command.as_slice()
        );
    }

    #[test]
    fn a_program_is_required() {
        assert!(run_args(&[]).is_err());
        assert!(run_args(&["--"]).is_err());
    }
}
