//! What is in a run's folder.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use crate::error::FetchError;

/// Tells two contents of a file apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When it was written.
    pub modified: SystemTime,
}

/// Files by their name below the folder, with `/`.
pub type Files = BTreeMap<String, Stamp>;

/// All files that have their name for good: those that are being written have one that begins with a dot.
pub fn scan(folder: &Path) -> Result<Files, FetchError> {
    let mut files = Files::new();
    walk(folder, "", &mut files)?;
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Files) -> Result<(), FetchError> {
    let entries = match fs::read_dir(folder) {
        // The ranks have not made it yet, or have removed it just now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(FetchError::volume("read", folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(FetchError::volume("read", folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        // Links are not followed: what they lead to is not the run's.
        let meta = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta.map_err(FetchError::volume("read", entry.path()))?,
        };
        let path = format!("{prefix}{name}");
        if meta.is_dir() {
            walk(&entry.path(), &format!("{path}/"), files)?;
        } else if meta.is_file() {
            let modified = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let size = meta.len();
            files.insert(path, Stamp { size, modified });
        }
    }
    Ok(())
}
