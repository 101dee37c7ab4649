use serde::{Deserialize, Serialize};

use super::{Archive, FetchTo, ObjectStorage, SpecProblem, VolumeClaim};

#[cfg(feature = "schema")]
use serde_json::json;

/// The images and labels to train on. Name exactly one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([
    {
        "rule": format!("{} == 1", each_source("1", "0", " + ")),
        "messageExpression": format!(
            "{} == 0 ? 'dataset has no source: add persistentVolumeClaim, image, objectStorage or archive' : 'dataset has several sources' + {} + ': keep one'",
            each_source("1", "0", " + "),
            each_source("', {}'", "''", " + "),
        ),
        "message": "dataset has no source or more than one: name persistentVolumeClaim, image, objectStorage or archive",
    },
    {
        "rule": "!(has(self.objectStorage) || has(self.archive)) || has(self.fetchTo)",
        "messageExpression": "'dataset.' + (has(self.archive) ? 'archive' : 'objectStorage') + ' needs a volume for what is fetched: add dataset.fetchTo'",
        "message": "dataset.fetchTo is missing: add it",
    },
    {
        "rule": "has(self.objectStorage) || has(self.archive) || !has(self.fetchTo)",
        "message": "dataset.fetchTo is for objectStorage and archive only: remove it",
    },
    {
        "rule": "!self.config.startsWith('/') && !self.config.split('/').exists(part, part == '..')",
        "messageExpression": "\"dataset.config is '\" + self.config + \"': write a path inside the source, without a leading / and without ..\"",
        "message": "dataset.config is '…': write a path inside the source, without a leading / and without ..",
    },
    {
        "rule": "!has(self.configMap) || self.config == 'data.yaml'",
        "messageExpression": "\"dataset.config is '\" + self.config + \"', and dataset.configMap names a data file, too: remove one of them\"",
        "message": "dataset.config and dataset.configMap both name a data file: remove one of them",
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
    /// A folder of an S3-compatible object store. A pod without a GPU fetches it to `fetchTo` before the workers
    /// begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_storage: Option<ObjectStorage>,
    /// A zip or tar file at an HTTP address. A pod without a GPU fetches it to `fetchTo` and unpacks it before the
    /// workers begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Where `objectStorage` or `archive` is fetched to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch_to: Option<FetchTo>,
    /// Path of the YOLO data file (`train`, `val`, `names`) inside the source.
    #[serde(default = "default_config")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 512)))]
    pub config: String,
    /// A ConfigMap that holds the data file, in place of `config`: for a source that has none, or another one. Paths
    /// in it are read as if it lay at the top of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<DataFile>,
}

/// A data file in a ConfigMap of the job's namespace. It is read whenever processes start: it must stay as it is until
/// the job has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = json!([{
    "rule": "self.name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    "messageExpression": "\"dataset.configMap.name is '\" + self.name + \"': write the name of a ConfigMap, of small letters, digits, '-' and '.'\"",
    "message": "dataset.configMap.name is '…': write the name of a ConfigMap, of small letters, digits, '-' and '.'",
}, {
    "rule": "self.key.matches('^[-._a-zA-Z0-9]+$')",
    "messageExpression": "\"dataset.configMap.key is '\" + self.key + \"': write a key of the ConfigMap, of letters, digits, '-', '_' and '.'\"",
    "message": "dataset.configMap.key is '…': write a key of the ConfigMap, of letters, digits, '-', '_' and '.'",
}]))))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataFile {
    /// Name of the ConfigMap.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub name: String,
    /// The key whose value is the file.
    #[serde(default = "default_config")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253)))]
    pub key: String,
}

/// Two data files, or one that no ConfigMap can hold.
pub(super) fn data_file_problems(dataset: &Dataset) -> Vec<SpecProblem> {
    let Some(DataFile { name, key }) = &dataset.config_map else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let config = &dataset.config;
    if *config != default_config() {
        problems.push(SpecProblem(format!(
            "dataset.config is '{config}', and dataset.configMap names a data file, too: remove one of them"
        )));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = |c: char| plain(c) || "-.".contains(c);
    if !(name.starts_with(plain) && name.ends_with(plain) && name.chars().all(fits)) {
        problems.push(SpecProblem(format!(
            "dataset.configMap.name is '{name}': write the name of a ConfigMap, of small letters, digits, '-' and '.'"
        )));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if key.is_empty() || !key.chars().all(fits) {
        problems.push(SpecProblem(format!(
            "dataset.configMap.key is '{key}': write a key of the ConfigMap, of letters, digits, '-', '_' and '.'"
        )));
    }
    problems
}

impl Dataset {
    /// The fields that name a source.
    pub(super) fn named(&self) -> Vec<&'static str> {
        let fields = [
            (
                "persistentVolumeClaim",
                self.persistent_volume_claim.is_some(),
            ),
            ("image", self.image.is_some()),
            ("objectStorage", self.object_storage.is_some()),
            ("archive", self.archive.is_some()),
        ];
        let set = fields.into_iter().filter(|(_, set)| *set);
        set.map(|(field, _)| field).collect()
    }

    /// The source that is fetched before the workers begin, if it is one.
    pub fn fetched(&self) -> Option<&'static str> {
        if self.archive.is_some() {
            Some("archive")
        } else {
            self.object_storage.is_some().then_some("objectStorage")
        }
    }
}

/// In CEL, one value for each source that is named and another for each that is not, joined. A list of names would
/// cost more than an API server allows.
#[cfg(feature = "schema")]
fn each_source(named: &str, not: &str, with: &str) -> String {
    let fields = ["persistentVolumeClaim", "image", "objectStorage", "archive"];
    let each = fields.map(|field| {
        let named = named.replace("{}", field);
        format!("(has(self.{field}) ? {named} : {not})")
    });
    format!("({})", each.join(with))
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
