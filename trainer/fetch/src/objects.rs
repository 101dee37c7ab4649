//! All objects below a prefix.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Location;
use tracing::{info, warn};

use crate::digest;
use crate::download::{self, Tries, Version};
use crate::error::FetchError;
use crate::folder::{Complete, Folder, Whole};
use crate::names;
use crate::progress::Progress;
use crate::source::Source;

/// Objects in flight: small ones wait for the server most of the time.
const IN_FLIGHT: usize = 16;
/// Between two notes of what is whole.
const SAVE: Duration = Duration::from_secs(5);

/// An object that is to become a file.
struct Object {
    location: Location,
    name: PathBuf,
    url: String,
    version: Version,
}

impl Object {
    fn whole(&self) -> Whole {
        Whole {
            name: self.name.to_string_lossy().into_owned(),
            size: self.version.size,
            e_tag: self.version.e_tag.clone(),
        }
    }
}

/// What this fetch found out about the store's `ETag`s.
#[derive(Default)]
struct ETags {
    /// One was an MD5.
    proven: AtomicBool,
    /// They are none, since objects are encrypted with keys of a service.
    opaque: AtomicBool,
}

/// Fetches what is not there yet.
pub async fn fetch(source: &Source, folder: &Folder) -> Result<Complete, FetchError> {
    let objects = list(source).await?;
    let bytes = objects.iter().map(|object| object.version.size).sum();
    let complete = Complete {
        files: objects.len() as u64,
        bytes,
    };
    let (there, missing): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| folder.has(&object.whole()));
    info!(
        "{}: {} files, {bytes} bytes; {} are here already",
        source.url,
        complete.files,
        there.len()
    );
    let free = folder.free()?;
    if let Some(needed) = too_much(folder, &missing, free) {
        let url = source.url.clone();
        return Err(FetchError::Full { url, needed, free });
    }
    let progress = Progress::new(complete.files, bytes);
    for object in &there {
        progress.add(object.version.size);
        progress.file();
    }
    let etags = ETags::default();
    let all = stream::iter(missing)
        .map(|object| one(source, folder, object, &etags, &progress))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| async { Ok(()) });
    let saving = async {
        loop {
            tokio::time::sleep(SAVE).await;
            if let Err(error) = tokio::task::block_in_place(|| folder.save()) {
                return error;
            }
        }
    };
    let fetched = progress.during(async {
        tokio::select! {
            fetched = all => fetched,
            error = saving => Err(error),
        }
    });
    let fetched = fetched.await;
    // What is whole is whole, also when something else failed.
    let saved = folder.save();
    fetched.and(saved)?;
    progress.say();
    Ok(complete)
}

/// The bytes that are missing, when those are more than so many. Of objects that an earlier fetch began, or had just
/// given their names, some are there and taken off what is free already.
fn too_much(folder: &Folder, missing: &[Object], free: u64) -> Option<u64> {
    let all: u64 = missing.iter().map(|object| object.version.size).sum();
    // Mostly that is enough, and millions of files need not be looked at.
    if all <= free {
        return None;
    }
    let needed = missing.iter().map(|object| {
        let size = object.version.size;
        if download::length(&folder.place(&object.name)) == size {
            return 0;
        }
        size.saturating_sub(download::length(&part(folder, object)))
    });
    let needed = needed.sum();
    (needed > free).then_some(needed)
}

/// Where an object lies as long as it is not whole. Another version has another part.
fn part(folder: &Folder, object: &Object) -> PathBuf {
    let Whole { name, size, .. } = object.whole();
    let version = object.version.e_tag.as_deref().unwrap_or_default();
    folder.part(&digest::short(&format!("{name}\n{size}\n{version}")))
}

async fn list(source: &Source) -> Result<Vec<Object>, FetchError> {
    let prefix = Some(&source.path).filter(|path| !path.as_ref().is_empty());
    let metas: Vec<_> = source
        .store
        .list(prefix)
        .try_collect()
        .await
        .map_err(|error| source.explain(&error, &source.url))?;
    let mut objects = Vec::new();
    for meta in metas {
        let key = meta.location.as_ref();
        let name = key.strip_prefix(source.path.as_ref()).unwrap_or(key);
        let name = name.trim_start_matches('/');
        // The marker of the folder itself.
        if name.is_empty() && meta.size == 0 {
            continue;
        }
        let unsafe_name = |problem| FetchError::UnsafeName {
            url: source.url.clone(),
            name: name.to_owned(),
            problem,
        };
        objects.push(Object {
            name: names::inside(name).map_err(unsafe_name)?,
            url: format!("{}/{name}", source.url),
            version: Version::of(&meta),
            location: meta.location,
        });
    }
    drop_markers(&mut objects);
    if objects.is_empty() {
        return Err(FetchError::Missing {
            url: format!("{}/", source.url),
            field: "dataset.objectStorage.url",
        });
    }
    clashes(source, &objects)?;
    Ok(objects)
}

/// Leaves out the empty objects `a/` that consoles make to show a folder. The listing tells them without `/`.
fn drop_markers(objects: &mut Vec<Object>) {
    let folders: HashSet<PathBuf> = objects
        .iter()
        .flat_map(|object| object.name.ancestors().skip(1).map(Path::to_owned))
        .collect();
    objects.retain(|object| object.version.size > 0 || !folders.contains(&object.name));
}

/// A store may hold `a` and `a/b`; a folder cannot.
fn clashes(source: &Source, objects: &[Object]) -> Result<(), FetchError> {
    let files: HashSet<&Path> = objects.iter().map(|object| object.name.as_path()).collect();
    for object in objects {
        let folder = object
            .name
            .ancestors()
            .skip(1)
            .find(|folder| files.contains(folder));
        // Keys that differ only in empty parts or dots are one name.
        if folder.is_some() || files.len() < objects.len() {
            return Err(FetchError::UnsafeName {
                url: source.url.clone(),
                name: folder
                    .unwrap_or(&object.name)
                    .to_string_lossy()
                    .into_owned(),
                problem: "which is a file and a folder, or is there twice",
            });
        }
    }
    Ok(())
}

async fn one(
    source: &Source,
    folder: &Folder,
    object: Object,
    etags: &ETags,
    progress: &Progress,
) -> Result<(), FetchError> {
    let object = &object;
    let whole = object.whole();
    let place = folder.place(&object.name);
    // A fetch that was killed just before it wrote that down. Without an MD5 it may as well be the file that was there
    // before the object was replaced.
    if download::length(&place) == whole.size
        && place.is_file()
        && md5(object).is_some()
        && tokio::task::block_in_place(|| matches(object, &place))?.is_ok()
    {
        progress.add(whole.size);
        progress.file();
        folder.note(whole);
        return Ok(());
    }
    // Its room is counted on. Nobody reads a folder that is not complete.
    if place.is_file() {
        fs::remove_file(&place).map_err(FetchError::volume("remove", &place))?;
    }
    let part = part(folder, object);
    get(source, object, &part, progress).await?;
    let found = tokio::task::block_in_place(|| matches(object, &part))?;
    if let Err(found) = found
        && !etags.opaque.load(Ordering::Relaxed)
    {
        again(source, folder, object, &part, etags, found).await?;
    } else {
        etags.proven.store(true, Ordering::Relaxed);
    }
    folder.put(&part, &object.name)?;
    progress.file();
    folder.note(whole);
    Ok(())
}

/// Fetches an object, from where its part ends.
async fn get(
    source: &Source,
    object: &Object,
    part: &Path,
    progress: &Progress,
) -> Result<(), FetchError> {
    let mut tries = Tries::new(part);
    loop {
        match get_rest(source, object, part, progress).await {
            Err(error) => tries.again(error).await?,
            done => return done,
        }
    }
}

async fn get_rest(
    source: &Source,
    object: &Object,
    part: &Path,
    progress: &Progress,
) -> Result<(), FetchError> {
    let size = object.version.size;
    if download::length(part) > size {
        fs::remove_file(part).map_err(FetchError::volume("remove", part))?;
    }
    let have = download::length(part);
    if size == 0 {
        File::create(part).map_err(FetchError::volume("write", part))?;
        return Ok(());
    }
    if have == size {
        progress.add(size);
        return Ok(());
    }
    let answer = download::ask(source, &object.location, &object.url, have).await?;
    if answer.version() != object.version {
        // It belongs to neither.
        let _ = fs::remove_file(part);
        return Err(FetchError::Changed {
            url: object.url.clone(),
        });
    }
    download::receive(source, answer, part, &object.url, progress).await
}

/// The MD5 of an object, where its `ETag` is one.
fn md5(object: &Object) -> Option<&str> {
    digest::md5_of_etag(object.version.e_tag.as_deref()?)
}

/// Whether a file has the MD5 that the object's `ETag` is; if not, which it has. An `ETag` that is none says
/// nothing.
fn matches(object: &Object, path: &Path) -> Result<Result<(), String>, FetchError> {
    let Some(expected) = md5(object) else {
        return Ok(Ok(()));
    };
    let found = digest::md5(path).map_err(FetchError::volume("read", path))?;
    Ok(if found.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(found)
    })
}

/// Fetches an object once more whose MD5 is not its `ETag`: it arrived damaged, or its `ETag` is none, as with
/// objects that a service's keys encrypt. Then the same bytes come twice.
async fn again(
    source: &Source,
    folder: &Folder,
    object: &Object,
    part: &Path,
    etags: &ETags,
    found: String,
) -> Result<(), FetchError> {
    let name = part.file_name().unwrap_or_default().to_string_lossy();
    let second = folder.part(&format!("{name}.again"));
    let _ = fs::remove_file(&second);
    let quiet = Progress::new(0, 0);
    get(source, object, &second, &quiet).await?;
    let same = tokio::task::block_in_place(|| matches(object, &second))?;
    match same {
        Ok(()) => fs::rename(&second, part).map_err(FetchError::volume("write", part)),
        Err(twice) if twice == found => {
            let _ = fs::remove_file(&second);
            if !etags.proven.load(Ordering::Relaxed) && !etags.opaque.swap(true, Ordering::Relaxed)
            {
                warn!(
                    "{} came twice as the same bytes, but its ETag is not their MD5 (it is encrypted by a service's key, probably): only sizes are checked from here on",
                    object.url
                );
            }
            Ok(())
        }
        Err(_) => {
            for part in [part, &second] {
                let _ = fs::remove_file(part);
            }
            Err(FetchError::Damaged {
                url: object.url.clone(),
                expected: md5(object).unwrap_or_default().to_owned(),
                found,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt as _;
    use object_store::memory::InMemory;

    use super::*;
    use crate::folder::Opened;
    use crate::source::Kind;

    async fn folder(root: &Path) -> Box<Folder> {
        match Folder::open(root, "memory", "memory").await.expect("opens") {
            Opened::Begun(folder) => folder,
            Opened::Complete(complete) => panic!("{complete:?}"),
        }
    }

    /// A store whose `ETag`s are numbers.
    fn memory() -> (Arc<InMemory>, Source) {
        let store = Arc::new(InMemory::new());
        let source = Source {
            store: store.clone(),
            path: Location::default(),
            url: "memory".to_owned(),
            identity: "memory".to_owned(),
            kind: Kind::Objects,
        };
        (store, source)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_that_was_replaced_is_not_taken_for_its_old_file() {
        let (store, source) = memory();
        let root = tempfile::tempdir().expect("a folder");
        let name = Location::from("labels/1.txt");
        for content in ["old labels", "new labels"] {
            store.put(&name, content.into()).await.expect("put");
            // Killed before it marked the folder: only this file was missing.
            let folder = folder(root.path()).await;
            fetch(&source, &folder).await.expect("fetched");
            let found = fs::read_to_string(root.path().join("labels/1.txt"));
            assert_eq!(content, found.expect("there"));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_file_that_is_fetched_anew_makes_room_first() {
        let (store, source) = memory();
        let name = Location::from("1.txt");
        store.put(&name, "labels".into()).await.expect("put");
        let root = tempfile::tempdir().expect("a folder");
        let folder = folder(root.path()).await;
        let object = list(&source).await.expect("listed").swap_remove(0);
        let place = folder.place(&object.name);
        fs::write(&place, "LABELS").expect("written");
        // It arrives no more.
        store.delete(&name).await.expect("deleted");
        let (etags, progress) = (ETags::default(), Progress::new(1, 6));
        let fetched = one(&source, &folder, object, &etags, &progress).await;
        fetched.expect_err("it is gone");
        assert!(!place.exists());
    }

    #[tokio::test]
    async fn what_is_there_already_needs_no_room() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = folder(root.path()).await;
        let object = |name: &str, size| Object {
            location: Location::from(name),
            name: PathBuf::from(name),
            url: name.to_owned(),
            version: Version { size, e_tag: None },
        };
        let objects = [object("begun", 100), object("named", 50), object("new", 7)];
        fs::write(part(&folder, &objects[0]), [0; 60]).expect("written");
        fs::write(folder.place(&objects[1].name), [0; 50]).expect("written");
        fs::write(folder.place(&objects[2].name), [0; 5]).expect("another one");
        assert_eq!(None, too_much(&folder, &objects, 47));
        assert_eq!(Some(47), too_much(&folder, &objects, 46));
    }
}
