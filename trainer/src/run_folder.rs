//! The one folder a run writes to.
//!
//! ```text
//! <output>/<job>-<first 8 of uid>/
//!   config.json             the settings, frozen by the first start
//!   anchors.json            the anchors that were fitted to the data set, see [`crate::session`]
//!   batch.json              the batch size that was found to fit
//!   portions.json           that memory ran out, and what follows
//!   owner.json              which start of the run may write here
//!   opt.yaml, hyp.yaml      the settings as YOLOv5's options
//!   results.csv             one row per evaluated epoch, YOLOv5's columns
//!   *.png, report.html, events.out.tfevents.*
//!                           for people, see [`crate::gallery`]
//!   checkpoints/            see [`crate::checkpoint`]
//!   weights/best.safetensors, last.safetensors
//! ```

use std::io;
use std::path::{Path, PathBuf};

use contract::attempt::Attempt;
use contract::config::JobConfig;
use contract::paths;
use contract::spec::TrainerSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointStore;
use crate::error::Error;
use crate::{convert, durable};

/// Settings that may change between two starts of a run and are told: what comes after is computed with the
/// new ones.
const CHANGEABLE: [&str; 6] = [
    "training.epochs",
    "training.iterations",
    "training.hours",
    "training.batchSize",
    "training.patience",
    "training.evaluateEvery",
];

/// Settings that may change silently: none of them changes what is computed.
const FREE: [&str; 13] = [
    "training.cache",
    "training.cacheLimit",
    "training.loaderThreads",
    "training.computeThreads",
    "training.keepCheckpoints",
    "training.checkpointEvery",
    "training.checkpointMinutes",
    "training.snapshotSeconds",
    "training.device",
    "distributed.backend",
    "distributed.timeoutSeconds",
    "dataset",
    "output",
];

/// Bytes of the largest small file there can be, many times over.
const MAX_FILE: u64 = 1 << 20;

/// What can go wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub enum RunFolderError {
    /// It cannot be made or written to.
    #[error(
        "cannot write to the output folder {}: check that it exists, is mounted read-write and is not full", path.display()
    )]
    Unwritable {
        /// The file or folder that could not be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It holds a run with other settings.
    #[error(
        "{} holds a run with other settings ({}): choose another output folder or another metadata.name",
        path.display(), differences.join(", ")
    )]
    OtherSettings {
        /// The run's folder.
        path: PathBuf,
        /// `field was OLD and is NEW`.
        differences: Vec<String>,
    },
    /// A file of it cannot be read back.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another start of the same run has taken the folder over.
    #[error(
        "{} now belongs to another start of this run ({owner}): this one ends without writing", path.display()
    )]
    TakenOver {
        /// The run's folder.
        path: PathBuf,
        /// Who has it.
        owner: String,
    },
}

/// The folder of one run. Only rank 0 writes to it.
#[derive(Clone, Debug)]
pub struct RunFolder {
    root: PathBuf,
    /// The folder as seen from the output volume.
    name: String,
    token: Owner,
}

/// Which start of a run may write: the latest one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    attempt: Attempt,
    /// Differs between any two starts.
    start: String,
}

impl RunFolderError {
    /// Whether there is no room to write.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Unwritable { source, .. } if durable::is_full(source))
    }
}

impl RunFolder {
    /// The folder of this job below `output`. Touches nothing.
    pub fn new(output: &Path, config: &JobConfig, attempt: Attempt) -> Self {
        let name = paths::run_folder(&config.job.name, &config.job.uid);
        let start = format!(
            "{} {} {}",
            crate::hostname(),
            std::process::id(),
            jiff::Timestamp::now()
        );
        Self {
            root: output.join(&name),
            name,
            token: Owner { attempt, start },
        }
    }

    /// Makes the folder, takes it over from any earlier start, and freezes the settings, or makes sure
    /// that they are those it was begun with. Returns what changed of those that may.
    pub fn claim(&self, config: &JobConfig) -> Result<Vec<String>, RunFolderError> {
        for folder in [self.checkpoints(), self.root.join("weights")] {
            std::fs::create_dir_all(&folder).map_err(|source| RunFolderError::Unwritable {
                path: folder,
                source,
            })?;
        }
        let changes = self.freeze(config)?;
        let owner = self.root.join("owner.json");
        durable::write(&owner, &json(&self.token)).map_err(|source| {
            RunFolderError::Unwritable {
                path: owner,
                source,
            }
        })?;
        Ok(changes)
    }

    fn freeze(&self, config: &JobConfig) -> Result<Vec<String>, RunFolderError> {
        let path = self.root.join("config.json");
        let write = || {
            durable::write(&path, &json(config)).map_err(|source| RunFolderError::Unwritable {
                path: path.clone(),
                source,
            })
        };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return write().map(|()| Vec::new());
            }
            Err(source) => return Err(RunFolderError::Read { path, source }),
            Ok(text) => text,
        };
        let frozen = JobConfig::from_json(&text).map_err(|error| RunFolderError::Read {
            path: path.clone(),
            source: io::Error::new(io::ErrorKind::InvalidData, error),
        })?;
        let counts = |config: &JobConfig| config.spec.training.iterations.is_some();
        let counts_steps = counts(&frozen) || counts(config);
        let (changes, differences): (Vec<_>, Vec<_>) = spec_differences(&frozen.spec, &config.spec)
            .into_iter()
            .partition(|(field, _)| {
                // Steps of another size would be counted together, and rectangles are those of batches.
                let is_batch = field == "training.batchSize";
                CHANGEABLE.contains(&field.as_str())
                    && !(is_batch && (counts_steps || config.spec.training.rect))
            });
        let texts = |list: Vec<(String, String)>| list.into_iter().map(|(_, text)| text).collect();
        if !differences.is_empty() {
            return Err(RunFolderError::OtherSettings {
                path: self.root.clone(),
                differences: texts(differences),
            });
        }
        if !changes.is_empty() {
            write()?;
        }
        Ok(texts(changes))
    }

    /// Makes sure that no later start of the run has taken the folder over: two pods of one job can be
    /// alive for a while when a node is cut off.
    pub fn check_owner(&self) -> Result<(), RunFolderError> {
        let path = self.root.join("owner.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|source| RunFolderError::Read { path, source })?;
        match serde_json::from_str::<Owner>(&text) {
            Ok(owner) if owner == self.token => Ok(()),
            Ok(owner) => {
                Err(self.taken_over(format!("attempt {}, {}", owner.attempt, owner.start)))
            }
            Err(_) => Err(self.taken_over("its owner.json is unreadable".to_owned())),
        }
    }

    /// Removes what starts of the run that were killed left unfinished.
    pub fn remove_unfinished(&self, store: &CheckpointStore) -> Result<(), Error> {
        store.remove_unfinished()?;
        let path = self.root.join("weights");
        durable::remove_unfinished(&path)
            .map_err(|source| RunFolderError::Unwritable { path, source })?;
        Ok(())
    }

    fn taken_over(&self, owner: String) -> RunFolderError {
        RunFolderError::TakenOver {
            path: self.root.clone(),
            owner,
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where checkpoints are.
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The weights to use: of the best epoch.
    pub fn best_weights(&self) -> PathBuf {
        self.root.join("weights/best.safetensors")
    }

    /// The weights of the last finished epoch.
    pub fn last_weights(&self) -> PathBuf {
        self.root.join("weights/last.safetensors")
    }

    /// The anchors that were fitted to the data set.
    pub fn anchors(&self) -> PathBuf {
        self.root.join("anchors.json")
    }

    /// The batch size that was found to fit.
    pub fn batch(&self) -> PathBuf {
        self.root.join("batch.json")
    }

    /// In how many portions a rank computes its images, where one does not fit.
    pub fn portions(&self) -> PathBuf {
        self.root.join("portions.json")
    }

    /// Writes the settings as YOLOv5's files of options, and the model file they name.
    pub fn write_options(&self, name: &str, spec: &TrainerSpec) -> Result<(), Error> {
        let write = |file: &str, text: &str| {
            let path = self.root.join(file);
            durable::write(&path, text.as_bytes())
                .map_err(|source| RunFolderError::Unwritable { path, source })
        };
        if let Some(text) = &spec.model.architecture {
            write(convert::MODEL_FILE, text)?;
        }
        let options = convert::options_of(name, spec, self.root.clone()).map_err(Error::Options)?;
        write("opt.yaml", &options.opt)?;
        write("hyp.yaml", &options.hyp)?;
        Ok(())
    }

    /// The table of epochs.
    pub fn results(&self) -> PathBuf {
        self.root.join(paths::RESULTS)
    }

    /// A path in this folder as seen from the output volume, as reports name it.
    pub fn relative(&self, path: &Path) -> String {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        Path::new(&self.name).join(inside).display().to_string()
    }
}

/// What is written into the folder's JSON files.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value)
        .expect("plain structs with string keys always become JSON");
    text.push(b'\n');
    text
}

/// A small JSON file of the folder; none if there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RunFolderError> {
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(file) if file.len() > MAX_FILE => Err(io::Error::other("it is too large")),
        Ok(_) => std::fs::read_to_string(path),
        Err(error) => Err(error),
    };
    text.and_then(|text| serde_json::from_str(&text).map_err(io::Error::from))
        .map(Some)
        .map_err(|source| RunFolderError::Read {
            path: path.to_owned(),
            source,
        })
}

/// What differs between the settings of two configurations and matters: the field, and `field was OLD and is NEW`.
pub(crate) fn spec_differences(old: &TrainerSpec, new: &TrainerSpec) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let value = |spec: &TrainerSpec| {
        let mut spec = spec.clone();
        // A size that is left out is the same as the one it stands for.
        spec.model.size = spec.model.family_size();
        serde_json::to_value(&spec).expect("a spec always becomes JSON")
    };
    compare("", &value(old), &value(new), &mut found);
    found
}

fn compare(
    path: &str,
    old: &serde_json::Value,
    new: &serde_json::Value,
    found: &mut Vec<(String, String)>,
) {
    use serde_json::Value::{Null, Object, String as Text};
    let is_long = |value: &serde_json::Value| matches!(value, Text(text) if text.contains('\n'));
    if FREE.contains(&path) {
        return;
    }
    if let (Object(old), Object(new)) = (old, new) {
        let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let inner = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            compare(
                &inner,
                old.get(key).unwrap_or(&Null),
                new.get(key).unwrap_or(&Null),
                found,
            );
        }
    } else if old != new && (is_long(old) || is_long(new)) {
        found.push((path.to_owned(), format!("{path} has another text")));
    } else if old != new {
        found.push((path.to_owned(), format!("{path} was {old} and is {new}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> JobConfig {
        JobConfig::from_json(
            &serde_json::json!({
                "formatVersion": 1,
                "job": {"namespace": "n", "name": "digits", "uid": "0123456789"},
                "workers": {"replicas": 1, "processesPerWorker": 1, "gpusPerWorker": 0},
                "images": {"trainer": "", "agent": "", "pullPolicy": ""},
                "spec": {
                    "dataset": {"persistentVolumeClaim": {"claimName": "a"}},
                    "output": {"persistentVolumeClaim": {"claimName": "b"}},
                },
            })
            .to_string(),
        )
        .expect("valid")
    }

    fn attempt(incarnation: u32) -> Attempt {
        Attempt {
            incarnation,
            restart: 0,
        }
    }

    #[test]
    fn a_second_start_takes_the_folder_over() {
        let output = tempfile::tempdir().expect("temporary folder");
        let first = RunFolder::new(output.path(), &config(), attempt(0));
        first.claim(&config()).expect("claimed");
        first.check_owner().expect("still ours");
        let second = RunFolder::new(output.path(), &config(), attempt(1));
        second.claim(&config()).expect("claimed");
        second.check_owner().expect("ours");
        let text = first.check_owner().expect_err("taken over").to_string();
        assert!(text.contains("attempt 1.0"), "{text}");
        assert_eq!(
            "digits-01234567/weights/best.safetensors",
            first.relative(&first.best_weights())
        );
    }

    #[test]
    fn other_settings_are_refused_by_name_unless_they_change_no_result() {
        let output = tempfile::tempdir().expect("temporary folder");
        let folder = RunFolder::new(output.path(), &config(), attempt(0));
        folder.claim(&config()).expect("claimed");
        let mut free = config();
        free.spec.training.compute_threads = Some(7);
        folder.claim(&free).expect("threads may change");
        let mut other = config();
        other.spec.hyperparameters.lr0 = 0.5;
        let text = folder.claim(&other).expect_err("refused").to_string();
        assert!(
            text.contains("hyperparameters.lr0 was 0.01 and is 0.5"),
            "{text}"
        );
    }

    #[test]
    fn a_run_may_become_longer_and_its_batch_another_but_not_where_steps_are_counted() {
        let output = tempfile::tempdir().expect("temporary folder");
        let folder = RunFolder::new(output.path(), &config(), attempt(0));
        assert!(folder.claim(&config()).expect("claimed").is_empty());
        let mut other = config();
        other.spec.training.epochs = 200;
        other.spec.training.batch_size = 32;
        let changes = folder.claim(&other).expect("they may");
        let expected = [
            "training.batchSize was 16 and is 32",
            "training.epochs was 100 and is 200",
        ];
        assert_eq!(expected, changes[..]);
        assert!(folder.claim(&other).expect("frozen anew").is_empty());
        let mut both = other.clone();
        both.spec.training.seed = 1;
        both.spec.training.epochs = 300;
        let text = folder.claim(&both).expect_err("refused").to_string();
        assert!(text.contains("(training.seed was 0 and is 1)"), "{text}");

        other.spec.training.iterations = Some(1000);
        folder
            .claim(&other)
            .expect("steps may be counted from now on");
        other.spec.training.batch_size = 64;
        let text = folder.claim(&other).expect_err("refused").to_string();
        assert!(
            text.contains("training.batchSize was 32 and is 64"),
            "{text}"
        );
    }

    #[test]
    fn the_same_model_may_be_written_in_two_ways_and_other_texts_are_not_printed() {
        let output = tempfile::tempdir().expect("temporary folder");
        let folder = RunFolder::new(output.path(), &config(), attempt(0));
        folder.claim(&config()).expect("claimed");
        let mut same = config();
        same.spec.model.size = Some(contract::spec::ModelSize::S);
        folder.claim(&same).expect("yolov5s is the default");
        let mut own = config();
        own.spec.model.architecture = Some("backbone: []\nhead: []\n".to_owned());
        let text = folder.claim(&own).expect_err("refused").to_string();
        assert!(
            text.contains(
                "(model.architecture has another text, model.size was \"yolov5s\" and is null)"
            ),
            "{text}"
        );
    }

    #[test]
    fn an_output_that_cannot_be_written_says_so() {
        let output = tempfile::tempdir().expect("temporary folder");
        let file = output.path().join("file");
        std::fs::write(&file, "").expect("written");
        let folder = RunFolder::new(&file, &config(), attempt(0));
        let text = folder.claim(&config()).expect_err("refused").to_string();
        assert!(
            text.starts_with("cannot write to the output folder"),
            "{text}"
        );
    }
}
