//! Making the file. It has no name anywhere: when the last process that has it open is gone, killed or not, so are
//! the file and what it took.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use contract::spec::{Cache, Training};
use rustix::fs::{MemfdFlags, fstatvfs, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::memory;

/// Which part of the free space of a disk the file may take.
const PART: u64 = 2;

/// The file cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// In memory.
    #[error(
        "no file for decoded images can be made in memory (training.cache is ram): choose training.cache disk or none"
    )]
    Memory(#[source] io::Error),
    /// On disk.
    #[error(
        "no file for decoded images can be made in {} (training.cache is disk): check that the folder exists, is writable and has space, or choose training.cache ram or none", folder.display()
    )]
    Disk {
        /// The scratch folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The file for decoded images that `training` asks for, if it does, on disk below `scratch`. Its length is the most
/// that it may take when `sharers` such files are made.
pub fn make(training: &Training, scratch: &Path, sharers: u32) -> Result<Option<File>, MakeError> {
    let share = |bytes: u64| bytes / u64::from(sharers.max(1));
    match training.cache {
        Cache::None => Ok(None),
        Cache::Ram => {
            let limit = training
                .cache_limit_bytes()
                .unwrap_or_else(memory::cache_budget);
            let file = in_memory(share(limit)).map_err(MakeError::Memory)?;
            Ok(Some(file))
        }
        Cache::Disk => on_disk(scratch, training.cache_limit_bytes(), share)
            .map(Some)
            .map_err(|source| MakeError::Disk {
                folder: scratch.to_owned(),
                source,
            }),
    }
}

/// A file of so many bytes in memory, which is taken only for what is written.
pub fn in_memory(limit: u64) -> io::Result<File> {
    let file = File::from(memfd_create("decoded-images", MemfdFlags::CLOEXEC)?);
    // Lengths are signed.
    file.set_len(limit.min(i64::MAX as u64))?;
    Ok(file)
}

fn on_disk(folder: &Path, limit: Option<u64>, share: impl Fn(u64) -> u64) -> io::Result<File> {
    let file = tempfile::tempfile_in(folder)?;
    let half_of_free = || -> io::Result<u64> {
        let disk = fstatvfs(&file)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize) / PART)
    };
    let limit = limit.map_or_else(half_of_free, Ok)?;
    file.set_len(share(limit))?;
    Ok(file)
}

/// Lets processes that are started from now on have the file open too, under the number that is returned.
pub fn hand_down(file: &File) -> io::Result<i32> {
    fcntl_setfd(file, FdFlags::empty())?;
    Ok(file.as_raw_fd())
}

/// Opens the file that was handed down under a number.
pub fn take_over(number: &str) -> io::Result<File> {
    let number: u32 = number
        .parse()
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let path = format!("/proc/self/fd/{number}");
    File::options().read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn training(cache: Cache, limit: Option<&str>) -> Training {
        Training {
            cache,
            cache_limit: limit.map(str::to_owned),
            ..Training::default()
        }
    }

    #[test]
    fn a_file_is_as_long_as_the_limit_says_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let length = |cache, limit, sharers| {
            let made = make(&training(cache, limit), folder.path(), sharers).expect("made");
            made.map(|file| file.metadata().expect("a file").len())
        };
        for cache in [Cache::Ram, Cache::Disk] {
            assert_eq!(Some(3 << 30), length(cache, Some("3Gi"), 1));
            assert_eq!(Some(1 << 30), length(cache, Some("3Gi"), 3));
            assert!(length(cache, None, 1) > Some(1 << 20), "{cache:?}");
        }
        assert_eq!(None, length(Cache::None, None, 1));
        let file = make(&training(Cache::Disk, Some("1Gi")), folder.path(), 1);
        let left = std::fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!((true, 0), (file.is_ok(), left));
    }

    #[test]
    fn a_missing_scratch_folder_is_named() {
        let error = make(&training(Cache::Disk, None), Path::new("/no/where"), 1);
        let text = error.expect_err("refused").to_string();
        assert!(text.contains("/no/where") && text.contains("training.cache is disk"));
    }

    #[test]
    fn a_file_is_taken_over_by_number() {
        let file = in_memory(100).expect("made");
        let number = hand_down(&file).expect("handed down").to_string();
        let other = take_over(&number).expect("open");
        assert_eq!(100, other.metadata().expect("a file").len());
        for bad in ["", "-1", "../../mem", "4294967295"] {
            assert!(take_over(bad).is_err(), "{bad}");
        }
    }
}
