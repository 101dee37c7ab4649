use super::config::{Description, inside, outside};
use super::error::DatasetError;
use super::{SkippedImage, Split, reading, voc};
use crate::bounded;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use trainer_core::data_yaml::LabelFormat;

/// The endings of image files, in any case.
pub(super) const EXTENSIONS: [&str; 7] = ["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];

/// The largest list of images in bytes: some ten million paths.
const MAX_LIST: u64 = 1 << 30;

/// What a data file leads to.
#[derive(Default)]
pub(super) struct Listed {
    /// Image files relative to the root, sorted, each once.
    pub files: Vec<PathBuf>,
    /// Lines of lists that name something else.
    pub skipped: Vec<SkippedImage>,
    /// How often folders and lists name an image that was named before.
    pub repeated: usize,
}

/// The images of a split.
pub(super) fn list(
    root: &Path,
    description: &Description,
    split: Split,
) -> Result<Listed, DatasetError> {
    let entries = description.paths(split)?;
    let format = description.yaml.label_format;
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    let mut first = None;
    for value in entries.paths() {
        let relative = locate(root, &description.base, value.trim(), split)?;
        let path = root.join(&relative);
        let unreadable = |source| DatasetError::SplitUnreadable {
            split: split.as_str(),
            path: path.clone(),
            source,
        };
        if reading::is_dir(&path).map_err(unreadable)? {
            walk(root, &relative, &mut HashSet::new(), &mut files).map_err(unreadable)?;
        } else {
            let text = bounded::read_text(&path, MAX_LIST).map_err(unreadable)?;
            let listed = listed(root, &relative, &text, format)?;
            files.extend(listed.files);
            skipped.extend(listed.skipped);
        }
        first.get_or_insert(path);
    }
    if files.is_empty() && skipped.is_empty() {
        return Err(DatasetError::NoImages {
            split: split.as_str(),
            path: first.unwrap_or_else(|| root.to_owned()),
            extensions: endings(),
        });
    }
    let named = files.len();
    files.sort_unstable();
    files.dedup();
    Ok(Listed {
        repeated: named - files.len(),
        files,
        skipped,
    })
}

/// The endings of image files, for messages.
fn endings() -> String {
    EXTENSIONS.map(|e| format!(".{e}")).join(", ")
}

/// Finds a folder or list that the data file names.
///
/// Some labelling services write `../train/images` for a folder that is beside the data file; like
/// other readers of such files, this one drops the leading `../` if the path leads nowhere else.
pub(super) fn locate(
    root: &Path,
    base: &Path,
    value: &str,
    split: Split,
) -> Result<PathBuf, DatasetError> {
    let literal = inside(base, value);
    let beside = value.strip_prefix("../").and_then(|v| inside(base, v));
    for relative in [&literal, &beside].into_iter().flatten() {
        let path = root.join(relative);
        if reading::look(&path)
            .map_err(DatasetError::read_failed(&path))?
            .is_some()
        {
            return Ok(relative.clone());
        }
    }
    match literal {
        Some(path) => Err(DatasetError::SplitMissing {
            split: split.as_str(),
            value: value.to_owned(),
            path: root.join(path),
        }),
        None => Err(outside(
            format!("{} in the data file", split.as_str()),
            value,
            "the data file's folder",
        )),
    }
}

/// The images in a folder and the folders in it. Hidden files are none: some systems leave files
/// like `._0001.jpg` beside each image.
fn walk(
    root: &Path,
    folder: &Path,
    seen: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    // Symbolic links may lead back up; each real folder is entered once.
    if !seen.insert(root.join(folder).canonicalize()?) {
        return Ok(());
    }
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = folder.join(&name);
        let kind = entry.file_type()?;
        let is_folder = kind.is_dir() || (kind.is_symlink() && reading::is_dir(&root.join(&path))?);
        if is_folder {
            walk(root, &path, seen, files)?;
        } else if is_image(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// The images that a list file names, one per line, relative to the list's folder. Lists of Pascal VOC
/// may name them without folder and ending.
fn listed(
    root: &Path,
    list: &Path,
    text: &str,
    format: LabelFormat,
) -> Result<Listed, DatasetError> {
    let folder = list.parent().unwrap_or(Path::new(""));
    let mut found = Listed::default();
    let lines = text.lines().map(str::trim).zip(1..);
    for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
        let image = if is_image(Path::new(line)) {
            inside(folder, line)
        } else if format == LabelFormat::Voc {
            voc::listed_image(root, list, line)?
        } else {
            found.skipped.push(SkippedImage {
                name: line.to_owned(),
                reason: format!(
                    "line {number} of {} names it, and it ends in none of {}",
                    list.display(),
                    endings()
                ),
            });
            continue;
        };
        let field = || format!("line {number} of {}", list.display());
        let image = image.ok_or_else(|| outside(field(), line, "the list's folder"))?;
        found.files.push(image);
    }
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    path.extension()
        .and_then(|extension| extension.to_str())
        .is_some_and(|extension| EXTENSIONS.iter().any(|e| extension.eq_ignore_ascii_case(e)))
}
