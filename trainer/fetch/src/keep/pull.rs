//! From the store to the folder.

use std::fs;
use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectMeta;

use super::OWNER;
use super::push::Known;
use super::scan::Stamp;
use crate::download;
use crate::error::FetchError;
use crate::names;
use crate::progress::Progress;
use crate::source::Source;

/// Objects in flight.
const IN_FLIGHT: usize = 8;

/// A file of the run, as the store has it.
struct Object {
    name: String,
    meta: ObjectMeta,
}

/// Brings all of a run to its folder. What is there already is replaced: nobody else writes there.
pub async fn pull(source: &Source, folder: &Path) -> Result<Known, FetchError> {
    let objects = objects(source).await?;
    let bytes = objects.iter().map(|object| object.meta.size).sum();
    let progress = Progress::new(objects.len() as u64, bytes);
    fs::create_dir_all(folder).map_err(FetchError::volume("make", folder))?;
    let fetched = stream::iter(objects)
        .map(|object| one(source, folder, object, &progress))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>();
    let fetched = progress.during(fetched).await?;
    if !fetched.is_empty() {
        progress.say();
    }
    Ok(Known::of(fetched))
}

/// What the store has, for a folder that is here: everything is brought there once more.
pub async fn list(source: &Source) -> Result<Known, FetchError> {
    let objects = objects(source).await?;
    let unknown = |object: Object| (object.name, None);
    Ok(Known::of(objects.into_iter().map(unknown).collect()))
}

async fn objects(source: &Source) -> Result<Vec<Object>, FetchError> {
    let metas: Vec<_> = source
        .store
        .list(Some(&source.path))
        .try_collect()
        .await
        .map_err(|error| source.explain(&error, &source.url))?;
    let mut objects = Vec::new();
    for meta in metas {
        let key = meta.location.as_ref();
        let name = key.strip_prefix(source.path.as_ref()).unwrap_or(key);
        let name = name.trim_start_matches('/').to_owned();
        // Ours have no such names; the store's own marks do.
        if name.is_empty() || name == OWNER {
            continue;
        }
        objects.push(Object { name, meta });
    }
    Ok(objects)
}

async fn one(
    source: &Source,
    folder: &Path,
    object: Object,
    progress: &Progress,
) -> Result<(String, Option<Stamp>), FetchError> {
    let Object { name, meta } = object;
    let url = format!("{}/{name}", source.url);
    let inside = names::inside(&name).map_err(|problem| FetchError::UnsafeName {
        url: source.url.clone(),
        name: name.clone(),
        problem,
    })?;
    let path = folder.join(&inside);
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent).map_err(FetchError::volume("make", parent))?;
    let file = inside.file_name().unwrap_or_default().to_string_lossy();
    let part = parent.join(format!(".tmp-{file}"));
    let answer = download::ask(source, &meta.location, &url, 0).await?;
    download::receive(source, answer, &part, &url, progress).await?;
    fs::rename(&part, &path).map_err(FetchError::volume("write", &path))?;
    progress.file();
    let written = fs::metadata(&path).map_err(FetchError::volume("read", &path))?;
    let modified = written.modified();
    let modified = modified.map_err(FetchError::volume("read", &path))?;
    let size = written.len();
    Ok((name, Some(Stamp { size, modified })))
}
