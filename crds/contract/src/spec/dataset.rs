use serde::{Deserialize, Serialize};

use super::VolumeClaim;

#[cfg(feature = "schema")]
use serde_json::json;

/// The images and labels to train on. Name exactly one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([
    {
        "rule": "has(self.persistentVolumeClaim) != has(self.image)",
        "messageExpression": "'dataset has ' + (has(self.image) ? 'two sources, persistentVolumeClaim and image: remove one' : 'no source: add persistentVolumeClaim or image')",
        "message": "dataset has no source or two sources: name either persistentVolumeClaim or image",
    },
    {
        "rule": "!self.config.startsWith('/') && !self.config.split('/').exists(part, part == '..')",
        "messageExpression": "\"dataset.config is '\" + self.config + \"': write a path inside the source, without a leading / and without ..\"",
        "message": "dataset.config is '…': write a path inside the source, without a leading / and without ..",
    },
]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dataset {
    /// A volume that holds the data set. It is mounted read-only; nothing in it is ever written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaim>,
    /// A container image whose files are the data set, mounted read-only as an image volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// Path of the YOLO data file (`train`, `val`, `names`) inside the source.
    #[serde(default = "default_config")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 512)))]
    pub config: String,
}

/// Whether a path stays inside the volume it is resolved in. The CEL rules beside the fields say the same.
pub(super) fn stays_inside(path: &str) -> bool {
    !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

fn default_config() -> String {
    "data.yaml".to_owned()
}

/// A container image used as a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSource {
    /// Image reference, for example `registry.example.com/data/digits:1`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 1024)))]
    pub reference: String,
    /// When the node pulls the image: Always, IfNotPresent or Never.
    #[serde(default)]
    pub pull_policy: PullPolicy,
}

/// When a node pulls an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl PullPolicy {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}
