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
    kept: Mutex<Kept>,
}

impl Desk {
    /// The desk in this folder, as a keeper before us in the same pod left it.
    pub fn open(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join(KEPT_FILE)).unwrap_or_default();
        let before: Kept = serde_json::from_str(&text).unwrap_or_default();
        let kept = Kept {
            ready: before.ready,
            checkpoint: before.checkpoint,
            ..Kept::default()
        };
        Self {
            folder: folder.to_owned(),
            kept: Mutex::new(kept),
        }
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
        let path = self.folder.join(KEPT_FILE);
        let new = self.folder.join(format!(".{KEPT_FILE}"));
        let text = serde_json::to_string(&*kept).expect("strings and numbers always become JSON");
        fs::write(&new, text).map_err(FetchError::volume("write", &new))?;
        fs::rename(&new, &path).map_err(FetchError::volume("write", &path))?;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic elsewhere cannot leave plain values half-changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
