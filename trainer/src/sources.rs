//! Which pictures a command is to look at.

use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};

/// Extensions of pictures in a folder.
pub const EXTENSIONS: [&str; 7] = ["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];
/// Bytes of a list of pictures, at most: some million paths.
const LONGEST_LIST: u64 = 256 << 20;

/// Why a source cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder.
    #[error("cannot read the source {}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A pattern.
    #[error("the source {pattern} is not a pattern of files")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        #[source]
        source: glob::PatternError,
    },
    /// A list is too long to be one.
    #[error("the list {} is longer than {} MiB: split it", path.display(), LONGEST_LIST >> 20)]
    LongList {
        /// The list.
        path: PathBuf,
    },
}

/// All pictures: those of folders and patterns in order of their names, those of lists in the lists' order.
pub fn list(sources: &[PathBuf]) -> Result<Vec<PathBuf>, SourceError> {
    let mut pictures = Vec::new();
    for source in sources {
        let is_list = source
            .extension()
            .is_some_and(|it| it.eq_ignore_ascii_case("txt"));
        if is_list && source.is_file() {
            for line in lines(source)? {
                one(&line, &mut pictures)?;
            }
        } else {
            one(source, &mut pictures)?;
        }
    }
    Ok(pictures)
}

/// A picture, a folder, or a pattern of them.
fn one(path: &Path, pictures: &mut Vec<PathBuf>) -> Result<(), SourceError> {
    let text = path.to_string_lossy();
    if !path.exists() && text.contains(['*', '?', '[']) {
        let found = glob::glob(&text).map_err(|source| SourceError::Pattern {
            pattern: text.clone().into_owned(),
            source,
        })?;
        for entry in found {
            let path = entry.map_err(|error| SourceError::Read {
                path: error.path().to_owned(),
                source: error.into(),
            })?;
            if is_picture(&path) {
                pictures.push(path);
            }
        }
        return Ok(());
    }
    let failed = |source| SourceError::Read {
        path: path.to_owned(),
        source,
    };
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        pictures.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path)
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(failed)?;
    let mut inside: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    inside.retain(|path| is_picture(path));
    inside.sort();
    pictures.append(&mut inside);
    Ok(())
}

/// The lines of a list; those that begin with `./` lie beside it, as in `YOLOv5`'s lists.
fn lines(list: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let failed = |source| SourceError::Read {
        path: list.to_owned(),
        source,
    };
    let file = std::fs::File::open(list).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > LONGEST_LIST {
        return Err(SourceError::LongList {
            path: list.to_owned(),
        });
    }
    let folder = list.parent().unwrap_or(Path::new(""));
    let mut paths = Vec::new();
    for line in io::BufReader::new(file.take(LONGEST_LIST)).lines() {
        let line = line.map_err(failed)?;
        match line.trim() {
            "" => {}
            line => paths.push(match line.strip_prefix("./") {
                Some(beside) => folder.join(beside),
                None => PathBuf::from(line),
            }),
        }
    }
    Ok(paths)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|it| EXTENSIONS.contains(&it.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_patterns_and_lists_name_pictures() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["b.jpg", "a.PNG", "notes.md"] {
            std::fs::write(path(name), "").expect("written");
        }
        std::fs::write(path("list.txt"), "./b.jpg\n\n./*.PNG\n").expect("written");
        let all = [path("a.PNG"), path("b.jpg")];
        assert_eq!(
            all[..],
            list(&[folder.path().to_owned()]).expect("a folder")
        );
        assert_eq!(all[..], list(&[path("*")]).expect("a pattern"));
        assert_eq!(
            [path("b.jpg"), path("a.PNG")][..],
            list(&[path("list.txt")]).expect("a list")
        );
        assert!(list(&[path("*.gif")]).expect("nothing").is_empty());
        let error = list(&[path("missing.jpg")]).expect_err("missing");
        assert!(error.to_string().contains("missing.jpg"), "{error}");
        list(&[path("[")]).expect_err("no pattern");
    }
}
