//! The frozen configuration of one job.
//!
//! The operator writes it once, at the first reconcile, into an immutable ConfigMap, and every worker
//! of every attempt reads that copy: an upgraded operator never changes a running job.

use serde::{Deserialize, Serialize};

use crate::failure_policy::FailurePolicy;
use crate::spec::TrainerSpec;

/// The version of [`JobConfig`] this code writes.
pub const FORMAT_VERSION: u32 = 1;

/// Everything that is fixed for a job's whole life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobConfig {
    /// Version of this format; readers refuse others.
    pub format_version: u32,
    /// Whose configuration this is.
    pub job: JobIdentity,
    /// How many processes there are, and where.
    pub workers: WorkerLayout,
    /// The images of the job's containers.
    pub images: Images,
    /// What follows a failure. Without it (jobs that were frozen before it was written down) nothing is restarted
    /// in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_policy: Option<FailurePolicy>,
    /// The program that each rank runs, and its arguments; empty is the trainer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// What the user wrote, with defaults filled in.
    pub spec: TrainerSpec,
}

/// The job in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JobIdentity {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; two jobs of one name differ here.
    pub uid: String,
}

/// How many processes a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerLayout {
    /// Workers (pods).
    pub replicas: u32,
    /// Processes in each worker.
    pub processes_per_worker: u32,
    /// GPUs of each worker; 0 or equal to `processes_per_worker`, unless that is one launcher.
    pub gpus_per_worker: u32,
}

impl WorkerLayout {
    /// Processes of the whole job.
    pub fn world_size(self) -> u32 {
        self.replicas * self.processes_per_worker
    }

    /// How many processes a launcher starts in each worker, where it is all that the agent starts there: one for each GPU.
    pub fn slots(self) -> u32 {
        self.processes_per_worker.max(self.gpus_per_worker)
    }
}

/// The images of a job's containers, frozen with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// Runs the ranks.
    pub trainer: String,
    /// Brings the agent (the operator's image).
    pub agent: String,
    /// When nodes pull them.
    pub pull_policy: String,
}

/// A configuration that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of a [`JobConfig`].
    #[error("the job configuration cannot be read")]
    Parse(#[source] serde_json::Error),
    /// Written by a later version of the operator.
    #[error(
        "the job configuration has format version {found}; this program reads {FORMAT_VERSION}"
    )]
    Version {
        /// What the file says.
        found: u32,
    },
}

impl JobConfig {
    /// Reads the configuration from its JSON text.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_str(text).map_err(ConfigError::Parse)?;
        if format_version != FORMAT_VERSION {
            return Err(ConfigError::Version {
                found: format_version,
            });
        }
        serde_json::from_str(text).map_err(ConfigError::Parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: u32) -> String {
        serde_json::json!({
            "formatVersion": version,
            "job": {"namespace": "team", "name": "digits", "uid": "0123456789"},
            "workers": {"replicas": 2, "processesPerWorker": 2, "gpusPerWorker": 0},
            "images": {"trainer": "t:1", "agent": "o:1", "pullPolicy": "IfNotPresent"},
            "spec": {
                "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
                "output": {"persistentVolumeClaim": {"claimName": "runs"}},
            },
        })
        .to_string()
    }

    #[test]
    fn a_written_configuration_reads_back() {
        let config = JobConfig::from_json(&text(1)).expect("valid");
        let again = serde_json::to_string(&config).expect("serialisable");
        assert_eq!(config, JobConfig::from_json(&again).expect("round trip"));
        assert_eq!(4, config.workers.world_size());
    }

    #[test]
    fn numbers_are_those_that_were_written_to_the_last_bit() {
        // One that a reader who is content with nearly all bits gets wrong.
        let mut written: serde_json::Value = serde_json::from_str(&text(1)).expect("JSON");
        written["spec"]["hyperparameters"] =
            serde_json::from_str(r#"{"lr0": 0.09457441878011752}"#).expect("JSON");
        let config = JobConfig::from_json(&written.to_string()).expect("valid");
        let lr0 = config.spec.hyperparameters.lr0;
        assert_eq!("0.09457441878011752", lr0.to_string());
    }

    #[test]
    fn a_later_version_is_refused_by_number() {
        let error = JobConfig::from_json(&text(2)).expect_err("later version");
        assert_eq!(
            "the job configuration has format version 2; this program reads 1",
            error.to_string()
        );
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let with_extra = text(1).replacen("\"team\"", "\"team\",\"extra\":1", 1);
        assert!(matches!(
            JobConfig::from_json(&with_extra),
            Err(ConfigError::Parse(_))
        ));
    }
}
