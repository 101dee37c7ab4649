use super::error::{DatasetError, LabelProblems};
use super::header::{self, HeaderError};
use super::labelling::{Found, LabelError, Labelling};
use super::{ImageRecord, SkippedImage};
use crate::decode::MAX_PIXELS;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// The smallest usable side in pixels (as in YOLOv5 v7.0).
const MIN_SIDE: u32 = 10;

/// What the files hold.
pub(super) struct Scanned {
    pub images: Vec<ImageRecord>,
    pub skipped: Vec<SkippedImage>,
    pub duplicates: usize,
    pub ignored: usize,
}

enum Scan {
    Usable(ImageRecord, Found),
    Skipped(SkippedImage),
    BadLabels(Vec<String>),
}

/// Reads the headers and labels of all `files` (relative to `root`), several at a time. Where the volume
/// fails, the rest is not tried: each file may take as long as its server is waited for.
pub(super) fn scan(
    root: &Path,
    files: &[PathBuf],
    labelling: &Labelling,
    names: &[String],
) -> Result<Scanned, DatasetError> {
    let scans: Vec<Scan> = files
        .par_iter()
        .map(|file| scan_one(root, file, labelling, names))
        .collect::<Result<_, _>>()?;
    let mut result = Scanned {
        images: Vec::with_capacity(scans.len()),
        skipped: Vec::new(),
        duplicates: 0,
        ignored: 0,
    };
    let mut bad = LabelProblems {
        problems: Vec::new(),
        files: 0,
    };
    for scan in scans {
        match scan {
            Scan::Usable(image, found) => {
                result.images.push(image);
                result.duplicates += found.labels.duplicates;
                result.ignored += found.ignored;
            }
            Scan::Skipped(image) => result.skipped.push(image),
            Scan::BadLabels(problems) => {
                bad.files += 1;
                bad.problems.extend(problems);
            }
        }
    }
    if bad.files > 0 {
        return Err(bad.into());
    }
    Ok(result)
}

fn scan_one(
    root: &Path,
    file: &Path,
    labelling: &Labelling,
    names: &[String],
) -> Result<Scan, DatasetError> {
    let name = file.display().to_string();
    let path = root.join(file);
    let size = match checked_size(&path) {
        Ok(size) => size,
        Err(HeaderError::Unusable(reason)) => {
            return Ok(Scan::Skipped(SkippedImage { name, reason }));
        }
        Err(HeaderError::Read(source)) => return Err(DatasetError::ReadFailed { path, source }),
    };
    Ok(match labelling.read(root, file, size, names) {
        Ok(mut found) => Scan::Usable(
            ImageRecord {
                path,
                name,
                size,
                coco_id: labelling.coco_id(file),
                labels: std::mem::take(&mut found.labels.labels),
                segments: std::mem::take(&mut found.labels.segments),
            },
            found,
        ),
        Err(LabelError::Bad(problems)) => Scan::BadLabels(problems),
        Err(LabelError::Read(error)) => return Err(error),
    })
}

/// The image's size, or why it is of no use.
fn checked_size(path: &Path) -> Result<(u32, u32), HeaderError> {
    let (width, height) = header::read_size(path)?;
    if width.min(height) < MIN_SIDE {
        return Err(HeaderError::Unusable(format!(
            "it has {width} x {height} pixels, each side needs at least {MIN_SIDE}"
        )));
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(HeaderError::Unusable(format!(
            "it claims {width} x {height} pixels, more than {MAX_PIXELS}: cut it into tiles"
        )));
    }
    Ok((width, height))
}
