//! Where an image's labels come from: YOLO text, Pascal VOC XML or COCO JSON.

use super::coco::CocoFile;
use super::config::Description;
use super::error::DatasetError;
use super::reading::may_pass;
use super::{Split, voc};
use crate::bounded;
use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use trainer_core::boxes::{Xywh, Xyxy};
use trainer_core::data_yaml::{LabelFormat, PathList};
use trainer_core::labels::{Label, LabelFile, parse_label_file};

/// The largest label file of one image in bytes; 100,000 boxes take 5 MB.
const MAX_LABEL_FILE: u64 = 64 << 20;
/// By how many pixels a box may stick out of its image and is cut: tools count pixels from 0 or from 1.
const TOLERANCE: f64 = 1.0;

/// How the labels of a split are found.
pub(super) enum Labelling {
    /// A text file for each image.
    Yolo,
    /// An XML file for each image.
    Voc,
    /// One JSON file for all images.
    Coco(CocoFile),
}

/// The labels of one image.
#[derive(Default)]
pub(super) struct Found {
    pub labels: LabelFile,
    /// Annotations that are not for training: VOC's difficult objects, COCO's crowds and empty boxes.
    pub ignored: usize,
}

/// Why an image's labels are not known.
#[derive(Debug)]
pub(super) enum LabelError {
    /// All that is wrong with them.
    Bad(Vec<String>),
    /// The volume does not give the file now.
    Read(DatasetError),
}

impl From<Vec<String>> for LabelError {
    fn from(problems: Vec<String>) -> Self {
        Self::Bad(problems)
    }
}

impl Labelling {
    pub(super) fn open(
        root: &Path,
        description: &Description,
        split: Split,
    ) -> Result<Self, DatasetError> {
        Ok(
            match (description.paths(split)?, description.yaml.label_format) {
                (PathList::Coco(paths), _) => {
                    Self::Coco(CocoFile::open(root, description, split, paths)?)
                }
                (_, LabelFormat::Yolo) => Self::Yolo,
                (_, LabelFormat::Voc) => Self::Voc,
            },
        )
    }

    /// What an image would need to have labels, for messages.
    pub(super) fn expected(&self, image: &Path) -> String {
        match self {
            Self::Yolo => format!(
                "a label file {} with rows `class x y w h`",
                label_path(image).display()
            ),
            Self::Voc => format!("an annotation file {}", voc::label_path(image).display()),
            Self::Coco(file) => format!("an annotation in {}", file.name()),
        }
    }

    /// The number of `image` (relative to the root) in a COCO annotation file.
    pub(super) fn coco_id(&self, image: &Path) -> Option<u64> {
        match self {
            Self::Coco(file) => file.image_id(image),
            Self::Yolo | Self::Voc => None,
        }
    }

    /// The labels of `image` (relative to `root`) of `size` pixels.
    pub(super) fn read(
        &self,
        root: &Path,
        image: &Path,
        size: (u32, u32),
        names: &[String],
    ) -> Result<Found, LabelError> {
        match self {
            Self::Yolo => {
                let file = label_path(image);
                let Some((name, text)) = read_text(root, &file)? else {
                    return Ok(Found::default());
                };
                let labels = parse_label_file(&name, &text, names.len()).map_err(|problems| {
                    problems.iter().map(ToString::to_string).collect::<Vec<_>>()
                })?;
                Ok(Found { labels, ignored: 0 })
            }
            Self::Voc => {
                let file = voc::label_path(image);
                let Some((name, text)) = read_text(root, &file)? else {
                    return Ok(Found::default());
                };
                Ok(voc::parse(&name, &text, size, names)?)
            }
            Self::Coco(file) => Ok(file.labels(image, size)?),
        }
    }
}

/// Name and contents of a label file; none if there is no such file: an image that shows nothing needs
/// none.
fn read_text(root: &Path, file: &Path) -> Result<Option<(String, String)>, LabelError> {
    let name = file.display().to_string();
    let path = root.join(file);
    let bytes = match bounded::read(&path, MAX_LABEL_FILE) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unread(&name, path, error)),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some((name, text))),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|byte| *byte == b'\n').count();
            Err(vec![format!("{name}:{line}: is not text (UTF-8)")].into())
        }
    }
}

/// The file is to blame, or the volume.
fn unread(name: &str, path: PathBuf, source: io::Error) -> LabelError {
    if may_pass(&source) {
        LabelError::Read(DatasetError::ReadFailed { path, source })
    } else {
        vec![format!("{name}: cannot be read: {source}")].into()
    }
}

/// Where the labels of an image are: the last folder `images` in its path is `labels` instead, and
/// the ending is `txt`. Without such a folder they are beside the image.
pub fn label_path(image: &Path) -> PathBuf {
    replace_folder(image, &["images"], "labels").with_extension("txt")
}

/// The path with its last folder of one of these names called `new`.
pub(super) fn replace_folder(path: &Path, names: &[&str], new: &str) -> PathBuf {
    let mut parts: Vec<_> = path.iter().collect();
    let folders = parts.len().saturating_sub(1);
    let is_named = |part: &&std::ffi::OsStr| names.iter().any(|name| **part == **name);
    if let Some(last) = parts[..folders].iter().rposition(is_named) {
        parts[last] = new.as_ref();
    }
    parts.into_iter().collect()
}

/// A label from a box in pixels (left, top, right, bottom), or what is wrong with the box.
pub(super) fn from_pixels(
    class: u16,
    sides: [f64; 4],
    (width, height): (u32, u32),
) -> Result<Label, String> {
    let (w, h) = (f64::from(width), f64::from(height));
    let [x1, y1, x2, y2] = sides;
    if !sides.iter().all(|side| side.is_finite()) {
        return Err("the box has a side that is not a finite number".to_owned());
    }
    let outside = (-x1).max(-y1).max(x2 - w).max(y2 - h);
    if outside > TOLERANCE {
        return Err(format!(
            "the box from ({x1}, {y1}) to ({x2}, {y2}) leaves the image of {width} x {height} pixels"
        ));
    }
    let xyxy = Xyxy::new(
        (x1.max(0.0) / w) as f32,
        (y1.max(0.0) / h) as f32,
        (x2.min(w) / w) as f32,
        (y2.min(h) / h) as f32,
    );
    if xyxy.x2 <= xyxy.x1 || xyxy.y2 <= xyxy.y1 {
        return Err(format!(
            "the box from ({x1}, {y1}) to ({x2}, {y2}) has no area: remove it or give it a size"
        ));
    }
    Ok(Label {
        class,
        xywh: xyxy.to_xywh(),
    })
}

/// Labels, each once.
#[derive(Default)]
pub(super) struct Collector {
    pub found: Found,
    seen: HashSet<(u16, [u32; 4])>,
}

impl Collector {
    /// Adds a label unless the image has it already, as YOLOv5 does.
    pub(super) fn add(&mut self, label: Label) {
        let Xywh { x, y, w, h } = label.xywh;
        if self
            .seen
            .insert((label.class, [x, y, w, h].map(f32::to_bits)))
        {
            self.found.labels.labels.push(label);
        } else {
            self.found.labels.duplicates += 1;
        }
    }
}

/// The class of this name.
pub(super) fn class_of(names: &[String], name: &str) -> Option<u16> {
    let class = names.iter().position(|known| known == name)?;
    u16::try_from(class).ok()
}
