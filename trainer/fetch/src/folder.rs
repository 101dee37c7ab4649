//! The folder that is filled, and what is known of it: whose data set it holds, which files are whole, and
//! whether all are.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::error::FetchError;
use crate::names::STATE_DIR;

/// The version of the files that are written here.
const VERSION: u32 = 1;
/// Between two looks at a lock that another fetch holds.
const LOCKED: Duration = Duration::from_secs(1);
/// What a file system makes in its root by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// A file that is whole, as the store described it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Whole {
    /// Its name below the folder.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What the store calls this version of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
}

/// Whose data set the folder holds.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Owner {
    version: u32,
    source: String,
}

/// What the folder holds, once it is all there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Complete {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A folder that is being filled by this process alone.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    known: HashMap<String, Whole>,
    log: Mutex<Log>,
    _lock: Option<File>,
}

#[derive(Debug)]
struct Log {
    file: File,
    waiting: Vec<Whole>,
}

/// A folder, after a look at it.
#[derive(Debug)]
pub enum Opened {
    /// All of it is there.
    Complete(Complete),
    /// Something is to be done.
    Begun(Box<Folder>),
}

impl Folder {
    /// Takes the folder for this source, which `url` names to people; waits while another fetch has it.
    pub async fn open(root: &Path, source: &str, url: &str) -> Result<Opened, FetchError> {
        fs::create_dir_all(root).map_err(FetchError::volume("make the folder", root))?;
        let state = root.join(STATE_DIR);
        if !state.is_dir() {
            if let Some(name) = stranger(root)? {
                let url = url.to_owned();
                return Err(FetchError::NotEmpty { url, name });
            }
            fs::create_dir_all(&state).map_err(FetchError::volume("make the folder", &state))?;
        }
        let lock = lock(&state.join("lock")).await?;
        let owner = Owner {
            version: VERSION,
            source: source.to_owned(),
        };
        match read::<Owner>(&state.join("source.json"))? {
            None => write(&state, "source.json", &owner)?,
            Some(found) if found == owner => {}
            Some(found) => {
                return Err(FetchError::OtherSource {
                    url: url.to_owned(),
                    found: found.source,
                });
            }
        }
        if let Some(complete) = read(&state.join("complete.json"))? {
            return Ok(Opened::Complete(complete));
        }
        let parts = state.join("parts");
        fs::create_dir_all(&parts).map_err(FetchError::volume("make the folder", &parts))?;
        let done = state.join("done.jsonl");
        let known = known(&done)?;
        let file = OpenOptions::new().append(true).create(true).open(&done);
        let file = file.map_err(FetchError::volume("open", &done))?;
        Ok(Opened::Begun(Box::new(Self {
            root: root.to_owned(),
            known,
            log: Mutex::new(Log {
                file,
                waiting: Vec::new(),
            }),
            _lock: lock,
        })))
    }

    /// Where a file of this name below the folder lies.
    pub fn place(&self, name: &Path) -> PathBuf {
        self.root.join(name)
    }

    /// Where a file lies as long as it is not whole.
    pub fn part(&self, key: &str) -> PathBuf {
        self.state().join("parts").join(key)
    }

    fn state(&self) -> PathBuf {
        self.root.join(STATE_DIR)
    }

    /// Whether this version of a file was whole when an earlier fetch ended, and still has its size.
    pub fn has(&self, file: &Whole) -> bool {
        let size = || fs::metadata(self.root.join(&file.name)).map(|meta| meta.len());
        self.known.get(&file.name) == Some(file) && size().is_ok_and(|size| size == file.size)
    }

    /// Gives a file that is whole its name.
    pub fn put(&self, part: &Path, name: &Path) -> Result<(), FetchError> {
        let to = self.place(name);
        let parent = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(FetchError::volume("make the folder", parent))?;
        fs::rename(part, &to).map_err(FetchError::volume("write", &to))
    }

    /// Notes that a file is whole. It is written down with the next [`Self::save`].
    pub fn note(&self, file: Whole) {
        self.log().waiting.push(file);
    }

    /// Makes sure that what was noted survives the end of the node, and writes it down. Once for many files:
    /// each one by itself would take a moment on most volumes.
    pub fn save(&self) -> Result<(), FetchError> {
        let mut log = self.log();
        if log.waiting.is_empty() {
            return Ok(());
        }
        let done = self.state().join("done.jsonl");
        let saving = |log: &mut Log| {
            rustix::fs::syncfs(&log.file)?;
            let mut text = String::new();
            for file in &log.waiting {
                text += &serde_json::to_string(file)?;
                text.push('\n');
            }
            log.file.write_all(text.as_bytes())?;
            log.file.sync_data()
        };
        saving(&mut log).map_err(FetchError::volume("write", done))?;
        log.waiting.clear();
        Ok(())
    }

    /// Bytes that the volume has free.
    pub fn free(&self) -> Result<u64, FetchError> {
        let stat = rustix::fs::statvfs(&self.root);
        let stat = stat.map_err(|error| {
            FetchError::volume("measure the volume of", &self.root)(error.into())
        })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Marks the folder: all is there. What only an unfinished fetch needs goes.
    pub fn complete(&self, complete: &Complete) -> Result<(), FetchError> {
        self.save()?;
        let state = self.state();
        let file = File::open(&state).map_err(FetchError::volume("open", &state))?;
        rustix::fs::syncfs(&file)
            .map_err(|error| FetchError::volume("write", &state)(error.into()))?;
        write(&state, "complete.json", complete)?;
        // Nobody reads them any more, so what cannot be removed does no harm.
        let _ = fs::remove_file(state.join("done.jsonl"));
        let _ = fs::remove_dir_all(state.join("parts"));
        Ok(())
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        // A panic elsewhere cannot leave a list half-changed.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that lies in a folder which nobody has fetched to.
fn stranger(root: &Path) -> Result<Option<String>, FetchError> {
    let entries = fs::read_dir(root).map_err(FetchError::volume("read", root))?;
    for entry in entries {
        let entry = entry.map_err(FetchError::volume("read", root))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != LOST_AND_FOUND && name != STATE_DIR {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The lock of a folder; none where the volume has no locks.
async fn lock(path: &Path) -> Result<Option<File>, FetchError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    let file = file.map_err(FetchError::volume("open", path))?;
    let mut told = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    info!("another fetch fills this folder; waiting for it");
                    told = true;
                }
                tokio::time::sleep(LOCKED).await;
            }
            Err(TryLockError::Error(error)) => {
                warn!("the volume has no locks ({error}): nothing else may fetch to this folder");
                return Ok(None);
            }
        }
    }
}

/// The files that earlier fetches wrote down. A last line that was cut off counts as not written.
fn known(path: &Path) -> Result<HashMap<String, Whole>, FetchError> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.map_err(FetchError::volume("read", path))?,
    };
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(lines.map(|file: Whole| (file.name.clone(), file)).collect())
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, FetchError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| FetchError::volume("understand", path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FetchError::volume("read", path)(error)),
    }
}

/// Writes a small file whole or not at all.
fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> Result<(), FetchError> {
    let (temporary, path) = (folder.join(format!("{name}.new")), folder.join(name));
    let writing = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(folder)?.sync_all()
    };
    writing().map_err(FetchError::volume("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn begun(root: &Path, source: &str) -> Box<Folder> {
        match Folder::open(root, source, source).await.expect("opens") {
            Opened::Begun(folder) => folder,
            Opened::Complete(complete) => panic!("{complete:?}"),
        }
    }

    fn whole(name: &str, size: u64) -> Whole {
        Whole {
            name: name.to_owned(),
            size,
            e_tag: Some("1".to_owned()),
        }
    }

    #[tokio::test]
    async fn what_was_whole_is_known_to_the_next_fetch() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = begun(root.path(), "s3://a").await;
        for name in ["a/1", "a/2"] {
            let part = folder.part("x");
            fs::write(&part, "abc").expect("written");
            folder.put(&part, Path::new(name)).expect("renamed");
            folder.note(whole(name, 3));
        }
        folder.save().expect("saved");
        drop(folder);
        // The process was killed while it wrote a line, and somebody cut a file off.
        let done = root.path().join(STATE_DIR).join("done.jsonl");
        let mut text = fs::read_to_string(&done).expect("readable");
        text.push_str("{\"name\":\"a/3\",");
        fs::write(&done, text).expect("written");
        fs::write(root.path().join("a/2"), "ab").expect("written");
        let folder = begun(root.path(), "s3://a").await;
        assert!(folder.has(&whole("a/1", 3)));
        assert!(!folder.has(&whole("a/2", 3)) && !folder.has(&whole("a/3", 3)));
        assert!(!folder.has(&Whole {
            e_tag: None,
            ..whole("a/1", 3)
        }));
        let complete = Complete { files: 2, bytes: 6 };
        folder.complete(&complete).expect("complete");
        drop(folder);
        let again = Folder::open(root.path(), "s3://a", "s3://a").await;
        assert!(matches!(again, Ok(Opened::Complete(found)) if found == complete));
        let other = Folder::open(root.path(), "s3://b", "s3://b").await;
        assert!(matches!(other, Err(FetchError::OtherSource { found, .. }) if found == "s3://a"));
    }

    #[tokio::test]
    async fn nothing_is_written_beside_what_somebody_else_put_there() {
        let root = tempfile::tempdir().expect("a folder");
        fs::create_dir(root.path().join(LOST_AND_FOUND)).expect("made");
        fs::write(root.path().join("mine"), "").expect("written");
        let error = Folder::open(root.path(), "s3://a", "s3://a").await;
        assert!(matches!(error, Err(FetchError::NotEmpty { name, .. }) if name == "mine"));
        assert!(!root.path().join(STATE_DIR).exists());
        fs::remove_file(root.path().join("mine")).expect("removed");
        begun(root.path(), "s3://a").await;
    }

    #[tokio::test]
    async fn two_fetches_of_a_folder_wait_for_each_other() {
        let root = tempfile::tempdir().expect("a folder");
        let first = begun(root.path(), "s3://a").await;
        let second = Folder::open(root.path(), "s3://a", "s3://a");
        let mut second = std::pin::pin!(second);
        let soon = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
        assert!(soon.is_err(), "both have it");
        first
            .complete(&Complete { files: 0, bytes: 0 })
            .expect("complete");
        drop(first);
        assert!(matches!(second.await, Ok(Opened::Complete(_))));
    }
}
