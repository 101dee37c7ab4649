//! A `YoloTrainingJob` manifest, read without the Kubernetes API.
//!
//! The trainer knows the parts of the spec that it obeys; the others belong to the operator and are
//! only recognised by name, so that the same file works in both places and a misspelt field in neither.

use contract::spec::{
    Augmentation, Dataset, Distributed, Hyperparameters, Model, Output, TrainerSpec, Training,
};
use serde::Deserialize;
use serde_json::Value;

/// The kind of document to look for.
const KIND: &str = "YoloTrainingJob";
/// The API group it must come from.
const GROUP: &str = "yolo-operator.dev/";

/// What the trainer takes from a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `metadata.name`.
    pub name: String,
    /// The settings.
    pub spec: TrainerSpec,
    /// Fields of the spec that are there and only mean something to the operator.
    pub unused: Vec<String>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No document of the file is a training job.
    #[error("it holds no document of kind {KIND}")]
    NoJob,
    /// Several documents are training jobs.
    #[error("it holds {0} documents of kind {KIND}: put the one to run into a file of its own")]
    SeveralJobs(usize),
    /// The document belongs to another API.
    #[error("its apiVersion is '{0}': write {GROUP}v1alpha1")]
    ApiVersion(String),
    /// Not YAML, or a field is missing, unknown or of the wrong type.
    #[error("it is not a valid {KIND}")]
    Parse(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Enough of any Kubernetes document to tell what it is.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: Spec,
    #[serde(default, rename = "status")]
    _status: Option<Value>,
}

/// Kubernetes checks its own metadata.
#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    model: Model,
    dataset: Dataset,
    #[serde(default)]
    training: Training,
    #[serde(default)]
    hyperparameters: Hyperparameters,
    #[serde(default)]
    augmentation: Augmentation,
    #[serde(default)]
    distributed: Distributed,
    output: Output,
    workers: Option<Value>,
    failure_policy: Option<Value>,
    scheduling: Option<Value>,
    suspend: Option<Value>,
    managed_by: Option<Value>,
    active_deadline_seconds: Option<Value>,
    ttl_seconds_after_finished: Option<Value>,
    clean_pod_policy: Option<Value>,
}

/// Finds the one training job among the documents of a file.
pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let mut jobs = Vec::new();
    for document in documents(text) {
        let header: Option<Header> = serde_saphyr::from_str(&document).map_err(parse_error)?;
        if header.is_some_and(|header| header.kind == KIND) {
            jobs.push(document);
        }
    }
    match jobs.as_slice() {
        [] => Err(ManifestError::NoJob),
        [document] => parse_one(document),
        several => Err(ManifestError::SeveralJobs(several.len())),
    }
}

fn parse_one(document: &str) -> Result<Manifest, ManifestError> {
    let Document {
        api_version,
        metadata,
        spec,
        ..
    } = serde_saphyr::from_str(document).map_err(parse_error)?;
    if !api_version.starts_with(GROUP) {
        return Err(ManifestError::ApiVersion(api_version));
    }
    let Spec {
        model,
        dataset,
        training,
        hyperparameters,
        augmentation,
        distributed,
        output,
        workers,
        failure_policy,
        scheduling,
        suspend,
        managed_by,
        active_deadline_seconds,
        ttl_seconds_after_finished,
        clean_pod_policy,
    } = spec;
    let unused = [
        ("workers", workers),
        ("failurePolicy", failure_policy),
        ("scheduling", scheduling),
        ("suspend", suspend),
        ("managedBy", managed_by),
        ("activeDeadlineSeconds", active_deadline_seconds),
        ("ttlSecondsAfterFinished", ttl_seconds_after_finished),
        ("cleanPodPolicy", clean_pod_policy),
    ];
    Ok(Manifest {
        name: metadata.name,
        spec: TrainerSpec {
            model,
            dataset,
            training,
            hyperparameters,
            augmentation,
            distributed,
            output,
        },
        unused: unused
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(name, _)| name.to_owned())
            .collect(),
    })
}

/// The documents of a file, each preceded by as many empty lines as stand before it, so that a parser's
/// line numbers are those of the file.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        if line.trim_end() == "---" {
            documents.push("\n".repeat(number + 1));
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents.retain(|document| {
        let mut lines = document.lines().map(str::trim);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    });
    documents
}

fn parse_error(error: impl std::error::Error + Send + Sync + 'static) -> ManifestError {
    ManifestError::Parse(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::chain;

    const JOB: &str = "\
apiVersion: yolo-operator.dev/v1alpha1
kind: YoloTrainingJob
metadata:
  name: digits
spec:
  model: {size: n}
  dataset: {persistentVolumeClaim: {claimName: digits}}
  hyperparameters: {lr0: 0.02, box: 0.1}
  workers: {replicas: 2}
  failurePolicy: {maxRestarts: 3}
  output: {persistentVolumeClaim: {claimName: runs}}
";

    #[test]
    fn the_job_is_found_among_other_documents() {
        let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: runs}\n";
        let manifest = parse(&format!("# a comment\n---\n{claim}---\n{JOB}")).expect("valid");
        assert_eq!("digits", manifest.name);
        assert_eq!(0.1, manifest.spec.hyperparameters.box_gain);
        assert_eq!(["workers", "failurePolicy"], manifest.unused[..]);
    }

    #[test]
    fn each_mistake_is_named() {
        let text = |yaml: &str| chain(&parse(yaml).expect_err("refused"));
        assert!(text("kind: Pod\n").contains("no document of kind YoloTrainingJob"));
        assert!(text(&format!("{JOB}---\n{JOB}")).contains("2 documents"));
        assert!(
            text(&JOB.replace("yolo-operator.dev", "example.com")).contains("example.com/v1alpha1")
        );
        let unknown = text(&format!(
            "# one line more\n{}",
            JOB.replace("lr0", "lrZero")
        ));
        assert!(
            unknown.contains("lrZero") && unknown.contains('9'),
            "{unknown}"
        );
        assert!(text(&JOB.replace("workers", "worker")).contains("worker"));
    }

    #[test]
    fn the_examples_are_understood_and_their_models_can_be_built() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
        let mut jobs = 0;
        for entry in std::fs::read_dir(folder).expect("examples") {
            let path = entry.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("readable");
            match parse(&text) {
                Err(ManifestError::NoJob) => {}
                Err(error) => panic!("{}: {}", path.display(), chain(&error)),
                Ok(Manifest { spec, .. }) => {
                    jobs += 1;
                    let problems = contract::spec::check(&spec, 1);
                    assert!(problems.is_empty(), "{}: {problems:?}", path.display());
                    trainer_model::architecture::Architecture::of(&spec.model, Some(10))
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                }
            }
        }
        assert!(jobs >= 2);
    }
}
