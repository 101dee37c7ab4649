//! The folder through which the keeper and the agent speak.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contract::keep::{FINISH_FILE, KEPT_FILE, KeepFailure, Kept};
use contract::progress::CheckpointRef;

use crate::error::FetchError;

/// What the keeper says, in a file that is replaced as a whole.
#[derive(Debug)]
pub struct Desk {
    folder: PathBuf,
    owner: String,
    kept: Mutex<Kept>,
}

/// The file with the name that this pod's keeper has in the store: a container that is started anew is the same start.
const OWNER_FILE: &str = "owner";

impl Desk {
    /// The desk in this folder, as a keeper before us in the same pod left it, or else that of a new `owner`.
    pub fn open(folder: &Path, owner: &str) -> Self {
        let known = fs::read_to_string(folder.join(OWNER_FILE)).ok();
        let known = known.filter(|owner| !owner.is_empty());
        let owner = known.unwrap_or_else(|| {
            // Without it, a container that is started anew waits for itself, and then goes on.
            let _ = fs::write(folder.join(OWNER_FILE), owner);
            owner.to_owned()
        });
        let text = fs::read_to_string(folder.join(KEPT_FILE)).unwrap_or_default();
        let before: Kept = serde_json::from_str(&text).unwrap_or_default();
        let kept = Kept {
            ready: before.ready,
            checkpoint: before.checkpoint,
            ..Kept::default()
        };
        Self {
            folder: folder.to_owned(),
            owner,
            kept: Mutex::new(kept),
        }
    }

    /// What the keeper of this pod is called in the store.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// A sign of life: the file is written anew.
    pub fn touch(&self) -> Result<(), FetchError> {
        self.write(&self.lock())
    }

    /// What was said last.
    pub fn kept(&self) -> Kept {
        self.lock().clone()
    }

    /// Whether the agent wants everything in the store.
    pub fn is_finish_asked(&self) -> bool {
        self.folder.join(FINISH_FILE).exists()
    }

    /// Ranks may be started.
    pub fn ready(&self, checkpoint: Option<CheckpointRef>) -> Result<(), FetchError> {
        self.say(|kept| {
            *kept = Kept {
                ready: true,
                checkpoint,
                ..Kept::default()
            };
        })?;
        Ok(())
    }

    /// A checkpoint is whole in the store.
    pub fn checkpoint(&self, checkpoint: CheckpointRef) -> Result<(), FetchError> {
        self.say(|kept| kept.checkpoint = Some(checkpoint))?;
        Ok(())
    }

    /// Something hinders the keeper; whether that is news.
    pub fn trouble(&self, text: &str) -> Result<bool, FetchError> {
        self.say(|kept| kept.problem = Some(text.to_owned()))
    }

    /// Nothing does any more.
    pub fn solved(&self) -> Result<(), FetchError> {
        self.say(|kept| kept.problem = None)?;
        Ok(())
    }

    /// Everything is in the store.
    pub fn complete(&self) -> Result<(), FetchError> {
        self.say(|kept| kept.complete = true)?;
        Ok(())
    }

    /// The keeper has given up.
    pub fn fail(&self, failure: KeepFailure) -> Result<(), FetchError> {
        self.say(|kept| kept.failure = Some(failure))?;
        Ok(())
    }

    fn say(&self, change: impl FnOnce(&mut Kept)) -> Result<bool, FetchError> {
        let mut kept = self.lock();
        let before = kept.clone();
        change(&mut kept);
        if *kept == before {
            return Ok(false);
        }
        self.write(&kept)?;
        Ok(true)
    }

    fn write(&self, kept: &Kept) -> Result<(), FetchError> {
        let path = self.folder.join(KEPT_FILE);
        let new = self.folder.join(format!(".{KEPT_FILE}"));
        let text = serde_json::to_string(kept).expect("strings and numbers always become JSON");
        fs::write(&new, text).map_err(FetchError::volume("write", &new))?;
        fs::rename(&new, &path).map_err(FetchError::volume("write", &path))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere cannot leave plain values half-changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
