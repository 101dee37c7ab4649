//! From the store to the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::ObjectMeta;

use super::claim::OWNER;
use super::push::{Known, Role, role, step};
use super::scan::{Files, Stamp};
use crate::download::{self, Version};
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

/// What is here already, by a try before: which version of each object, and the file it became.
#[derive(Debug, Default)]
pub struct Pulled(Mutex<BTreeMap<String, (Version, Stamp)>>);

impl Pulled {
    /// How many files.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (Version, Stamp)>> {
        // A panic elsewhere cannot leave a map of plain values half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings all of a run to its folder. Where checkpoints have `manifests`, those without are left out: their pod went
/// while it sent them. What is there already is replaced: nobody else writes there.
pub async fn pull(
    source: &Source,
    folder: &Path,
    manifests: bool,
    pulled: &Pulled,
) -> Result<Known, FetchError> {
    let objects = objects(source).await?;
    let whole: BTreeSet<u64> = objects
        .iter()
        .filter(|object| role(&object.name) == Role::Manifest)
        .filter_map(|object| step(&object.name))
        .collect();
    let (objects, half): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| {
        !manifests || step(&object.name).is_none_or(|step| whole.contains(&step))
    });
    let bytes = objects.iter().map(|object| object.meta.size).sum();
    let progress = Progress::new(objects.len() as u64, bytes);
    fs::create_dir_all(folder).map_err(FetchError::volume("make", folder))?;
    let fetched = stream::iter(objects)
        .map(|object| one(source, folder, object, pulled, &progress))
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<Vec<_>>();
    let mut files = progress.during(fetched).await?;
    if !files.is_empty() {
        progress.say();
    }
    // They are not here, and so go from there.
    files.extend(half.into_iter().map(|object| (object.name, None)));
    Ok(Known::of(files))
}

/// What the store has, for a folder that is here. Checkpoints do not change; everything else is brought there once more.
pub async fn list(source: &Source, here: &Files) -> Result<Known, FetchError> {
    let objects = objects(source).await?;
    let known = objects.into_iter().map(|Object { name, meta }| {
        let same = here.get(&name).filter(|stamp| stamp.size == meta.size);
        let same = same.filter(|_| step(&name).is_some()).copied();
        (name, same)
    });
    Ok(Known::of(known.collect()))
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
    pulled: &Pulled,
    progress: &Progress,
) -> Result<(String, Option<Stamp>), FetchError> {
    let Object { name, meta } = object;
    let version = Version::of(&meta);
    let before = pulled.lock().get(&name).cloned();
    if let Some((_, stamp)) = before.filter(|(known, _)| *known == version) {
        progress.add(version.size);
        progress.file();
        return Ok((name, Some(stamp)));
    }
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
    let answer = match download::ask(source, &meta.location, &url, 0).await {
        // It was in the list a moment ago.
        Err(FetchError::Missing { url, .. }) => return Err(FetchError::Changed { url }),
        answer => answer?,
    };
    download::receive(source, answer, &part, &url, progress).await?;
    fs::rename(&part, &path).map_err(FetchError::volume("write", &path))?;
    progress.file();
    let written = fs::metadata(&path).map_err(FetchError::volume("read", &path))?;
    let modified = written.modified();
    let modified = modified.map_err(FetchError::volume("read", &path))?;
    let size = written.len();
    let stamp = Stamp { size, modified };
    pulled.lock().insert(name.clone(), (version, stamp));
    Ok((name, Some(stamp)))
}
