//! The whole: from the configuration to the mark in the folder.

use std::path::Path;

use contract::spec::Dataset;
use tracing::info;

use crate::error::FetchError;
use crate::folder::{Complete, Folder, Opened};
use crate::source::{Patience, Source};
use crate::{archive, objects};

/// Fetches a data set to a folder, unless it is all there; `get` looks up environment variables.
pub async fn run(
    dataset: &Dataset,
    folder: &Path,
    patience: Patience,
    get: impl Fn(&str) -> Option<String>,
) -> Result<Complete, FetchError> {
    let source = Source::of(dataset, patience, get)?;
    let folder = match Folder::open(folder, &source.identity, &source.url).await? {
        Opened::Complete(complete) => {
            info!("{} is here already", source.url);
            return Ok(complete);
        }
        Opened::Begun(folder) => folder,
    };
    let complete = match &dataset.archive {
        Some(archive) => archive::fetch(&source, archive, &folder).await?,
        None => objects::fetch(&source, &folder).await?,
    };
    tokio::task::block_in_place(|| folder.complete(&complete))?;
    Ok(complete)
}
