use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use serde_json::json;

use super::SpecProblem;
use super::dataset::stays_inside;

/// A folder on a PersistentVolumeClaim in the job's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "!has(self.subPath) || (!self.subPath.startsWith('/') && !self.subPath.split('/').exists(part, part == '..'))",
    "messageExpression": "\"{path}.subPath is '\" + self.subPath + \"': write a folder inside the volume, without a leading / and without ..\"",
    "message": "{path}.subPath is '…': write a folder inside the volume, without a leading / and without ..",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeClaim {
    /// Name of the PersistentVolumeClaim. With several workers on several nodes it must allow
    /// ReadWriteMany (or ReadOnlyMany for a data set).
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub claim_name: String,
    /// Folder inside the volume. Default: the volume's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 512)))]
    pub sub_path: Option<String>,
}

impl VolumeClaim {
    /// What is wrong with it where it stands in the spec.
    pub(super) fn problem(&self, field: &str) -> Option<SpecProblem> {
        let path = self.sub_path.as_deref()?;
        (!stays_inside(path)).then(|| SpecProblem(format!(
            "{field}.subPath is '{path}': write a folder inside the volume, without a leading / and without .."
        )))
    }
}

/// A PersistentVolumeClaim that the operator makes for one job, in a claim's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimTemplate {
    /// Name of the `StorageClass`. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub storage_class_name: Option<String>,
    /// How pods may mount the volume. With several workers on several nodes it must be ReadWriteMany.
    #[serde(default = "many")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 2)))]
    pub access_modes: Vec<AccessMode>,
    /// How large the volume is.
    pub resources: ClaimResources,
    /// What becomes of the claim when the job is deleted.
    #[serde(default)]
    pub retention_policy: RetentionPolicy,
}

/// How pods may mount a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum AccessMode {
    /// Pods on one node.
    ReadWriteOnce,
    /// Pods on all nodes.
    ReadWriteMany,
}

impl AccessMode {
    /// Kubernetes' word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// What becomes of a claim when its job is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum RetentionPolicy {
    /// It stays, with all that is on it.
    #[default]
    Retain,
    /// It is deleted too.
    Delete,
}

/// How large a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimResources {
    /// What the volume must have at least.
    pub requests: ClaimRequests,
}

/// What a volume must have at least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRequests {
    /// Its size, for example 20Gi.
    #[cfg_attr(feature = "schema", schemars(length(max = 32), extend("x-kubernetes-validations" = json!([{
        "rule": "self.matches('^[1-9][0-9]{0,17}([kMGTP]|[KMGTP]i)?$')",
        "messageExpression": "\"{path} is '\" + self + \"': write a size such as 20Gi\"",
    }]))))]
    pub storage: String,
}

impl ClaimTemplate {
    /// What is wrong with it where it stands in the spec.
    pub(super) fn problem(&self, field: &str) -> Option<SpecProblem> {
        let size = &self.resources.requests.storage;
        (!is_size(size)).then(|| {
            SpecProblem(format!(
                "{field}.resources.requests.storage is '{size}': write a size such as 20Gi"
            ))
        })
    }
}

fn many() -> Vec<AccessMode> {
    vec![AccessMode::ReadWriteMany]
}

/// Whether a text is a whole number of bytes or of a unit; the CEL rule beside the field says the same.
fn is_size(text: &str) -> bool {
    let units = ["Ki", "Mi", "Gi", "Ti", "Pi", "k", "M", "G", "T", "P"];
    let unit = units.iter().find_map(|unit| text.strip_suffix(unit));
    let digits = unit.unwrap_or(text);
    (1..=18).contains(&digits.len())
        && !digits.starts_with('0')
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_numbers_with_a_unit() {
        for good in ["1", "20Gi", "500M", "1Ki", "10k"] {
            assert!(is_size(good), "{good}");
        }
        for bad in [
            "", "0", "0Gi", "1.5Gi", "Gi", "20gi", "20K", "-1", "1e3", " 1Gi",
        ] {
            assert!(!is_size(bad), "{bad}");
        }
    }
}
