//! Checkpoints on a file system: written whole, found whole, removed when no longer wanted.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use contract::attempt::Attempt;
use serde::{Deserialize, Serialize};
use trainer_core::retention::{self, RetentionPolicy, StoredCheckpoint};
use trainer_data::bounded;

use super::state::{FORMAT_VERSION, RunState};
use super::tensors::{NamedTensors, TensorFileError, decode};
use super::{EMA, MANIFEST, MODEL, OPTIMIZER, STATE};
use crate::console::chain;
use crate::durable::{self, TEMPORARY};

/// The largest manifest or state in bytes; the state names every image of an epoch that is left out.
const MAX_TEXT: u64 = 256 << 20;
const PREFIX: &str = "step-";

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file of it cannot be written.
    #[error("cannot write the checkpoint {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder of checkpoints cannot be read.
    #[error("cannot read the checkpoints in {}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Tensors do not fit into a file.
    #[error("cannot write the tensors of {file}")]
    Encode {
        /// The file.
        file: &'static str,
        /// Why not.
        #[source]
        source: TensorFileError,
    },
    /// There are checkpoints, and none is usable.
    #[error(
        "none of the {} checkpoints in {} can be used ({}): restore one, or remove the folder to begin anew",
        problems.len(), path.display(), problems.join("; ")
    )]
    NoneWhole {
        /// The folder.
        path: PathBuf,
        /// What is wrong with each, newest first.
        problems: Vec<String>,
        /// Whether one of them could only not be read now: its volume may answer later.
        passes: bool,
    },
}

/// Why one checkpoint is not usable.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{file} cannot be read")]
    Read {
        file: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{file} is not valid")]
    Json {
        file: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("{file} has format version {found}, this program reads {FORMAT_VERSION}")]
    Version { file: &'static str, found: u32 },
    #[error("manifest.json does not list {file}")]
    Unlisted { file: &'static str },
    #[error("{file} has {found} bytes instead of {expected}")]
    Size {
        file: &'static str,
        found: u64,
        expected: u64,
    },
    #[error("{file} does not match its checksum")]
    Checksum { file: &'static str },
    #[error("{file} is damaged")]
    Tensors {
        file: &'static str,
        #[source]
        source: TensorFileError,
    },
}

impl Unusable {
    fn passes(&self) -> bool {
        matches!(self, Self::Read { source, .. } if !durable::lasts(source))
    }
}

/// Sizes and checksums of a checkpoint's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Manifest {
    format_version: u32,
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    size: u64,
    blake3: String,
}

/// A checkpoint read into memory.
#[derive(Debug)]
pub struct Loaded {
    /// Its folder.
    pub path: PathBuf,
    /// How far the run was.
    pub state: RunState,
    /// The network.
    pub model: NamedTensors,
    /// The averaged network.
    pub ema: NamedTensors,
    /// The optimiser's momentum.
    pub optimizer: NamedTensors,
}

/// What a search for checkpoints gave.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest whole one; none when there are no checkpoints at all.
    pub newest: Option<Loaded>,
    /// Newer ones that are not usable, with the reason.
    pub passed_over: Vec<String>,
}

/// A checkpoint that was just written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its folder.
    pub path: PathBuf,
    /// BLAKE3 of its manifest, in hexadecimal.
    pub checksum: String,
}

/// A small file that names a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// The newest one.
    Last,
    /// The fittest one.
    Best,
}

impl Pointer {
    fn file(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

/// The checkpoints of one run.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    folder: PathBuf,
    attempt: Attempt,
}

impl CheckpointStore {
    /// The checkpoints in `folder`, which exists, as seen by `attempt`.
    pub fn new(folder: PathBuf, attempt: Attempt) -> Self {
        Self { folder, attempt }
    }

    /// Other checkpoints of the same attempt, in another folder.
    #[must_use]
    pub fn beside(&self, folder: PathBuf) -> Self {
        Self::new(folder, self.attempt)
    }

    /// Where the checkpoint of `step` is or would be.
    pub fn path_of(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{step:09}"))
    }

    /// Writes a checkpoint from the bytes of its four files. One of the same step is replaced.
    pub fn write(
        &self,
        step: u64,
        files: &[(&'static str, Vec<u8>)],
    ) -> Result<Written, CheckpointError> {
        let path = self.path_of(step);
        let temporary = self.folder.join(format!(
            "{TEMPORARY}{PREFIX}{step:09}-attempt-{}",
            self.attempt
        ));
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| CheckpointError::Write { path, source }
        };
        remove_if_there(&temporary).map_err(failed(&temporary))?;
        fs::create_dir(&temporary).map_err(failed(&temporary))?;
        let mut entries = BTreeMap::new();
        for (name, bytes) in files {
            let file = temporary.join(name);
            durable::write_synced(&file, bytes).map_err(failed(&file))?;
            let entry = FileEntry {
                size: bytes.len() as u64,
                blake3: blake3::hash(bytes).to_hex().to_string(),
            };
            entries.insert((*name).to_owned(), entry);
        }
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            files: entries,
        };
        let bytes = serde_json::to_vec_pretty(&manifest)
            .expect("a map of strings and numbers always becomes JSON");
        let file = temporary.join(MANIFEST);
        durable::write_synced(&file, &bytes).map_err(failed(&file))?;
        durable::sync_folder(&temporary).map_err(failed(&temporary))?;

        // A folder cannot be renamed over another one. Should the process end between the two renames,
        // the checkpoint before this one is found.
        let old = self.folder.join(format!("{TEMPORARY}old-{step:09}"));
        remove_if_there(&old).map_err(failed(&old))?;
        match fs::rename(&path, &old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&path)(error));
            }
            _ => {}
        }
        fs::rename(&temporary, &path).map_err(failed(&path))?;
        durable::sync_folder(&self.folder).map_err(failed(&self.folder))?;
        remove_if_there(&old).map_err(failed(&old))?;
        Ok(Written {
            path,
            checksum: blake3::hash(&bytes).to_hex().to_string(),
        })
    }

    /// Makes a pointer name the checkpoint of `step`.
    pub fn point(&self, pointer: Pointer, step: u64) -> Result<(), CheckpointError> {
        let path = self.folder.join(pointer.file());
        durable::write(&path, format!("{PREFIX}{step:09}\n").as_bytes())
            .map_err(|source| CheckpointError::Write { path, source })
    }

    /// The step a pointer names.
    pub fn pointed(&self, pointer: Pointer) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join(pointer.file())).ok()?;
        step_of(text.trim())
    }

    /// Reads the newest checkpoint whose files are all there and match their checksums.
    pub fn newest_whole(&self) -> Result<Found, CheckpointError> {
        let (mut passed_over, mut passes) = (Vec::new(), false);
        for step in self.steps()?.into_iter().rev() {
            let path = self.path_of(step);
            match load(&path) {
                Ok(loaded) => {
                    return Ok(Found {
                        newest: Some(loaded),
                        passed_over,
                    });
                }
                Err(reason) => {
                    passes |= reason.passes();
                    passed_over.push(format!("{}: {}", path.display(), chain(&reason)));
                }
            }
        }
        if passed_over.is_empty() {
            return Ok(Found {
                newest: None,
                passed_over,
            });
        }
        Err(CheckpointError::NoneWhole {
            path: self.folder.clone(),
            problems: passed_over,
            passes,
        })
    }

    /// The state of the newest checkpoint, if it can be read. Whether the rest is whole is not looked at.
    pub fn newest_state(&self) -> Option<RunState> {
        let newest = self.steps().ok()?.into_iter().next_back()?;
        read_state(&self.path_of(newest)).ok()
    }

    /// Removes what starts of the run that were killed left unfinished; returns how many folders.
    pub fn remove_unfinished(&self) -> Result<usize, CheckpointError> {
        let names = self.names()?;
        let unfinished = names.iter().filter(|name| name.starts_with(TEMPORARY));
        let mut removed = 0;
        for name in unfinished {
            let path = self.folder.join(name);
            let removal = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removal.map_err(|source| CheckpointError::Write { path, source })?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes all checkpoints.
    pub fn remove_all(&self) -> Result<(), CheckpointError> {
        self.remove_but(None)
    }

    /// Removes all checkpoints but that of `step`.
    pub fn keep_only(&self, step: u64) -> Result<(), CheckpointError> {
        self.remove_but(Some(step))
    }

    fn remove_but(&self, step: Option<u64>) -> Result<(), CheckpointError> {
        for other in self
            .steps()?
            .into_iter()
            .filter(|other| Some(*other) != step)
        {
            let path = self.path_of(other);
            remove_if_there(&path).map_err(|source| CheckpointError::Write { path, source })?;
        }
        Ok(())
    }

    /// Removes checkpoints that are neither among the newest `keep_last` nor the best one, nor `written`, that of
    /// the step that was just written; makes the pointer to the best one true.
    pub fn prune(&self, keep_last: usize, written: u64) -> Result<(), CheckpointError> {
        let stored: Vec<StoredCheckpoint> = self
            .steps()?
            .into_iter()
            .map(|step| {
                let path = self.path_of(step);
                StoredCheckpoint {
                    step,
                    valid: sizes_match(&path),
                    fitness: read_state(&path).ok().and_then(|state| state.fitness),
                    // A newer one may be damaged in a way that its sizes do not show.
                    pinned: step == written,
                }
            })
            .collect();
        let policy = RetentionPolicy {
            keep_last,
            keep_best: true,
        };
        let fittest = stored
            .iter()
            .filter(|checkpoint| checkpoint.valid)
            .filter_map(|checkpoint| Some((checkpoint.fitness?, checkpoint.step)))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        if let Some((_, step)) = fittest
            && self.pointed(Pointer::Best) != Some(step)
        {
            self.point(Pointer::Best, step)?;
        }
        for step in retention::plan(&stored, &policy).delete {
            let path = self.path_of(step);
            // First out of the way in one step: half a checkpoint must not be found under its name.
            let doomed = self.folder.join(format!("{TEMPORARY}old-{step:09}"));
            remove_if_there(&doomed)
                .and_then(|()| fs::rename(&path, &doomed))
                .and_then(|()| fs::remove_dir_all(&doomed))
                .map_err(|source| CheckpointError::Write { path, source })?;
        }
        Ok(())
    }

    /// The steps that have a folder, ascending.
    pub fn steps(&self) -> Result<Vec<u64>, CheckpointError> {
        let mut steps: Vec<u64> = self
            .names()?
            .iter()
            .filter_map(|name| step_of(name))
            .collect();
        steps.sort_unstable();
        Ok(steps)
    }

    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let entries = fs::read_dir(&self.folder)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|source| CheckpointError::List {
                path: self.folder.clone(),
                source,
            })?;
        Ok(entries
            .iter()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect())
    }
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads one checkpoint and compares it with its manifest.
fn load(path: &Path) -> Result<Loaded, Unusable> {
    let manifest = read_manifest(path)?;
    let read = |file: &'static str| -> Result<Vec<u8>, Unusable> {
        let entry = manifest
            .files
            .get(file)
            .ok_or(Unusable::Unlisted { file })?;
        // The sum of a file that is larger than it should be is not worth its memory.
        let found = path.join(file);
        let bytes = match bounded::read(&found, entry.size) {
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(Unusable::Size {
                    file,
                    found: fs::metadata(&found).map_or(0, |metadata| metadata.len()),
                    expected: entry.size,
                });
            }
            read => read.map_err(|source| Unusable::Read { file, source })?,
        };
        if bytes.len() as u64 != entry.size {
            return Err(Unusable::Size {
                file,
                found: bytes.len() as u64,
                expected: entry.size,
            });
        }
        if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
            return Err(Unusable::Checksum { file });
        }
        Ok(bytes)
    };
    let tensors = |file: &'static str| {
        decode(&read(file)?, "")
            .map(|(tensors, _)| tensors)
            .map_err(|source| Unusable::Tensors { file, source })
    };
    Ok(Loaded {
        path: path.to_owned(),
        state: parse_state(&read(STATE)?)?,
        model: tensors(MODEL)?,
        ema: tensors(EMA)?,
        optimizer: tensors(OPTIMIZER)?,
    })
}

fn read_manifest(path: &Path) -> Result<Manifest, Unusable> {
    let file = MANIFEST;
    let bytes = bounded::read(&path.join(file), MAX_TEXT)
        .map_err(|source| Unusable::Read { file, source })?;
    let manifest: Manifest =
        serde_json::from_slice(&bytes).map_err(|source| Unusable::Json { file, source })?;
    if manifest.format_version != FORMAT_VERSION {
        return Err(Unusable::Version {
            file,
            found: manifest.format_version,
        });
    }
    Ok(manifest)
}

fn read_state(path: &Path) -> Result<RunState, Unusable> {
    let bytes = bounded::read(&path.join(STATE), MAX_TEXT).map_err(|source| Unusable::Read {
        file: STATE,
        source,
    })?;
    parse_state(&bytes)
}

fn parse_state(bytes: &[u8]) -> Result<RunState, Unusable> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        format_version: u32,
    }
    let json = |source| Unusable::Json {
        file: STATE,
        source,
    };
    let Version { format_version } = serde_json::from_slice(bytes).map_err(json)?;
    if format_version != FORMAT_VERSION {
        return Err(Unusable::Version {
            file: STATE,
            found: format_version,
        });
    }
    serde_json::from_slice(bytes).map_err(json)
}

/// Whether the files of a checkpoint are there in full, by their sizes: cheap enough for every prune.
fn sizes_match(path: &Path) -> bool {
    read_manifest(path).is_ok_and(|manifest| {
        manifest.files.iter().all(|(name, entry)| {
            fs::metadata(path.join(name)).is_ok_and(|metadata| metadata.len() == entry.size)
        })
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
