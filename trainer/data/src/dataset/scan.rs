use super::error::LabelProblems;
use super::{ImageRecord, SkippedImage, header};
use crate::bounded;
use crate::decode::MAX_PIXELS;
use rayon::prelude::*;
use std::io::ErrorKind;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use trainer_core::labels::{LabelFile, parse_label_file};

/// The smallest usable side in pixels (as in YOLOv5 v7.0).
const MIN_SIDE: u32 = 10;
/// The largest label file in bytes; 100,000 boxes take 5 MB.
const MAX_LABEL_FILE: u64 = 64 << 20;

/// What the files hold.
pub(super) struct Scanned {
    pub images: Vec<ImageRecord>,
    pub skipped: Vec<SkippedImage>,
    pub duplicates: usize,
}

enum Scan {
    Usable(ImageRecord, usize),
    Skipped(SkippedImage),
    BadLabels(Vec<String>),
}

/// Reads the headers and labels of all `files` (relative to `root`), several at a time.
pub(super) fn scan(
    root: &Path,
    files: &[PathBuf],
    classes: usize,
) -> Result<Scanned, LabelProblems> {
    let scans: Vec<Scan> = files
        .par_iter()
        .map(|file| scan_one(root, file, classes))
        .collect();
    let mut result = Scanned {
        images: Vec::with_capacity(scans.len()),
        skipped: Vec::new(),
        duplicates: 0,
    };
    let mut bad = LabelProblems {
        problems: Vec::new(),
        files: 0,
    };
    for scan in scans {
        match scan {
            Scan::Usable(image, duplicates) => {
                result.images.push(image);
                result.duplicates += duplicates;
            }
            Scan::Skipped(image) => result.skipped.push(image),
            Scan::BadLabels(problems) => {
                bad.files += 1;
                bad.problems.extend(problems);
            }
        }
    }
    if bad.files > 0 {
        return Err(bad);
    }
    Ok(result)
}

fn scan_one(root: &Path, file: &Path, classes: usize) -> Scan {
    let name = file.display().to_string();
    let path = root.join(file);
    let size = match checked_size(&path) {
        Ok(size) => size,
        Err(reason) => return Scan::Skipped(SkippedImage { name, reason }),
    };
    match read_labels(root, file, classes) {
        Ok(labels) => Scan::Usable(
            ImageRecord {
                path,
                name,
                size,
                labels: labels.labels,
                segments: labels.segments,
            },
            labels.duplicates,
        ),
        Err(problems) => Scan::BadLabels(problems),
    }
}

/// The image's size, or why it is of no use. Decoders meet files that nobody has seen before; one
/// that makes a decoder panic is a bad file like any other.
fn checked_size(path: &Path) -> Result<(u32, u32), String> {
    let (width, height) = catch_unwind(|| header::read_size(path))
        .map_err(|_| "its header makes the decoder panic".to_owned())?
        .map_err(|error| error.to_string())?;
    if width.min(height) < MIN_SIDE {
        return Err(format!(
            "it has {width} x {height} pixels, each side needs at least {MIN_SIDE}"
        ));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "it claims {width} x {height} pixels, more than {MAX_PIXELS}: cut it into tiles"
        ));
    }
    Ok((width, height))
}

fn read_labels(root: &Path, image: &Path, classes: usize) -> Result<LabelFile, Vec<String>> {
    let file = label_path(image);
    let name = file.display().to_string();
    let bytes = match bounded::read(&root.join(&file), MAX_LABEL_FILE) {
        Ok(bytes) => bytes,
        // An image that shows nothing needs no file.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(LabelFile::default()),
        Err(error) => return Err(vec![format!("{name}: cannot be read: {error}")]),
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.split(|byte| *byte == b'\n').count();
        vec![format!("{name}:{line}: is not text (UTF-8)")]
    })?;
    parse_label_file(&name, &text, classes)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Where the labels of an image are: the last folder `images` in its path is `labels` instead, and
/// the ending is `txt`. Without such a folder they are beside the image.
pub(super) fn label_path(image: &Path) -> PathBuf {
    let mut parts: Vec<_> = image.iter().collect();
    let folders = parts.len().saturating_sub(1);
    if let Some(last) = parts[..folders].iter().rposition(|part| *part == "images") {
        parts[last] = "labels".as_ref();
    }
    parts.into_iter().collect::<PathBuf>().with_extension("txt")
}
