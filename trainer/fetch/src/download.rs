//! One file, from where it ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use contract::exit::FailureReason;
use futures::StreamExt as _;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;
use tracing::info;

use crate::error::{FetchError, chain};
use crate::progress::Progress;
use crate::source::{Source, sends_no_parts};

/// Between two tries to receive a file.
const AGAIN: Duration = Duration::from_secs(1);

/// Which version of a file it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Bytes.
    pub size: u64,
    /// What the server calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_tag: Option<String>,
}

impl Version {
    /// The version that a store describes.
    pub fn of(meta: &ObjectMeta) -> Self {
        // A server that names no version mostly tells when the file was changed.
        let changed = || {
            let seconds = meta.last_modified.timestamp();
            (seconds > 0).then(|| format!("changed {seconds}"))
        };
        Self {
            size: meta.size,
            e_tag: meta.e_tag.clone().or_else(changed),
        }
    }
}

/// An answer that has begun, and the byte it begins with.
pub struct Answer {
    result: GetResult,
    offset: u64,
}

impl Answer {
    /// The version that is being sent.
    pub fn version(&self) -> Version {
        Version::of(&self.result.meta)
    }
}

/// The bytes of a file that are there.
pub fn length(part: &Path) -> u64 {
    fs::metadata(part).map_or(0, |meta| meta.len())
}

/// Tries to receive a file, as long as each brings a piece of it. The client of a store takes up a broken answer only for
/// a while, and never where the server names no version: large files take longer, and one of them must not cost the
/// job a try for each time that its connection breaks.
pub struct Tries<'a> {
    part: &'a Path,
    /// The bytes that are there.
    had: u64,
}

impl<'a> Tries<'a> {
    /// Before the first.
    pub fn new(part: &'a Path) -> Self {
        let had = length(part);
        Self { part, had }
    }

    /// Waits a moment for the next try after one that failed; its error when there is none.
    pub async fn again(&mut self, error: FetchError) -> Result<(), FetchError> {
        let broke = match &error {
            FetchError::Network { .. } | FetchError::Size { .. } => true,
            FetchError::Server { .. } => error.reason() == FailureReason::FetchFailed,
            _ => false,
        };
        let found = length(self.part);
        if !broke || found <= self.had {
            return Err(error);
        }
        self.had = found;
        info!("{}; going on behind {found} bytes", chain(&error));
        sleep(AGAIN).await;
        Ok(())
    }
}

/// Asks for a file from a byte on. A server that cannot do that begins at the beginning.
pub async fn ask(
    source: &Source,
    location: &Location,
    url: &str,
    offset: u64,
) -> Result<Answer, FetchError> {
    if offset > 0 {
        let options = GetOptions {
            range: Some(GetRange::Offset(offset)),
            ..GetOptions::default()
        };
        match source.store.get_opts(location, options).await {
            Ok(result) if result.range.start == offset => return Ok(Answer { result, offset }),
            Ok(_) => {}
            Err(error) if sends_no_parts(&error) => {}
            // The part is still of use when the server is back.
            Err(error) => return Err(source.explain(&error, url)),
        }
    }
    let result = source.store.get(location).await;
    let result = result.map_err(|error| source.explain(&error, url))?;
    Ok(Answer { result, offset: 0 })
}

/// Writes what arrives behind what is there. A try that fails does not count as progress: the next one counts what is
/// there by then.
pub async fn receive(
    source: &Source,
    answer: Answer,
    part: &Path,
    url: &str,
    progress: &Progress,
) -> Result<(), FetchError> {
    let Version { size, .. } = answer.version();
    let Answer { result, offset } = answer;
    let mut open = tokio::fs::OpenOptions::new();
    open.create(true);
    if offset == 0 {
        open.write(true).truncate(true);
    } else {
        open.append(true);
    }
    let file = open.open(part).await;
    let mut file = file.map_err(FetchError::volume("open", part))?;
    let mut counted = offset;
    progress.add(counted);
    let mut stream = result.into_stream();
    let writing = async {
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| source.explain(&error, url))?;
            let written = file.write_all(&bytes).await;
            written.map_err(FetchError::volume("write", part))?;
            counted += bytes.len() as u64;
            progress.add(bytes.len() as u64);
        }
        Ok(())
    };
    let written = writing.await;
    // Also after an error: the next fetch goes on behind what arrived.
    let flushed = file
        .flush()
        .await
        .map_err(FetchError::volume("write", part));
    let found = length(part);
    let received = written.and(flushed).and_then(|()| {
        if found == size {
            return Ok(());
        }
        if found > size {
            // Whatever it is, it is no beginning of the file.
            let _ = fs::remove_file(part);
        }
        Err(FetchError::Size {
            url: url.to_owned(),
            expected: size,
            found,
        })
    });
    received.inspect_err(|_| progress.take_back(counted))
}
