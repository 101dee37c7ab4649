use super::error::LabelProblems;
use super::labelling::{Found, Labelling};
use super::{ImageRecord, SkippedImage, header};
use crate::decode::MAX_PIXELS;
use rayon::prelude::*;
use std::panic::catch_unwind;
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

/// Reads the headers and labels of all `files` (relative to `root`), several at a time.
pub(super) fn scan(
    root: &Path,
    files: &[PathBuf],
    labelling: &Labelling,
    names: &[String],
) -> Result<Scanned, LabelProblems> {
    let scans: Vec<Scan> = files
        .par_iter()
        .map(|file| scan_one(root, file, labelling, names))
        .collect();
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
        return Err(bad);
    }
    Ok(result)
}

fn scan_one(root: &Path, file: &Path, labelling: &Labelling, names: &[String]) -> Scan {
    let name = file.display().to_string();
    let path = root.join(file);
    let size = match checked_size(&path) {
        Ok(size) => size,
        Err(reason) => return Scan::Skipped(SkippedImage { name, reason }),
    };
    match labelling.read(root, file, size, names) {
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
