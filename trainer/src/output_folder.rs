//! Folders and files for results of a command: nothing that is somebody else's is overwritten.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::durable::{self, NewFile};

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
    /// A label file of other images is there.
    #[error("{} belongs to no image of this data set: its labels are not mixed with others; choose another folder", .0.display())]
    OtherLabels(PathBuf),
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
    write(&folder.join(marker), b"{}")?;
    // An earlier run that was cut off may have left much.
    durable::remove_unfinished(folder).map_err(failed)
}

/// Makes sure that a folder, if there is one, holds no other label files than those of these names, which replace them.
pub fn must_hold_no_other_labels(folder: &Path, names: &[String]) -> Result<(), OutputError> {
    let failed = |source| OutputError::Write {
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed)?,
    };
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_label = path.extension().is_some_and(|it| it == "txt");
        if is_label && !names.contains(name.as_ref()) {
            return Err(OutputError::OtherLabels(path));
        }
    }
    Ok(())
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

/// A file with a list in JSON whose rows are written as they come. It is there when it is whole.
#[derive(Debug)]
pub struct JsonList {
    path: PathBuf,
    file: NewFile,
    len: usize,
}

impl JsonList {
    /// Begins a list, which follows `before` in the file; makes the folders above it.
    pub fn create(path: &Path, before: &str) -> Result<Self, OutputError> {
        let begin = || {
            std::fs::create_dir_all(of(path))?;
            let mut file = NewFile::create(path)?;
            write!(file, "{before}[")?;
            Ok(file)
        };
        let file = begin().map_err(|source| OutputError::Write {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len: 0,
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a row.
    pub fn add(&mut self, row: &Value) -> Result<(), OutputError> {
        let comma = if self.is_empty() { "" } else { "," };
        write!(self.file, "{comma}{row}").map_err(|source| OutputError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.len += 1;
        Ok(())
    }

    /// Ends the list, which `after` follows, and puts the file into its place.
    pub fn finish(mut self, after: &str) -> Result<(), OutputError> {
        write!(self.file, "]{after}")
            .and_then(|()| self.file.finish())
            .map_err(|source| OutputError::Write {
                path: self.path,
                source,
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_of_something_else_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let output = folder.path().join("new");
        let marker = "results.json";
        prepare(&output, marker).expect("made");
        let cut_off = output.join(".tmp-coco.json-71");
        std::fs::write(&cut_off, "[").expect("written");
        prepare(&output, marker).expect("ours");
        assert!(!cut_off.exists());
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

    #[test]
    fn labels_of_other_images_are_refused_and_nothing_else() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let names = ["x", "x-2"].map(str::to_owned);
        must_hold_no_other_labels(&folder.path().join("new"), &names).expect("nothing");
        for file in ["x.txt", "x-2.txt", "y.json"] {
            std::fs::write(folder.path().join(file), "").expect("written");
        }
        must_hold_no_other_labels(folder.path(), &names).expect("its own");
        let text = must_hold_no_other_labels(folder.path(), &names[..1])
            .expect_err("refused")
            .to_string();
        assert!(text.contains("x-2.txt belongs to no image"), "{text}");
    }

    #[test]
    fn rows_are_written_as_they_come_and_the_file_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("new/rows.json");
        let read = || {
            let text = std::fs::read_to_string(&path).expect("readable");
            serde_json::from_str::<Value>(&text).expect("JSON")
        };
        let none = JsonList::create(&path, "").expect("created");
        none.finish("").expect("finished");
        assert_eq!(json!([]), read());

        let row = json!({"name": "x".repeat(1 << 16)});
        let mut list = JsonList::create(&path, r#"{"rows":"#).expect("created");
        list.add(&row).expect("added");
        list.add(&row).expect("added");
        let entries = std::fs::read_dir(folder.path().join("new")).expect("listable");
        let bytes: u64 = entries
            .map(|entry| entry.expect("entry").metadata().expect("size").len())
            .sum();
        assert!(bytes > 1 << 16, "only {bytes} bytes are written");
        assert_eq!((2, json!([])), (list.len(), read()));
        list.finish(r#","more":1}"#).expect("finished");
        assert_eq!(json!({"rows": [row, row], "more": 1}), read());
    }
}
