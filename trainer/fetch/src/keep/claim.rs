//! Whose a run is in its store: an object `.owner` names the start that may write. Its second line changes with every
//! sign of life; it is empty when nobody has the run.
//!
//! Looking and writing are not one step, which not every store could do: between the two another start may have taken
//! over. It waits for signs of life first, so that this takes a start that was given up and comes back at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStoreExt as _;
use object_store::path::Path as Location;

use crate::error::FetchError;
use crate::source::Source;

/// The object's name.
pub const OWNER: &str = ".owner";

/// Our claim on a run.
#[derive(Clone, Debug)]
pub struct Claim {
    source: Source,
    owner: String,
    beats: Arc<AtomicU64>,
}

/// Who has a run, with the last sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody, or we do.
    Free,
    /// Another start.
    Other(String),
}

impl Claim {
    /// A claim of this start, which has a name that no other has.
    pub fn new(source: Source, owner: String) -> Self {
        Self {
            source,
            owner,
            beats: Arc::default(),
        }
    }

    /// Who has the run now.
    pub async fn holder(&self) -> Result<Holder, FetchError> {
        Ok(match self.read().await? {
            None => Holder::Free,
            Some(text) if text.is_empty() || first_line(&text) == self.owner => Holder::Free,
            Some(text) => Holder::Other(text.replace('\n', " ")),
        })
    }

    /// Makes the run ours.
    pub async fn take(&self) -> Result<(), FetchError> {
        let beat = self.beats.fetch_add(1, Ordering::Relaxed);
        self.write(format!("{}\n{beat}", self.owner)).await
    }

    /// Whether it was made ours in this process.
    pub fn is_taken(&self) -> bool {
        self.beats.load(Ordering::Relaxed) > 0
    }

    /// That it still is. One whose mark somebody removed is.
    pub async fn check(&self) -> Result<(), FetchError> {
        match self.read().await? {
            Some(text) if first_line(&text) != self.owner => Err(FetchError::TakenOver {
                url: self.source.url.clone(),
                owner: first_line(&text).to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// A sign of life.
    pub async fn renew(&self) -> Result<(), FetchError> {
        self.check().await?;
        self.take().await
    }

    /// Lets go of the run, if it is ours.
    pub async fn release(&self) -> Result<(), FetchError> {
        self.check().await?;
        self.write(String::new()).await
    }

    async fn read(&self) -> Result<Option<String>, FetchError> {
        let url = format!("{}/{OWNER}", self.source.url);
        let failed = |error: object_store::Error| self.source.explain(&error, &url);
        let found = match self.source.store.get(&self.location()).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            found => found.map_err(failed)?,
        };
        let bytes = found.bytes().await.map_err(failed)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn write(&self, text: String) -> Result<(), FetchError> {
        let url = format!("{}/{OWNER}", self.source.url);
        let put = self.source.store.put(&self.location(), text.into()).await;
        put.map_err(|error| self.source.explain(&error, &url))?;
        Ok(())
    }

    fn location(&self) -> Location {
        self.source.path.clone().join(OWNER)
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
