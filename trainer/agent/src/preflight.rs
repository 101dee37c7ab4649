//! What is looked at before a rank is started: cheaper now than after the data set was read, and with a remedy.
//!
//! That the workers find and reach each other shows when they gather; that the data set is whole, when the ranks read it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::paths;
use rustix::fs::{StatVfs, statvfs};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use crate::settings::Settings;
use crate::shared::Shared;

const MIB: u64 = 1 << 20;
/// What NCCL may use of /dev/shm for each rank of a worker.
const SHM_OF_RANK: u64 = 16 * MIB;
/// Less than this on the output volume is not worth beginning with.
const LEAST_OUTPUT: u64 = 16 * MIB;
/// How long volumes may take to answer: a file server that is restarted is back by then, one that is gone never is. Less
/// than the others wait for this worker, which know nothing of its volumes.
const VOLUME_LIMIT: Duration = Duration::from_secs(240);
/// One that takes longer is told of.
const SLOW: Duration = Duration::from_secs(10);

/// What the worker finds around itself. `None` is what cannot be found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// GPUs whose device files are there.
    gpus: Option<u32>,
    /// Size of /dev/shm.
    shm: Option<u64>,
    /// Bytes that are free on the output volume.
    output: Option<u64>,
}

/// What it needs.
#[derive(Clone, Copy, Debug)]
struct Needs {
    gpus: u32,
    ranks: u32,
}

/// Looks around; returns the first thing with which the ranks could only fail, and what to do about it.
pub async fn check(settings: &Settings, shared: &Shared) -> Option<String> {
    // What another program needs, only its volumes tell.
    let needs = (!settings.other_program).then_some(Needs {
        gpus: settings.gpus,
        ranks: settings.place.ranks_per_node,
    });
    let place = settings.group.node.as_ref();
    let place = place.map_or_else(String::new, |node| format!("on the node {node}: "));
    let is_slow = |folder: &Path| {
        let text = format!(
            "{place}the volume at {} does not answer yet: look at its server, and at the node's mounts",
            folder.display()
        );
        warn!("{text}");
        shared.board().checks(Some(text));
    };
    let problem = look(needs, is_slow).await;
    shared.board().checks(None);
    Some(format!("{place}{}", problem?))
}

async fn look(needs: Option<Needs>, is_slow: impl Fn(&Path)) -> Option<String> {
    let until = Instant::now() + VOLUME_LIMIT;
    let mut output = None;
    for folder in [paths::DATASET_DIR, paths::OUTPUT_DIR].map(Path::new) {
        // All of it in the other thread: each may hang, whatever the node remembers of the rest.
        let first = |folder: &Path| {
            let read = fs::read_dir(folder).and_then(|mut names| names.next().transpose());
            (read, free(folder))
        };
        let left = until.saturating_duration_since(Instant::now());
        let (read, room) = match answer(folder, left, first, &is_slow).await {
            Ok(found) => found,
            Err(problem) => return Some(problem),
        };
        if let Some(problem) = unreadable(read, folder) {
            return Some(problem);
        }
        output = room;
    }
    let found = Found {
        gpus: gpus(Path::new("/dev")),
        shm: total(Path::new("/dev/shm")),
        output,
    };
    problem(needs?, found)
}

/// What is found at a folder, or that nothing there answers. A thread that hangs in the kernel is left behind: nobody could
/// end it.
async fn answer<T: Send + 'static>(
    folder: &'static Path,
    limit: Duration,
    find: impl FnOnce(&'static Path) -> T + Send + 'static,
    is_slow: impl Fn(&Path),
) -> Result<T, String> {
    let (sender, mut found) = oneshot::channel();
    std::thread::spawn(move || sender.send(find(folder)));
    if let Ok(Ok(found)) = timeout(SLOW.min(limit), &mut found).await {
        return Ok(found);
    }
    is_slow(folder);
    match timeout(limit.saturating_sub(SLOW), found).await {
        Ok(Ok(found)) => Ok(found),
        _ => Err(format!(
            "the volume at {} did not answer: look at its server, and at the node's mounts",
            folder.display()
        )),
    }
}

/// Errors of the volume. What is missing, and who may read it, the ranks say better.
fn unreadable<T>(read: io::Result<T>, folder: &Path) -> Option<String> {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    let error = read.err()?;
    if [NotADirectory, NotFound, PermissionDenied].contains(&error.kind()) {
        return None;
    }
    Some(format!(
        "the volume at {} cannot be read ({error}): look at its server, and at the node's mounts",
        folder.display()
    ))
}

fn problem(needs: Needs, found: Found) -> Option<String> {
    if needs.gpus > 0 && found.gpus == Some(0) {
        return Some(format!(
            "workers.gpusPerWorker is {}, but no NVIDIA device is in /dev: the node's container runtime does not bring GPUs in; set workers.template.runtimeClassName (nvidia, mostly), or look at the device plugin",
            needs.gpus
        ));
    }
    let shm = SHM_OF_RANK * u64::from(needs.ranks);
    if let Some(size) = found.shm.filter(|size| *size < shm)
        && needs.gpus > 1
    {
        return Some(format!(
            "/dev/shm has {} MiB, and NCCL may need {} MiB between {} processes: raise workers.sharedMemory",
            size / MIB,
            shm / MIB,
            needs.ranks
        ));
    }
    let room = found.output.filter(|free| *free < LEAST_OUTPUT)?;
    Some(format!(
        "the output volume has {} MiB left: remove old runs, or take a larger one",
        room / MIB
    ))
}

/// NVIDIA's device files, `nvidia0` and so on; `None` where there are none of the driver at all and DirectX has the
/// GPU instead.
fn gpus(devices: &Path) -> Option<u32> {
    let names = fs::read_dir(devices).ok()?;
    let mut count = 0;
    for name in names.flatten().map(|entry| entry.file_name()) {
        let name = name.to_string_lossy();
        if name == "dxg" {
            return None;
        }
        let number = name.strip_prefix("nvidia");
        let is_gpu = number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        count += u32::from(is_gpu);
    }
    Some(count)
}

fn total(folder: &Path) -> Option<u64> {
    let volume = stat(folder)?;
    Some(volume.f_blocks.saturating_mul(volume.f_frsize))
}

fn free(folder: &Path) -> Option<u64> {
    let volume = stat(folder)?;
    Some(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Some file systems do not say how large they are.
fn stat(folder: &Path) -> Option<StatVfs> {
    statvfs(folder).ok().filter(|volume| volume.f_blocks > 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const FINE: Found = Found {
        gpus: Some(8),
        shm: Some(1024 * MIB),
        output: Some(10_000 * MIB),
    };

    #[test]
    fn each_problem_has_a_remedy() {
        let needs = Needs { gpus: 8, ranks: 8 };
        assert_eq!(None, problem(needs, FINE));
        assert_eq!(None, problem(needs, Found::default()));
        for (found, words) in [
            (
                Found {
                    gpus: Some(0),
                    ..FINE
                },
                "workers.template.runtimeClassName",
            ),
            (
                Found {
                    shm: Some(64 * MIB),
                    ..FINE
                },
                "raise workers.sharedMemory",
            ),
            (
                Found {
                    output: Some(5 * MIB),
                    ..FINE
                },
                "has 5 MiB left",
            ),
        ] {
            let found = problem(needs, found).expect("a problem");
            assert!(found.contains(words), "{found}");
        }
        let cpus = Needs { gpus: 0, ranks: 4 };
        let small = Found {
            gpus: Some(0),
            shm: Some(MIB),
            ..FINE
        };
        assert_eq!(None, problem(cpus, small));
    }

    #[tokio::test]
    async fn a_volume_that_does_not_answer_is_a_problem() {
        let folder = Path::new("/data");
        let slow = AtomicU32::new(0);
        let is_slow = |_: &Path| {
            slow.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(Ok(7), answer(folder, VOLUME_LIMIT, |_| 7, is_slow).await);
        assert_eq!(0, slow.load(Ordering::Relaxed));
        let limit = Duration::from_millis(10);
        let never = answer(folder, limit, |_| std::thread::park(), is_slow).await;
        let problem = never.expect_err("nobody unparks it");
        assert!(problem.contains("/data did not answer"), "{problem}");
        assert_eq!(1, slow.load(Ordering::Relaxed));
        for (code, told) in [(5, true), (116, true), (2, false), (13, false)] {
            let read: io::Result<()> = Err(io::Error::from_raw_os_error(code));
            let problem = unreadable(read, folder);
            assert_eq!(told, problem.is_some(), "{code}: {problem:?}");
        }
        assert_eq!(None, unreadable(Ok(()), folder));
    }

    #[test]
    fn gpus_are_counted_by_their_device_files() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "null"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(Some(2), gpus(folder.path()));
        fs::write(folder.path().join("dxg"), "").expect("written");
        assert_eq!(None, gpus(folder.path()));
        assert_eq!(None, gpus(&folder.path().join("missing")));
    }
}
