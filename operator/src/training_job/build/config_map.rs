use contract::config::JobConfig;
use crds::names;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::metadata::{child, job_labels};

/// The ConfigMap that holds the frozen configuration.
pub fn config_map(config: &JobConfig) -> Result<ConfigMap, serde_json::Error> {
    let text = serde_json::to_string_pretty(config)?;
    let other = !config.command.is_empty();
    let hosts = other.then(|| (names::HOSTFILE_KEY.to_owned(), hostfile(config)));
    Ok(ConfigMap {
        metadata: child(
            &config.job,
            names::config_map(&config.job.name),
            job_labels(&config.job),
        ),
        immutable: Some(true),
        data: Some(
            [(names::CONFIG_KEY.to_owned(), text)]
                .into_iter()
                .chain(hosts)
                .collect(),
        ),
        ..ConfigMap::default()
    })
}

/// The workers as `mpirun` wants them: a host and its processes in each line.
fn hostfile(config: &JobConfig) -> String {
    let slots = config.workers.slots();
    let lines = (0..config.workers.replicas).map(|worker| {
        let host = names::worker_address(&config.job.name, worker);
        format!("{host} slots={slots}\n")
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_program_of_ones_own_has_a_hostfile_and_the_trainer_none() {
        let config = |command: &[&str]| {
            let text = json!({
                "formatVersion": 1,
                "job": {"namespace": "team", "name": "digits", "uid": "0123456789"},
                "workers": {"replicas": 2, "processesPerWorker": 4, "gpusPerWorker": 0},
                "images": {"trainer": "t:1", "agent": "o:1", "pullPolicy": "IfNotPresent"},
                "command": command,
                "spec": {
                    "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
                    "output": {"persistentVolumeClaim": {"claimName": "runs"}},
                },
            });
            let config = JobConfig::from_json(&text.to_string()).expect("valid");
            let made = config_map(&config).expect("made");
            made.data.expect("keys").remove(names::HOSTFILE_KEY)
        };
        assert_eq!(None, config(&[]));
        let lines = "digits-worker-0.digits slots=4\ndigits-worker-1.digits slots=4\n";
        assert_eq!(Some(lines.to_owned()), config(&["mpirun", "train"]));
    }
}
