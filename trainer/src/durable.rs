//! Files that are whole or absent, also after a power cut, and on NFS.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What the name of a file begins with that is not whole.
pub const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` to `path` so that readers see the old content or the new one, never a part: under a
/// temporary name in the same folder, synced, then renamed.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// What [`write`] does, piece by piece. Without [`NewFile::finish`] the old content stays.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl NewFile {
    /// Begins the content that `path` is to have.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(TEMPORARY);
        name.push(path.file_name().unwrap_or_default());
        name.push(format!("-{}", std::process::id()));
        let temporary = path.with_file_name(name);
        Ok(Self {
            file: BufWriter::new(File::create(&temporary)?),
            path: path.to_owned(),
            temporary,
        })
    }

    /// Puts what was written in the place of the old content.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        sync_folder(folder_of(&self.path))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After the renaming there is none. Else an error before is the one to report.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Whether an error of a volume comes again as long as nobody changes the volume; one of a file server that is away, for
/// example, passes.
pub fn lasts(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::AlreadyExists
    )
}

/// Whether there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Removes what [`write`] left in `folder` where its process was killed.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_file = entry.file_type()?.is_file();
        if is_file
            && entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(TEMPORARY.as_bytes())
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The folder in which `path` lies; of a name alone, the present one.
fn folder_of(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Writes a new file and waits until its content is on the disk.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Waits until the names in `folder` are on the disk. Where folders cannot be synced (some network and
/// FUSE file systems), nothing better exists and this does nothing.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    let unsupported = |error: &io::Error| {
        matches!(
            error.kind(),
            io::ErrorKind::Unsupported
                | io::ErrorKind::InvalidInput
                | io::ErrorKind::PermissionDenied
        )
    };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if !unsupported(&error) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("last");
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("replaced");
        assert_eq!(b"two", fs::read(&path).expect("readable").as_slice());
        assert_eq!(1, fs::read_dir(folder.path()).expect("listable").count());
    }

    #[test]
    fn a_file_that_is_not_finished_changes_nothing() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("rows");
        write(&path, b"old").expect("written");
        let content = || fs::read(&path).expect("readable");
        let begin = || {
            let mut file = NewFile::create(&path).expect("created");
            file.write_all(b"n").expect("written");
            file.write_all(b"ew").expect("written");
            file
        };
        drop(begin());
        assert_eq!(1, fs::read_dir(folder.path()).expect("listable").count());
        let file = begin();
        assert_eq!(b"old", content().as_slice());
        file.finish().expect("finished");
        assert_eq!(b"new", content().as_slice());
        assert_eq!(1, fs::read_dir(folder.path()).expect("listable").count());
    }

    #[test]
    fn what_a_killed_process_left_goes_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let at = |name: &str| folder.path().join(name);
        write(&at("best.safetensors"), b"whole").expect("written");
        fs::write(at(".tmp-best.safetensors-71"), b"wh").expect("written");
        fs::create_dir(at(".tmp-somebody's")).expect("made");
        remove_unfinished(folder.path()).expect("removed");
        let left = fs::read_dir(folder.path()).expect("listable").count();
        assert_eq!((2, true), (left, at("best.safetensors").exists()));
    }

    #[test]
    fn errors_of_a_server_that_is_away_pass() {
        // EIO, ETIMEDOUT, ESTALE; ENOENT, EACCES, ENOSPC, EROFS, EDQUOT.
        let lasting = |codes: &[i32]| {
            let errors = codes.iter().map(|code| io::Error::from_raw_os_error(*code));
            errors.filter(lasts).count()
        };
        assert_eq!(0, lasting(&[5, 110, 116]));
        assert_eq!(5, lasting(&[2, 13, 28, 30, 122]));
    }

    #[test]
    fn a_name_alone_is_a_file_of_the_present_folder() {
        assert_eq!(Path::new("."), folder_of(Path::new("weights.pt")));
        assert_eq!(Path::new("runs"), folder_of(Path::new("runs/weights.pt")));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("taken");
        fs::create_dir_all(path.join("by a folder")).expect("created");
        write(&path, b"text").expect_err("a folder cannot be replaced by a file");
        assert_eq!(1, fs::read_dir(folder.path()).expect("listable").count());
    }
}
