use super::Split;
use super::error::DatasetError;
use super::reading;
use crate::bounded;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use trainer_core::data_yaml::{DataYaml, PathList};

/// The largest data file in bytes.
const MAX_DATA_FILE: u64 = 16 << 20;

/// A data file that has been understood.
pub(super) struct Description {
    /// Class names in class order.
    pub names: Vec<String>,
    /// The folder that `train` and `val` are relative to, relative to the root.
    pub base: PathBuf,
    /// The file's contents.
    pub yaml: DataYaml,
}

impl Description {
    /// What the data file says of a split.
    pub(super) fn paths(&self, split: Split) -> Result<&PathList, DatasetError> {
        let paths = match split {
            Split::Train => Some(&self.yaml.train),
            Split::Val => Some(&self.yaml.val),
            Split::Test => self.yaml.test.as_ref(),
        };
        paths.ok_or(DatasetError::NoSplit {
            split: split.as_str(),
        })
    }
}

/// Reads the data file `config` in the folder `root`.
pub(super) fn read(root: &Path, config: &str) -> Result<Description, DatasetError> {
    let relative = inside(Path::new(""), config)
        .ok_or_else(|| outside("dataset.config", config, "the source"))?;
    let folder = relative.parent().unwrap_or(Path::new(""));
    parse(root, &root.join(&relative), folder, root)
}

/// Reads the data file `path`, which lies outside the folder `root` and describes what is in it.
pub(super) fn read_from(root: &Path, path: &Path) -> Result<Description, DatasetError> {
    parse(root, path, Path::new(""), path.parent().unwrap_or(root))
}

/// Paths in the file are relative to `folder`, which is relative to `root`. Where there is no such file, those of
/// `others` are named.
fn parse(
    root: &Path,
    path: &Path,
    folder: &Path,
    others: &Path,
) -> Result<Description, DatasetError> {
    if !reading::is_dir(root).map_err(DatasetError::read_failed(root))? {
        return Err(DatasetError::RootMissing {
            root: root.to_owned(),
        });
    }
    let path = path.to_owned();
    let text = bounded::read_text(&path, MAX_DATA_FILE).map_err(|source| match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => DatasetError::ConfigMissing {
            path: path.clone(),
            found: yaml_files(others),
        },
        _ => DatasetError::ConfigUnreadable {
            path: path.clone(),
            source,
        },
    })?;
    let yaml: DataYaml =
        serde_saphyr::from_str(&text).map_err(|source| DatasetError::ConfigInvalid {
            path: path.clone(),
            line: source.location().map_or(1, |location| location.line()),
            source: Box::new(source),
        })?;
    let names = yaml
        .names()
        .map_err(|source| DatasetError::ConfigContradicts {
            path: path.clone(),
            source,
        })?;
    let base = match yaml.path.as_deref().map(str::trim) {
        None | Some("") => folder.to_owned(),
        Some(value) => inside(folder, value)
            .ok_or_else(|| outside("path in the data file", value, "the data file's folder"))?,
    };
    Ok(Description { names, base, yaml })
}

/// The path `value`, relative to `base`, as a path relative to the root; none if it leaves the root
/// or is absolute. Symbolic links are not followed here: a volume may use them as it likes.
pub(super) fn inside(base: &Path, value: &str) -> Option<PathBuf> {
    let mut result = base.to_owned();
    for component in Path::new(value).components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !result.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(result)
}

pub(super) fn outside(
    field: impl Into<String>,
    value: &str,
    relative_to: &'static str,
) -> DatasetError {
    DatasetError::PathOutside {
        field: field.into(),
        value: value.to_owned(),
        relative_to,
    }
}

/// The YAML files directly in `root`, as the end of a sentence.
fn yaml_files(root: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(root)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let extension = Path::new(name).extension().unwrap_or_default();
            extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
        })
        .collect();
    if names.is_empty() {
        return String::new();
    }
    names.sort();
    names.truncate(5);
    format!(" (found there: {})", names.join(", "))
}
