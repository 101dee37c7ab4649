//! What to train: the frozen configuration of a pod, or a manifest on one machine.

use std::io;
use std::path::{Path, PathBuf};

use contract::config::{ConfigError, FORMAT_VERSION, Images, JobConfig, JobIdentity, WorkerLayout};
use contract::env::RankEnv;
use contract::paths;
use contract::spec::{SpecProblem, TrainerSpec, check, image_size_problem};
use trainer_data::bounded;
use trainer_model::architecture::{Architecture, ArchitectureError};

use crate::initial::{self, InitialError};
use crate::manifest::{self, ManifestError};

/// The uid of a run without Kubernetes: its folder is `<name>-local`, so that running the same manifest
/// again goes on with the same run.
const LOCAL_UID: &str = "local";
/// The largest manifest in bytes; Kubernetes itself takes 1.5 MB.
const MAX_MANIFEST: u64 = 16 << 20;

/// A job with everything this process needs to know of its surroundings.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Identity and settings.
    pub config: JobConfig,
    /// Folder of the data set.
    pub dataset: PathBuf,
    /// The output volume, in which the run's folder lies.
    pub output: PathBuf,
    /// The place of this process.
    pub place: RankEnv,
    /// The data file, where it lies outside the data set.
    pub data_file: Option<PathBuf>,
    /// Whether the anchors may be changed to fit the data set.
    pub fits_anchors: bool,
}

impl Job {
    /// Whether it runs without Kubernetes.
    pub fn is_local(&self) -> bool {
        self.config.job.uid == LOCAL_UID
    }
}

/// Why a job cannot be begun: its settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// Neither a manifest nor a configuration was named.
    #[error(
        "there is nothing to train: write `yolo-trainer train -f job.yaml --dataset DIR --output DIR` (in a pod, {} names the configuration)",
        contract::env::CONFIG
    )]
    Nothing,
    /// A file of settings cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The operator's configuration is not valid.
    #[error("cannot use {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
    /// The manifest is not valid.
    #[error("cannot use {}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ManifestError,
    },
    /// A folder that stands for a volume was not named.
    #[error(
        "{flag} is missing: without Kubernetes there are no volumes, so name the folder that stands for spec.{section}"
    )]
    NoFolder {
        /// The flag to add.
        flag: &'static str,
        /// The part of the manifest that it replaces.
        section: &'static str,
    },
    /// The data file is in a ConfigMap.
    #[error(
        "--data-file is missing: without Kubernetes there is no ConfigMap, so name the file that stands for spec.dataset.configMap"
    )]
    NoDataFile,
    /// Settings contradict each other or are out of range.
    #[error("{}", list(.0))]
    Invalid(Vec<SpecProblem>),
    /// The model cannot be built.
    #[error("model.architecture cannot be used")]
    Architecture(#[source] ArchitectureError),
    /// The weights to begin with cannot be used.
    #[error(transparent)]
    Initial(#[from] InitialError),
    /// The environment and the configuration disagree.
    #[error(
        "{}={found}, but the configuration is for {expected} processes",
        contract::env::WORLD_SIZE
    )]
    WorldSize {
        /// Processes by the environment.
        found: u32,
        /// Processes by the configuration.
        expected: u32,
    },
}

fn list(problems: &[SpecProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

/// Where the job comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// A `YoloTrainingJob` manifest; without it the configuration that the environment names.
    pub manifest: Option<PathBuf>,
    /// Stands for the volume of the data set.
    pub dataset: Option<PathBuf>,
    /// Stands for the output volume.
    pub output: Option<PathBuf>,
    /// Stands for the data file.
    pub data_file: Option<PathBuf>,
}

/// A job and what is to be said about it before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The job.
    pub job: Job,
    /// Parts of the manifest that have no meaning here.
    pub unused: Vec<String>,
}

/// Reads the job of the process at `place`; `get` looks up environment variables.
pub fn resolve(
    request: &Request,
    place: RankEnv,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Resolved, JobError> {
    let mut resolved = if let Some(path) = &request.manifest {
        local(path, request, place)?
    } else {
        let path = get(contract::env::CONFIG).ok_or(JobError::Nothing)?;
        in_pod(Path::new(&path), request, place)?
    };
    let Job {
        config,
        dataset,
        place,
        fits_anchors,
        ..
    } = &mut resolved.job;
    let spec = &mut config.spec;
    // Before those of the weights are taken over, which may be changed.
    *fits_anchors = spec.training.auto_anchor && spec.model.anchors.is_none();
    let mut problems = check(spec, place.world_size);
    if problems.is_empty() {
        initial::adopt(&mut spec.model, dataset)?;
        problems.extend(check_architecture(spec)?);
    }
    if problems.is_empty() {
        Ok(resolved)
    } else {
        Err(JobError::Invalid(problems))
    }
}

/// Makes sure, before any data is looked at, that the model can be built, and that images fit it; returns what is
/// wrong with their size.
fn check_architecture(spec: &TrainerSpec) -> Result<Option<SpecProblem>, JobError> {
    let architecture = Architecture::of(&spec.model, None).map_err(JobError::Architecture)?;
    if architecture.wants_anchors() && !spec.training.auto_anchor {
        let problem = "training.autoAnchor is false, but model.architecture gives only the number of anchors, so that they have to be made from the data set: leave training.autoAnchor out, or write their widths and heights (yolo-trainer anchors finds some)";
        return Ok(Some(SpecProblem(problem.to_owned())));
    }
    let multiple = architecture.multiple().max(32);
    let because = format!("the largest stride of model.architecture is {multiple}");
    let size = spec.training.image_size;
    let problem = image_size_problem(size, multiple, &because);
    if problem.is_none() {
        let side = i64::from(size);
        let traced = architecture.trace(side, side);
        traced.map_err(JobError::Architecture)?;
    }
    Ok(problem)
}

fn in_pod(path: &Path, request: &Request, place: RankEnv) -> Result<Resolved, JobError> {
    let config = JobConfig::from_json(&read(path)?).map_err(|source| JobError::Config {
        path: path.to_owned(),
        source,
    })?;
    if config.workers.world_size() != place.world_size {
        return Err(JobError::WorldSize {
            found: place.world_size,
            expected: config.workers.world_size(),
        });
    }
    let or = |given: &Option<PathBuf>, usual: &str| given.clone().unwrap_or_else(|| usual.into());
    let from_map = config.spec.dataset.config_map.is_some();
    let mounted = from_map.then(|| paths::DATA_FILE.into());
    Ok(Resolved {
        job: Job {
            config,
            data_file: request.data_file.clone().or(mounted),
            dataset: or(&request.dataset, paths::DATASET_DIR),
            output: or(&request.output, paths::OUTPUT_DIR),
            place,
            fits_anchors: false,
        },
        unused: Vec::new(),
    })
}

fn local(path: &Path, request: &Request, place: RankEnv) -> Result<Resolved, JobError> {
    let manifest = manifest::parse(&read(path)?).map_err(|source| JobError::Manifest {
        path: path.to_owned(),
        source,
    })?;
    let folder = |given: &Option<PathBuf>, flag, section| {
        given.clone().ok_or(JobError::NoFolder { flag, section })
    };
    let dataset = folder(&request.dataset, "--dataset", "dataset")?;
    let output = folder(&request.output, "--output", "output")?;
    let data_file = request.data_file.clone();
    if manifest.spec.dataset.config_map.is_some() && data_file.is_none() {
        return Err(JobError::NoDataFile);
    }
    Ok(Resolved {
        job: Job {
            data_file,
            config: local_config(manifest.name, manifest.spec, &place),
            dataset,
            output,
            place,
            fits_anchors: false,
        },
        unused: manifest.unused,
    })
}

fn local_config(name: String, spec: TrainerSpec, place: &RankEnv) -> JobConfig {
    JobConfig {
        format_version: FORMAT_VERSION,
        job: JobIdentity {
            namespace: String::new(),
            name,
            uid: LOCAL_UID.to_owned(),
        },
        workers: WorkerLayout {
            replicas: place.world_size / place.local_world_size.max(1),
            processes_per_worker: place.local_world_size,
            gpus_per_worker: 0,
        },
        failure_policy: None,
        command: Vec::new(),
        images: Images {
            trainer: String::new(),
            agent: String::new(),
            pull_policy: String::new(),
        },
        spec,
    }
}

fn read(path: &Path) -> Result<String, JobError> {
    bounded::read_text(path, MAX_MANIFEST).map_err(|source| JobError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "\
apiVersion: yolo-operator.dev/v1alpha1
kind: YoloTrainingJob
metadata: {name: digits}
spec:
  dataset: {persistentVolumeClaim: {claimName: digits}}
  training: {batchSize: 18}
  workers: {replicas: 2}
  output: {persistentVolumeClaim: {claimName: runs}}
";

    fn request(folder: &Path) -> Request {
        let path = folder.join("job.yaml");
        std::fs::write(&path, MANIFEST).expect("written");
        Request {
            manifest: Some(path),
            dataset: Some("/d".into()),
            output: Some("/o".into()),
            data_file: None,
        }
    }

    #[test]
    fn a_data_file_in_a_config_map_needs_one_that_stands_for_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut request = request(folder.path());
        let source = "{claimName: digits}, configMap: {name: two}}";
        let text = MANIFEST.replace("{claimName: digits}}", source);
        std::fs::write(request.manifest.as_ref().expect("set"), text).expect("written");
        let refused = resolve(&request, RankEnv::single(), |_| None).expect_err("refused");
        assert!(matches!(refused, JobError::NoDataFile), "{refused}");
        request.data_file = Some("/two.yaml".into());
        let resolved = resolve(&request, RankEnv::single(), |_| None).expect("valid");
        assert_eq!(request.data_file, resolved.job.data_file);
    }

    #[test]
    fn a_manifest_runs_on_one_machine_with_folders_for_volumes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let resolved =
            resolve(&request(folder.path()), RankEnv::single(), |_| None).expect("valid");
        assert_eq!(vec!["workers".to_owned()], resolved.unused);
        let job = resolved.job;
        assert_eq!(
            (18, 1),
            (job.config.spec.training.batch_size, job.place.world_size)
        );
        assert_eq!(
            "digits-local",
            paths::run_folder(&job.config.job.name, &job.config.job.uid)
        );
    }

    #[test]
    fn an_architecture_is_looked_at_before_any_data() {
        let told = |model: serde_json::Value, image_size: u32| {
            let spec = serde_json::from_value(serde_json::json!({
                "model": model,
                "dataset": {"persistentVolumeClaim": {"claimName": "d"}},
                "training": {"imageSize": image_size},
                "output": {"persistentVolumeClaim": {"claimName": "o"}},
            }));
            let checked = check_architecture(&spec.expect("well formed"));
            match checked {
                Ok(problem) => problem.map(|problem| problem.0),
                Err(error) => Some(crate::console::chain(&error)),
            }
        };
        let deep = "\
anchors: [[10, 13], [90, 80]]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 8]]
  - [-1, 1, Conv, [8, 3, 8]]
head:
  - [[1, 2], 1, Detect, [nc, anchors]]
";
        assert_eq!(None, told(serde_json::json!({"size": "n"}), 64));
        assert_eq!(None, told(serde_json::json!({"architecture": deep}), 384));
        let made = deep.replace("[[10, 13], [90, 80]]", "1");
        assert_eq!(None, told(serde_json::json!({"architecture": made}), 384));
        assert_eq!(
            Some("training.imageSize is 320: choose a multiple of 128 from 256 to 8192 (the largest stride of model.architecture is 128)".to_owned()),
            told(serde_json::json!({"architecture": deep}), 320)
        );
        let wrong = deep.replace("Detect", "Detekt");
        let text = told(serde_json::json!({"architecture": wrong}), 384).expect("refused");
        assert!(
            text.starts_with("model.architecture cannot be used: layer 3 (row 1 of head, Detekt): 'Detekt' is not a module"),
            "{text}"
        );
    }

    #[test]
    fn missing_folders_and_bad_settings_are_told_with_their_remedy() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let text = |request: &Request, world_size: u32| {
            let place = RankEnv {
                world_size,
                ..RankEnv::single()
            };
            resolve(request, place, |_| None)
                .expect_err("refused")
                .to_string()
        };
        let whole = request(folder.path());
        let without = Request {
            output: None,
            ..whole.clone()
        };
        assert!(text(&without, 1).starts_with("--output is missing"));
        assert!(text(&whole, 4).contains("4 processes cannot share equally"));
        assert!(text(&Request::default(), 1).contains("yolo-trainer train -f job.yaml"));
    }
}
