//! One file, from where it ends.

use std::fs;
use std::path::Path;

use futures::StreamExt as _;
use object_store::path::Path as Location;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

use crate::error::FetchError;
use crate::progress::Progress;
use crate::source::Source;

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
            Ok(_)
            | Err(object_store::Error::Generic { .. } | object_store::Error::NotSupported { .. }) =>
                {}
            Err(error) => return Err(source.explain(&error, url)),
        }
    }
    let result = source.store.get(location).await;
    let result = result.map_err(|error| source.explain(&error, url))?;
    Ok(Answer { result, offset: 0 })
}

/// Writes what arrives behind what is there.
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
    progress.add(offset);
    let mut stream = result.into_stream();
    let writing = async {
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| source.explain(&error, url))?;
            let written = file.write_all(&bytes).await;
            written.map_err(FetchError::volume("write", part))?;
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
    written.and(flushed)?;
    let found = length(part);
    if found != size {
        if found > size {
            // Whatever it is, it is no beginning of the file.
            let _ = fs::remove_file(part);
        }
        return Err(FetchError::Size {
            url: url.to_owned(),
            expected: size,
            found,
        });
    }
    Ok(())
}
