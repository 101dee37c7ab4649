//! Names of files that others chose: which of them may be written.

use std::path::{Component, Path, PathBuf};

/// The folder with what is known of a fetch, inside the folder that it fills.
pub const STATE_DIR: &str = ".yolo-fetch";
/// Bytes that Linux lets a name have.
const MAX_PART: usize = 255;
/// Bytes of a whole path: the rest of Linux's 4096 is for the folder.
const MAX_PATH: usize = 3072;

/// A name as a path below the folder, or what is wrong with it.
pub fn inside(name: &str) -> Result<PathBuf, &'static str> {
    if name.contains('\0') || name.contains('\\') {
        return Err("with a backslash or a zero byte");
    }
    if name.len() > MAX_PATH {
        return Err("which is too long");
    }
    let mut path = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) if part.len() > MAX_PART => return Err("which is too long"),
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err("which leads out of the folder");
            }
        }
    }
    if path.as_os_str().is_empty() {
        return Err("which names no file");
    }
    if path.starts_with(STATE_DIR) {
        return Err("which the fetch keeps for itself");
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_the_folder_are_written() {
        for (name, path) in [
            ("a", "a"),
            ("./a/./b.jpg", "a/b.jpg"),
            ("a/..b/...", "a/..b/..."),
            ("images//1.jpg", "images/1.jpg"),
        ] {
            assert_eq!(Ok(PathBuf::from(path)), inside(name), "{name}");
        }
        let long = "x".repeat(256);
        for name in [
            "../a",
            "a/../../b",
            "a/..",
            "/etc/passwd",
            "",
            ".",
            "a\\..\\b",
            "a\0b",
            ".yolo-fetch/complete.json",
            "./.yolo-fetch",
            &long,
        ] {
            assert!(inside(name).is_err(), "{name}");
        }
    }
}
