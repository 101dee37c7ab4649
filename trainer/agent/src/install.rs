//! `yolo-agent install`: puts this program into a folder that the worker's container shares.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Name of the copy.
const NAME: &str = "yolo-agent";

/// The program could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The path of the running program is unknown.
    #[error("cannot find the file of this program")]
    FindSelf(#[source] io::Error),
    /// The copy could not be written.
    #[error("cannot write {}: is it a volume that this container may write?", path.display())]
    Write {
        /// The temporary file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The copy could not be given its name.
    #[error("cannot rename {} to {}", from.display(), to.display())]
    Rename {
        /// The temporary file.
        from: PathBuf,
        /// The wanted name.
        to: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Copies the running program to `DIR/yolo-agent`, mode 0755, and returns that path.
///
/// The copy appears whole or not at all, and may replace one that is being run: a repeated init
/// container does no harm.
pub fn install(dir: &Path) -> Result<PathBuf, InstallError> {
    let program = std::env::current_exe().map_err(InstallError::FindSelf)?;
    let to = dir.join(NAME);
    let from = dir.join(format!(".{NAME}.{}", std::process::id()));
    let placed = write_copy(&program, &from)
        .map_err(|source| InstallError::Write {
            path: from.clone(),
            source,
        })
        .and_then(|()| {
            fs::rename(&from, &to).map_err(|source| InstallError::Rename {
                from: from.clone(),
                to: to.clone(),
                source,
            })
        });
    if placed.is_err() {
        // What is left of the copy helps nobody; the error already says what went wrong.
        let _ = fs::remove_file(&from);
    }
    placed.map(|()| to)
}

fn write_copy(program: &Path, copy: &Path) -> io::Result<()> {
    fs::copy(program, copy)?;
    fs::set_permissions(copy, Permissions::from_mode(0o755))?;
    File::open(copy)?.sync_all()
}
