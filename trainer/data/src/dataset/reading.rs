//! Whether a failed read says something of the data set, or of the volume at this moment.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::Path;

/// Too many symbolic links, whose kind of error is not stable; the number is that of Linux.
const ELOOP: i32 = 40;

/// Whether the file is not to blame, so that the same read may succeed later: a server that is away, a handle
/// that is stale, a lack of memory. The system has no end of such errors; what is listed are those that the file
/// itself, its path or its rights explain, and that another try would meet again.
pub(super) fn may_pass(error: &io::Error) -> bool {
    let is_of_file = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::UnexpectedEof
            | ErrorKind::FileTooLarge
            | ErrorKind::NotSeekable
    );
    !is_of_file && error.raw_os_error() != Some(ELOOP)
}

/// What there is at `path`, following links; none if nothing can be reached there. Unlike [`Path::exists`] and
/// [`Path::is_dir`], it takes no volume that fails for one that lacks the file.
pub(super) fn look(path: &Path) -> io::Result<Option<Metadata>> {
    found(path.metadata())
}

/// As [`Path::is_dir`], but for errors that may pass.
pub(super) fn is_dir(path: &Path) -> io::Result<bool> {
    Ok(look(path)?.is_some_and(|found| found.is_dir()))
}

fn found<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(there) => Ok(Some(there)),
        Err(error) if may_pass(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: i32 = 5;

    #[test]
    fn errors_of_the_volume_may_pass_and_errors_of_the_file_do_not() {
        // EIO, ENOMEM, EBUSY, EMFILE, ENOTCONN, ETIMEDOUT, ESTALE.
        for number in [EIO, 12, 16, 24, 107, 110, 116] {
            let error = io::Error::from_raw_os_error(number);
            assert!(may_pass(&error), "{error}");
        }
        assert!(may_pass(&io::Error::other("of a library")));
        // EPERM, ENOENT, EACCES, ENOTDIR, EISDIR, EINVAL, EFBIG, ESPIPE, ENAMETOOLONG, ELOOP.
        for number in [1, 2, 13, 20, 21, 22, 27, 29, 36, ELOOP] {
            let error = io::Error::from_raw_os_error(number);
            assert!(!may_pass(&error), "{error}");
        }
        for kind in [ErrorKind::UnexpectedEof, ErrorKind::InvalidData] {
            assert!(!may_pass(&kind.into()), "{kind}");
        }
    }

    #[test]
    fn a_volume_that_fails_is_not_taken_for_one_without_the_file() {
        assert_eq!(Some(1), found(Ok(1)).unwrap());
        assert_eq!(None, found::<()>(Err(ErrorKind::NotFound.into())).unwrap());
        let failed = found::<()>(Err(io::Error::from_raw_os_error(EIO)));
        assert_eq!(Some(EIO), failed.unwrap_err().raw_os_error());
        let folder = tempfile::tempdir().unwrap();
        assert!(is_dir(folder.path()).unwrap());
        assert!(look(&folder.path().join("a")).unwrap().is_none());
        // Links that lead to themselves and to nothing.
        for (link, to) in [("a", "a"), ("b", "nothing")] {
            let link = folder.path().join(link);
            std::os::unix::fs::symlink(to, &link).unwrap();
            assert!(look(&link).unwrap().is_none());
        }
    }
}
