//! Reading files whose size nobody has checked.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// The bytes of a file of at most `limit` bytes. A larger one is an error before it fills the memory,
/// also if it is a pipe or grows while it is read.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(length.min(limit) as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let text = format!("it has more than {limit} bytes, the most that such a file may have");
        return Err(Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// The same as text.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let bytes = read(path, limit)?;
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [b'x'; 10]).unwrap();
        assert_eq!(read_text(&path, 10).unwrap(), "xxxxxxxxxx");
        let error = read(&path, 9).unwrap_err();
        assert!(error.to_string().contains("more than 9 bytes"), "{error}");
        // It never ends.
        assert!(read(Path::new("/dev/zero"), 1000).is_err());
    }
}
