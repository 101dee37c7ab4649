//! One archive: fetched as a whole, verified, unpacked.

use std::fs;
use std::path::Path;

use contract::spec::Archive;
use object_store::path::Path as Location;
use tracing::info;

use crate::digest;
use crate::download::{self, Answer, Tries, Version};
use crate::error::FetchError;
use crate::folder::{Complete, Folder};
use crate::progress::Progress;
use crate::source::Source;
use crate::unpack;

/// Fetches and unpacks the archive.
pub async fn fetch(
    source: &Source,
    archive: &Archive,
    folder: &Folder,
) -> Result<Complete, FetchError> {
    let file = folder.part("archive");
    get(source, folder, &file).await?;
    if let Some(expected) = &archive.sha256 {
        info!("verifying the SHA-256 of {} bytes", download::length(&file));
        let found = tokio::task::block_in_place(|| digest::sha256(&file));
        let found = found.map_err(FetchError::volume("read", &file))?;
        if !found.eq_ignore_ascii_case(expected) {
            let _ = fs::remove_file(&file);
            return Err(FetchError::Sha256 {
                url: source.url.clone(),
                expected: expected.clone(),
                found,
            });
        }
    }
    info!("unpacking");
    let unpacked = tokio::task::block_in_place(|| unpack::unpack(&file, &source.url, folder));
    if let Err(FetchError::BadArchive { .. }) = &unpacked {
        // Nobody can use it: who tries again wants another one.
        let _ = fs::remove_file(&file);
    }
    unpacked
}

async fn get(source: &Source, folder: &Folder, file: &Path) -> Result<(), FetchError> {
    let mut tries = Tries::new(file);
    loop {
        match get_rest(source, folder, file).await {
            Err(error) => tries.again(error).await?,
            done => return done,
        }
    }
}

async fn get_rest(source: &Source, folder: &Folder, file: &Path) -> Result<(), FetchError> {
    let url = &source.url;
    let about = folder.part("archive.json");
    let before: Option<Version> = fs::read(&about)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    // Without a name for its version nobody knows whether it goes on with the same file.
    let before = before.filter(|version| version.e_tag.is_some());
    let have = before.as_ref().map_or(0, |_| download::length(file));
    if before.as_ref().is_some_and(|version| version.size == have) {
        return Ok(());
    }
    let mut answer = download::ask(source, &Location::default(), url, have).await?;
    if have > 0 && before.as_ref() != Some(&answer.version()) {
        info!("{url} is another one than before: beginning anew");
        answer = download::ask(source, &Location::default(), url, 0).await?;
    }
    begin(&answer, &about, have, folder, url)?;
    let progress = Progress::new(1, answer.version().size);
    let received = download::receive(source, answer, file, url, &progress);
    progress.during(received).await?;
    progress.file();
    progress.say();
    Ok(())
}

/// Notes which version it is before its bytes arrive, and makes sure that they have room.
fn begin(
    answer: &Answer,
    about: &Path,
    have: u64,
    folder: &Folder,
    url: &str,
) -> Result<(), FetchError> {
    let version = answer.version();
    let (needed, free) = (version.size.saturating_sub(have), folder.free()?);
    if needed > free {
        let url = url.to_owned();
        return Err(FetchError::Full { url, needed, free });
    }
    let bytes = serde_json::to_vec(&version).map_err(std::io::Error::from);
    bytes
        .and_then(|bytes| fs::write(about, bytes))
        .map_err(FetchError::volume("write", about))
}
