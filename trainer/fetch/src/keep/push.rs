//! From the folder to the store.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use contract::progress::CheckpointRef;
use object_store::ObjectStoreExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path as Location;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::claim::Claim;
use super::scan::{Files, Stamp};
use crate::error::FetchError;
use crate::source::Source;

/// Bytes that go to the store in one piece; larger files go in pieces of this size.
const PIECE: usize = 8 << 20;
/// Pieces in flight.
const IN_FLIGHT: usize = 4;

/// What the store has of a run, and which content of each file; `None` where that is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known(BTreeMap<String, Option<Stamp>>);

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    put: Vec<(String, Stamp)>,
    delete: Vec<String>,
    /// The manifests that are here.
    manifests: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

/// What a file is, in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A part of a checkpoint.
    Part,
    /// What makes a checkpoint whole.
    Manifest,
    /// What names checkpoints, and weights.
    Pointer,
    /// What can wait.
    Rest,
}

impl Known {
    /// What was pulled.
    pub fn of(files: Vec<(String, Option<Stamp>)>) -> Self {
        Self(files.into_iter().collect())
    }

    /// What brings the store up to what was found; `rest`: also what can wait.
    pub fn plan(&self, found: &Files, rest: bool) -> Plan {
        let differs = |(name, stamp): &(&String, &Stamp)| {
            let known = self.0.get(*name).copied().flatten();
            known != Some(**stamp) && (rest || role(name) != Role::Rest)
        };
        let mut put: Vec<(String, Stamp)> = found
            .iter()
            .filter(differs)
            .map(|(name, stamp)| (name.clone(), *stamp))
            .collect();
        // The newest checkpoint first: while it is sent, others may be removed.
        put.sort_by_key(|(name, _)| match step(name) {
            Some(step) => (false, Reverse(step), role(name)),
            None => (true, Reverse(0), role(name)),
        });
        let gone = self.0.keys().filter(|name| !found.contains_key(*name));
        let mut delete: Vec<String> = gone.cloned().collect();
        // Half a checkpoint must not look like a whole one.
        delete.sort_by_key(|name| role(name) != Role::Manifest);
        let manifests = found.keys().filter(|name| role(name) == Role::Manifest);
        let manifests = manifests.cloned().collect();
        Plan {
            put,
            delete,
            manifests,
        }
    }

    /// Whether something may go from the store that is not here any more. A checkpoint goes only when there is another
    /// whole one that stays; half of one always.
    fn may_delete(&self, name: &str, manifests: &[String]) -> bool {
        let Some(step) = step(name) else { return true };
        let own = format!("checkpoints/step-{step:09}/manifest.json");
        !self.0.contains_key(&own) || manifests.iter().any(|other| self.0.contains_key(other))
    }

    /// The newest checkpoint that is whole in the store; `run` is where its folder is.
    pub fn newest_checkpoint(&self, run: &str) -> Option<CheckpointRef> {
        let manifests = self.0.keys().filter(|name| role(name) == Role::Manifest);
        let step = manifests.filter_map(|name| step(name)).max()?;
        Some(CheckpointRef {
            step,
            path: format!("{run}/checkpoints/step-{step:09}"),
        })
    }
}

/// What a file of a run is.
pub fn role(name: &str) -> Role {
    let Some(inside) = name.strip_prefix("checkpoints/") else {
        return if name.starts_with("weights/") {
            Role::Pointer
        } else {
            Role::Rest
        };
    };
    match inside.split_once('/') {
        Some((_, "manifest.json")) => Role::Manifest,
        Some(_) => Role::Part,
        None => Role::Pointer,
    }
}

/// The checkpoint that a file belongs to.
pub fn step(name: &str) -> Option<u64> {
    let inside = name.strip_prefix("checkpoints/step-")?;
    inside.split_once('/')?.0.parse().ok()
}

/// Does what is planned as long as the run is ours, and notes what was done. A checkpoint of which a part is gone
/// meanwhile does not become whole.
pub async fn carry_out(
    source: &Source,
    claim: &Claim,
    folder: &Path,
    plan: Plan,
    known: &mut Known,
) -> Result<(), FetchError> {
    let mut gone = BTreeSet::new();
    for (name, stamp) in plan.put {
        if step(&name).is_some_and(|step| gone.contains(&step)) {
            continue;
        }
        claim.check().await?;
        // What is replaced is not whole meanwhile.
        let replaces = known.0.get(&name).is_some_and(Option::is_some);
        if role(&name) == Role::Part
            && replaces
            && let Some(step) = step(&name)
        {
            let manifest = format!("checkpoints/step-{step:09}/manifest.json");
            remove(source, &manifest, known).await?;
        }
        if put(source, folder, &name).await? {
            known.0.insert(name, Some(stamp));
        } else {
            gone.extend(step(&name));
        }
    }
    for name in plan.delete {
        if known.may_delete(&name, &plan.manifests) {
            claim.check().await?;
            remove(source, &name, known).await?;
        }
    }
    Ok(())
}

/// Removes an object that the store has.
async fn remove(source: &Source, name: &str, known: &mut Known) -> Result<(), FetchError> {
    if !known.0.contains_key(name) {
        return Ok(());
    }
    let url = format!("{}/{name}", source.url);
    match source.store.delete(&location(source, name)?).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {
            known.0.remove(name);
            Ok(())
        }
        Err(error) => Err(source.explain(&error, &url)),
    }
}

/// Where a file of the run is in the store: its name as it is, which not every name can be.
fn location(source: &Source, name: &str) -> Result<Location, FetchError> {
    Location::parse(format!("{}/{name}", source.path)).map_err(|_| FetchError::UnsafeName {
        url: source.url.clone(),
        name: name.to_owned(),
        problem: "which no object can have",
    })
}

/// Brings a file to the store; whether it was still there.
async fn put(source: &Source, folder: &Path, name: &str) -> Result<bool, FetchError> {
    let path = folder.join(name);
    let mut file = match tokio::fs::File::open(&path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file.map_err(FetchError::volume("read", &path))?,
    };
    let url = format!("{}/{name}", source.url);
    let failed = |error: object_store::Error| source.explain(&error, &url);
    let location = location(source, name)?;
    let writer = BufWriter::with_capacity(Arc::clone(&source.store), location, PIECE);
    let mut writer = writer.with_max_concurrency(IN_FLIGHT);
    let sent = async {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut file).take(PIECE as u64).read_to_end(&mut piece).await;
            if read.map_err(FetchError::volume("read", &path))? == 0 {
                return Ok(());
            }
            writer.put(piece.into()).await.map_err(failed)?;
        }
    };
    let sent: Result<(), FetchError> = sent.await;
    if let Err(error) = sent {
        // What was sent takes room until the store forgets it; the first error is the one to report.
        let _ = writer.abort().await;
        return Err(error);
    }
    match writer.shutdown().await {
        Ok(()) => Ok(true),
        Err(error) => match error.downcast::<object_store::Error>() {
            Ok(error) => Err(failed(error)),
            Err(source) => Err(FetchError::Volume {
                doing: "send",
                path,
                source,
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn files(names: &[(&str, u64)]) -> Files {
        let stamp = |size: u64| Stamp {
            size,
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(size),
        };
        let named = names
            .iter()
            .map(|&(name, size)| (name.to_owned(), stamp(size)));
        named.collect()
    }

    fn known(names: &[(&str, u64)]) -> Known {
        let files = files(names).into_iter();
        Known::of(files.map(|(name, stamp)| (name, Some(stamp))).collect())
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.put.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn a_checkpoint_becomes_whole_last_and_goes_before_what_can_wait() {
        let found = files(&[
            ("checkpoints/last", 1),
            ("checkpoints/step-000000020/manifest.json", 1),
            ("checkpoints/step-000000020/model.safetensors", 1),
            ("checkpoints/step-000000020/state.json", 1),
            ("results.csv", 1),
            ("weights/last.safetensors", 1),
        ]);
        let soon = [
            "checkpoints/step-000000020/model.safetensors",
            "checkpoints/step-000000020/state.json",
            "checkpoints/step-000000020/manifest.json",
            "checkpoints/last",
            "weights/last.safetensors",
        ];
        let empty = Known::default();
        assert_eq!(soon.to_vec(), names(&empty.plan(&found, false)));
        let two = files(&[
            ("checkpoints/step-000000010/manifest.json", 1),
            ("checkpoints/step-000000010/a", 1),
            ("checkpoints/step-000000020/manifest.json", 1),
            ("checkpoints/step-000000020/a", 1),
        ]);
        assert_eq!(
            vec![
                "checkpoints/step-000000020/a",
                "checkpoints/step-000000020/manifest.json",
                "checkpoints/step-000000010/a",
                "checkpoints/step-000000010/manifest.json",
            ],
            names(&empty.plan(&two, false))
        );
        assert_eq!(
            [&soon[..], &["results.csv"]].concat(),
            names(&empty.plan(&found, true))
        );
    }

    #[test]
    fn only_what_changed_goes_and_what_is_gone_is_removed_manifest_first() {
        let store = known(&[
            ("checkpoints/step-000000010/a", 1),
            ("checkpoints/step-000000010/manifest.json", 1),
            ("checkpoints/step-000000020/manifest.json", 1),
            ("results.csv", 1),
        ]);
        let found = files(&[
            ("checkpoints/step-000000020/manifest.json", 1),
            ("results.csv", 2),
        ]);
        let plan = store.plan(&found, true);
        assert_eq!(vec!["results.csv"], names(&plan));
        assert_eq!(
            vec![
                "checkpoints/step-000000010/manifest.json",
                "checkpoints/step-000000010/a"
            ],
            plan.delete
        );
        assert!(store.plan(&found, false).put.is_empty());
        let same = known(&[("a", 1)]);
        assert!(same.plan(&files(&[("a", 1)]), true).is_empty());
        let unsure = Known::of(vec![("a".to_owned(), None)]);
        assert_eq!(vec!["a"], names(&unsure.plan(&files(&[("a", 1)]), true)));
    }

    #[test]
    fn the_only_whole_checkpoint_stays_until_there_is_another() {
        let (old, new) = (
            "checkpoints/step-000000010/manifest.json",
            "checkpoints/step-000000020/manifest.json",
        );
        let here = [new.to_owned()];
        let store = known(&[(old, 1), ("checkpoints/step-000000020/a", 1)]);
        assert!(!store.may_delete(old, &here));
        assert!(!store.may_delete("checkpoints/step-000000010/a", &here));
        // Half of one is of no use.
        assert!(store.may_delete("checkpoints/step-000000020/a", &here));
        assert!(store.may_delete("results.csv", &here));
        let store = known(&[(old, 1), (new, 1)]);
        assert!(store.may_delete(old, &here));
        assert!(!store.may_delete(old, &[]));
    }

    #[test]
    fn the_newest_checkpoint_is_one_with_a_manifest() {
        let store = known(&[
            ("checkpoints/step-000000009/manifest.json", 1),
            ("checkpoints/step-000000100/manifest.json", 1),
            ("checkpoints/step-000000200/model.safetensors", 1),
        ]);
        let newest = store.newest_checkpoint("digits-01234567").expect("one");
        assert_eq!(
            (100, "digits-01234567/checkpoints/step-000000100"),
            (newest.step, newest.path.as_str())
        );
        assert_eq!(None, Known::default().newest_checkpoint("x"));
    }
}
