//! Checksums of files.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use md5::{Digest as _, Md5};
use ring::digest::{Context, SHA256};

/// MD5 as hexadecimal digits.
pub fn md5(path: &Path) -> io::Result<String> {
    let mut hash = Md5::new();
    read(path, |bytes| hash.update(bytes))?;
    Ok(hex(&hash.finalize()))
}

/// SHA-256 as hexadecimal digits.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut hash = Context::new(&SHA256);
    read(path, |bytes| hash.update(bytes))?;
    Ok(hex(hash.finish().as_ref()))
}

/// A short name for a text.
pub fn short(text: &str) -> String {
    hex(&ring::digest::digest(&SHA256, text.as_bytes()).as_ref()[..16])
}

/// The MD5 that an `ETag` of S3 is, when the object was written in one piece.
pub fn md5_of_etag(etag: &str) -> Option<&str> {
    let etag = etag.trim_matches('"');
    let is_md5 = etag.len() == 32 && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_md5.then_some(etag)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn read(path: &Path, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            n => each(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_md5sum_and_sha256sum() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f");
        std::fs::write(&file, "abc").expect("written");
        assert_eq!(
            "900150983cd24fb0d6963f7d28e17f72",
            md5(&file).expect("readable")
        );
        assert_eq!(
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            sha256(&file).expect("readable")
        );
    }

    #[test]
    fn an_etag_of_several_pieces_is_no_md5() {
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        assert_eq!(Some(md5), md5_of_etag(&format!("\"{md5}\"")));
        assert_eq!(None, md5_of_etag(&format!("\"{md5}-3\"")));
        assert_eq!(None, md5_of_etag("W/\"abc\""));
    }
}
