//! Folders and files for results of a command: nothing that is somebody else's is overwritten.

use std::io;
use std::path::{Path, PathBuf};

use crate::durable;

/// Why results cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The folder holds something else.
    #[error(
        "{} is not empty and holds no {marker}: nothing is overwritten; choose another folder", path.display()
    )]
    OtherContent {
        /// The folder.
        path: PathBuf,
        /// The file that would show that it is of an earlier run of the same command.
        marker: &'static str,
    },
    /// The file is there already.
    #[error("{} exists: nothing is overwritten; choose another file", .0.display())]
    Exists(PathBuf),
    /// Something cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Makes the folder, which must be new, empty, or of an earlier run of the command that is known by its `marker`.
pub fn prepare(folder: &Path, marker: &'static str) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write {
        path: folder.to_owned(),
        source,
    };
    let mut content = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(folder).map_err(failed)?;
            std::fs::read_dir(folder)
        }
        other => other,
    }
    .map_err(failed)?;
    let is_ours = folder.join(marker).is_file();
    if content.next().is_some() && !is_ours {
        return Err(OutputError::OtherContent {
            path: folder.to_owned(),
            marker,
        });
    }
    // From now on the folder is known to be ours, also if this run is cut off.
    write(&folder.join(marker), b"{}")
}

/// Makes a folder and those above it.
pub fn make(folder: &Path) -> Result<(), OutputError> {
    std::fs::create_dir_all(folder).map_err(|source| OutputError::Write {
        path: folder.to_owned(),
        source,
    })
}

/// Makes sure that no file is there yet.
pub fn must_be_new(file: &Path) -> Result<(), OutputError> {
    if file.exists() {
        return Err(OutputError::Exists(file.to_owned()));
    }
    Ok(())
}

/// Makes sure that no file is there yet, unless it lies in `folder`, which [`prepare`] looks at.
pub fn must_be_new_or_in(folder: &Path, file: &Path) -> Result<(), OutputError> {
    let is_inside = match (folder.canonicalize(), file.canonicalize()) {
        (Ok(folder), Ok(file)) => file.is_file() && file.starts_with(folder),
        _ => false,
    };
    if is_inside { Ok(()) } else { must_be_new(file) }
}

/// The folder that a file is in.
pub fn of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Writes a file, and the folders above it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), OutputError> {
    std::fs::create_dir_all(of(path))
        .and_then(|()| durable::write(path, bytes))
        .map_err(|source| OutputError::Write {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = folder.path().join("new");
        let marker = "results.json";
        prepare(&output, marker).expect("made");
        prepare(&output, marker).expect("ours");
        std::fs::remove_file(output.join(marker)).expect("removed");
        prepare(&output, marker).expect("empty");
        std::fs::write(folder.path().join("photo.jpg"), "").expect("written");
        let text = prepare(folder.path(), marker)
            .expect_err("refused")
            .to_string();
        assert!(text.contains("nothing is overwritten"), "{text}");
        must_be_new(&folder.path().join("other.jpg")).expect("not there");
        must_be_new(&folder.path().join("photo.jpg")).expect_err("there");

        let own = output.join("sheet.png");
        must_be_new_or_in(&output, &own).expect("not there");
        std::fs::write(&own, "").expect("written");
        must_be_new_or_in(&output, &own).expect("its own");
        must_be_new_or_in(&output, &output).expect_err("a folder");
        for other in ["photo.jpg", "new/../photo.jpg"] {
            must_be_new_or_in(&output, &folder.path().join(other)).expect_err("there");
        }
    }
}
