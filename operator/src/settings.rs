//! Flags and environment: typed as they are written ([`Arguments`]), checked into what is meant
//! ([`Settings`]).

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Parser, ValueEnum};
use contract::config::Images;
use jiff::SignedDuration;

use crate::training_job::Policy;
use crate::training_job::pace::Pace;

/// Trains YOLOv5 on Kubernetes: turns YoloTrainingJobs into worker pods and keeps them together.
#[derive(Clone, Debug, Parser)]
#[command(name = "yolo-operator", version)]
pub struct Arguments {
    /// Image that runs the training processes. Each job keeps the one it was started with.
    #[arg(long, env = "YOLO_TRAINER_IMAGE")]
    trainer_image: String,
    /// Image that brings the agent into each worker; it is the operator's own image.
    #[arg(long, env = "YOLO_AGENT_IMAGE")]
    agent_image: String,
    /// When nodes pull both images.
    #[arg(
        long,
        env = "YOLO_IMAGE_PULL_POLICY",
        value_enum,
        default_value = "IfNotPresent"
    )]
    image_pull_policy: PullPolicy,
    /// The only namespace to look at. Default: all.
    #[arg(long, env = "YOLO_NAMESPACE")]
    namespace: Option<String>,
    /// Namespace of the lease that replicas elect their leader by: the operator's own.
    #[arg(long, env = "POD_NAMESPACE")]
    lease_namespace: String,
    /// Name of that lease.
    #[arg(long, env = "YOLO_LEASE_NAME", default_value = "yolo-operator")]
    lease_name: String,
    /// This replica's name in the lease. Default: the host's name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Address of /healthz, /readyz and /metrics; of several, the first that this machine has.
    #[arg(
        long,
        env = "YOLO_LISTEN",
        value_delimiter = ',',
        default_value = "[::]:8080,0.0.0.0:8080"
    )]
    listen: Vec<SocketAddr>,
    /// Form of the log lines.
    #[arg(long, env = "YOLO_LOG_FORMAT", value_enum, default_value = "json")]
    log_format: LogFormat,
    /// Which log lines: error, warn, info, debug, or per module as in `info,kube=debug`.
    #[arg(long, env = "YOLO_LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// Seconds between reads of a running job's progress.
    #[arg(long, env = "YOLO_PROGRESS_INTERVAL_SECONDS", default_value_t = 5)]
    progress_interval_seconds: u64,
    /// Whether workers are scheduled as a gang where the API server serves a kind of `PodGroup`; the operator must
    /// then be allowed to create and delete them.
    #[arg(long, env = "YOLO_GANG_SCHEDULING", default_value_t = true, action = ArgAction::Set)]
    gang_scheduling: bool,
    /// Least seconds between two statuses of a job in which only its progress differs. With more than 20 jobs for each
    /// of these seconds it takes longer: 20 such statuses a second are written over all jobs.
    #[arg(long, env = "YOLO_STATUS_INTERVAL_SECONDS", default_value_t = 10)]
    status_interval_seconds: u64,
}

/// When nodes pull images, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// At every start.
    #[value(name = "Always")]
    Always,
    /// When the node does not have it.
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    /// Never.
    #[value(name = "Never")]
    Never,
}

impl PullPolicy {
    fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the operator does, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Images and pace of jobs.
    pub policy: Policy,
    /// The only namespace to look at; `None` is all.
    pub namespace: Option<String>,
    /// Namespace of the lease.
    pub lease_namespace: String,
    /// Name of the lease.
    pub lease_name: String,
    /// This replica's name in it.
    pub identity: String,
    /// Address of the web server.
    pub listen: Vec<SocketAddr>,
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Filter of the log lines.
    pub log_level: String,
    /// Time between reads of a running job's progress.
    pub progress_interval: Duration,
    /// Whether workers may be scheduled as a gang.
    pub gang_scheduling: bool,
}

/// A setting that cannot be obeyed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// A setting is empty.
    #[error("{flag} is empty: give {wanted}")]
    Empty {
        /// Its flag.
        flag: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// An interval is zero or beyond an hour.
    #[error("{flag} is {value}: choose 1 to 3600")]
    Interval {
        /// Its flag.
        flag: &'static str,
        /// Its value.
        value: u64,
    },
    /// There is no name for this replica.
    #[error("this replica has no name: set --identity or POD_NAME")]
    NoIdentity,
}

impl Arguments {
    /// Checks the arguments; `host_name` is used where no identity is given.
    pub fn check(self, host_name: Option<String>) -> Result<Settings, SettingsError> {
        let empties = [
            ("--trainer-image", &self.trainer_image, "an image reference"),
            ("--agent-image", &self.agent_image, "an image reference"),
            ("--lease-namespace", &self.lease_namespace, "a namespace"),
            ("--lease-name", &self.lease_name, "a name"),
        ];
        for (flag, value, wanted) in empties {
            if value.trim().is_empty() {
                return Err(SettingsError::Empty { flag, wanted });
            }
        }
        let intervals = [
            (
                "--progress-interval-seconds",
                self.progress_interval_seconds,
            ),
            ("--status-interval-seconds", self.status_interval_seconds),
        ];
        for (flag, value) in intervals {
            if !(1..=3600).contains(&value) {
                return Err(SettingsError::Interval { flag, value });
            }
        }
        let named = |name: &String| !name.trim().is_empty();
        Ok(Settings {
            policy: Policy {
                images: Images {
                    trainer: self.trainer_image,
                    agent: self.agent_image,
                    pull_policy: self.image_pull_policy.as_str().to_owned(),
                },
                pace: Pace {
                    progress: SignedDuration::from_secs(self.status_interval_seconds as i64),
                    workers: SignedDuration::from_secs(1),
                },
            },
            // An empty value is how a chart writes "all".
            namespace: self.namespace.filter(named),
            lease_namespace: self.lease_namespace,
            lease_name: self.lease_name,
            identity: self
                .identity
                .or(host_name)
                .filter(named)
                .ok_or(SettingsError::NoIdentity)?,
            listen: self.listen,
            log_format: self.log_format,
            log_level: self.log_level,
            progress_interval: Duration::from_secs(self.progress_interval_seconds),
            gang_scheduling: self.gang_scheduling,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(extra: &[&str]) -> Result<Settings, SettingsError> {
        let least = [
            "yolo-operator",
            "--trainer-image=t:1",
            "--agent-image=o:1",
            "--lease-namespace=yolo",
        ];
        Arguments::try_parse_from(least.iter().chain(extra))
            .expect("well-formed")
            .check(Some("host".to_owned()))
    }

    #[test]
    fn the_least_arguments_are_enough() {
        let settings = settings(&[]).expect("valid");
        assert_eq!("host", settings.identity);
        assert_eq!("IfNotPresent", settings.policy.images.pull_policy);
        assert_eq!(None, settings.namespace);
        assert_eq!(Duration::from_secs(5), settings.progress_interval);
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_flag() {
        assert_eq!(
            Some(SettingsError::Interval {
                flag: "--status-interval-seconds",
                value: 0
            }),
            settings(&["--status-interval-seconds=0"]).err()
        );
        assert_eq!(
            Some(SettingsError::Empty {
                flag: "--lease-name",
                wanted: "a name"
            }),
            settings(&["--lease-name="]).err()
        );
        assert_eq!(None, settings(&["--namespace="]).expect("valid").namespace);
        let alone = settings(&["--gang-scheduling=false"]).expect("valid");
        assert!(!alone.gang_scheduling);
    }
}
