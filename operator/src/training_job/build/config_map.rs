use contract::config::JobConfig;
use crds::names;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::metadata::{child, job_labels};

/// The ConfigMap that holds the frozen configuration.
pub fn config_map(config: &JobConfig) -> Result<ConfigMap, serde_json::Error> {
    let text = serde_json::to_string_pretty(config)?;
    Ok(ConfigMap {
        metadata: child(
            &config.job,
            names::config_map(&config.job.name),
            job_labels(&config.job),
        ),
        immutable: Some(true),
        data: Some([(names::CONFIG_KEY.to_owned(), text)].into()),
        ..ConfigMap::default()
    })
}
