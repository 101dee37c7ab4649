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
    let slots = config.workers.processes_per_worker;
    let lines = (0..config.workers.replicas).map(|worker| {
        let host = names::worker_address(&config.job.name, worker);
        format!("{host} slots={slots}\n")
    });
    lines.collect()
}
