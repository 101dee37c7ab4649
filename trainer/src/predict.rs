//! Finds objects on pictures and draws them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use contract::exit::FailureReason;
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use trainer_core::detection::{Detection, LabelledBox};
use trainer_core::labels::parse_label_file;
use trainer_core::nms::{Competition, NmsOptions};
use trainer_data::bounded;
use trainer_data::dataset::label_path;
use trainer_data::decode::{DecodeError, Shrink, decode, decode_whole};
use trainer_data::letterbox::{Shape, lay, prediction_letterbox};
use trainer_data::{DrawError, DrawnImage, RgbImage, annotated, contact_sheet, draw, write_png};
use trainer_report::coco;

use crate::cli::PredictArgs;
use crate::console::{self, Bar, chain};
use crate::device::{self, DeviceError};
use crate::finder::{Finder, FinderError};
use crate::output_folder::{self, JsonList, OutputError};
use crate::sources::{self, EXTENSIONS, SourceError};
use crate::weights::{WeightsError, WeightsInfo};

/// What a results folder is known by.
const SUMMARY: &str = "predictions.json";
/// The largest label file in bytes.
const MAX_LABELS: u64 = 64 << 20;
/// Pictures on a contact sheet, and in one of its rows.
const SHEET: usize = 48;
const COLUMNS: u32 = 4;

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum PredictError {
    /// libtorch cannot be set up.
    #[error("cannot set libtorch up")]
    Libtorch(#[source] torch_bridge::Error),
    /// The device is not there.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The weights cannot be used together.
    #[error(transparent)]
    Finder(#[from] FinderError),
    /// The weights cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A source cannot be listed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A class was asked for that there is not.
    #[error("--classes names {class}, but the weights know {known} classes: choose from 0 to {}", known - 1)]
    NoSuchClass {
        /// The class.
        class: u16,
        /// How many there are.
        known: usize,
    },
    /// No source holds a picture.
    #[error("there are no pictures in the sources ({})", EXTENSIONS.join(", "))]
    NoPictures,
    /// No picture can be read.
    #[error("none of the {0} pictures can be read")]
    NoneReadable(usize),
    /// Results cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A picture cannot be written.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// A tensor operation failed.
    #[error(transparent)]
    Model(#[from] trainer_model::Error),
    /// Pixels could not become a tensor.
    #[error("a tensor could not be made")]
    Tensor(#[from] tch::TchError),
}

impl PredictError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Libtorch(_)
            | Self::Model(_)
            | Self::Tensor(_)
            | Self::Finder(FinderError::Network(_)) => FailureReason::Internal,
            Self::Device(_) | Self::Weights(_) | Self::Finder(_) | Self::NoSuchClass { .. } => {
                FailureReason::InvalidConfig
            }
            Self::Source(_) | Self::NoPictures | Self::NoneReadable(_) => {
                FailureReason::InvalidDataset
            }
            Self::Output(_) | Self::Draw(_) => FailureReason::OutputUnwritable,
        }
    }
}

/// Does what the arguments say; returns what to tell.
pub fn predict(args: &PredictArgs) -> Result<String, PredictError> {
    if let Some(file) = &args.contact_sheet {
        output_folder::must_be_new_or_in(&args.output, file)?;
    }
    let (predictor, info) = predictor(args)?;
    let mut pictures = sources::list(&args.source)?;
    pictures.truncate(args.limit.unwrap_or(usize::MAX));
    if pictures.is_empty() {
        return Err(PredictError::NoPictures);
    }
    output_folder::prepare(&args.output, SUMMARY)?;

    let (mut names, mut crops) = (FileNames::default(), FileNames::default());
    if let Some(file) = &args.contact_sheet {
        prepare_sheet(file, &args.output, &mut names)?;
    }
    let mut sheet = Vec::new();
    let mut summary = JsonList::create(&args.output.join(SUMMARY), r#"{"images":"#)?;
    let coco_file = args.save_json.then(|| args.output.join("coco.json"));
    let coco_file = coco_file.map(|file| JsonList::create(&file, ""));
    let mut coco_rows = coco_file.transpose()?;
    let mut bar = Bar::new("pictures", pictures.len() as u64);
    for (done, path) in (1..).zip(&pictures) {
        let (image, found) = match predictor.find(path)? {
            Ok(found) => found,
            Err(error) => {
                console::warn(&format!("{} is skipped: {}", path.display(), chain(&error)));
                continue;
            }
        };
        let stem = names.unique(path);
        if args.save_crop {
            let folder = args.output.join("crops");
            save_crops(&folder, &mut crops, &stem, &image, &found, &info.names)?;
        }
        if let Some(rows) = &mut coco_rows {
            for row in coco::results(&path.display().to_string(), None, &[], &found) {
                rows.add(&row)?;
            }
        }
        if args.save_txt {
            let text = rows(&found, image.dimensions());
            output_folder::write(
                &args.output.join(format!("labels/{stem}.txt")),
                text.as_bytes(),
            )?;
        }
        summary.add(&described(path, &found, &info.names))?;
        let labels = if args.labels {
            labels_of(path, image.dimensions(), info.nc)
        } else {
            Vec::new()
        };
        let drawn = DrawnImage {
            image,
            detections: found,
            labels,
            title: stem.clone(),
        };
        let file = args.output.join(format!("{stem}.png"));
        write_png(&annotated(&drawn, &info.names), &file)?;
        if args.contact_sheet.is_some() && sheet.len() < SHEET {
            sheet.push(drawn.at_most(draw::CELL));
        }
        bar.set(done, String::new);
    }
    drop(bar);
    if summary.is_empty() {
        return Err(PredictError::NoneReadable(pictures.len()));
    }
    let weights = args
        .networks
        .weights
        .iter()
        .map(|path| path.display().to_string());
    let weights: Vec<String> = weights.collect();
    let mut text = format!("{} pictures in {}", summary.len(), args.output.display());
    let weights = json!(weights.join(" "));
    summary.finish(&format!(r#","weights":{weights}}}"#))?;
    if let Some(rows) = coco_rows {
        rows.finish("")?;
    }
    if let Some(path) = &args.contact_sheet {
        write_png(&contact_sheet(&sheet, &info.names, COLUMNS), path)?;
        // Writing to a string cannot fail.
        let _ = write!(text, ", {} of them on {}", sheet.len(), path.display());
    }
    Ok(text)
}

/// What the summary says of a picture.
fn described(path: &Path, found: &[Detection], names: &[String]) -> Value {
    let detections = found.iter().map(|found| {
        json!({
            "class": found.class,
            "name": names.get(usize::from(found.class)),
            "confidence": found.conf,
            "xyxy": [found.xyxy.x1, found.xyxy.y1, found.xyxy.x2, found.xyxy.y2],
        })
    });
    let detections: Vec<Value> = detections.collect();
    json!({"image": path.display().to_string(), "detections": detections})
}

fn predictor(args: &PredictArgs) -> Result<(Predictor, WeightsInfo), PredictError> {
    let device = device::for_inference(args.networks.device.into())?;
    let (finder, info) = Finder::load(&args.networks, device)?;
    let image_size = args.networks.image_size.unwrap_or(info.image_size);
    finder.check_image_size(image_size)?;
    if let Some(class) = args
        .classes
        .iter()
        .find(|class| usize::from(**class) >= info.nc)
    {
        return Err(PredictError::NoSuchClass {
            class: *class,
            known: info.nc,
        });
    }
    let shape = if args.square {
        Shape::Square
    } else {
        Shape::rectangle(finder.multiple())
    };
    let predictor = Predictor {
        finder,
        image_size,
        shape,
        options: NmsOptions {
            confidence: args.conf,
            iou: args.iou,
            max_detections: args.max_det as usize,
            classes: args.classes.clone(),
            competition: if args.agnostic_nms {
                Competition::AcrossClasses
            } else {
                Competition::WithinClass
            },
            ..NmsOptions::DETECTION
        },
    };
    Ok((predictor, info))
}

struct Predictor {
    finder: Finder,
    image_size: u32,
    shape: Shape,
    options: NmsOptions,
}

/// A picture and what was found on it, in its own pixels.
type Found = (RgbImage, Vec<Detection>);

impl Predictor {
    fn find(&self, path: &Path) -> Result<Result<Found, DecodeError>, PredictError> {
        let image = match decode_whole(path) {
            Ok(image) => image,
            Err(error) => return Ok(Err(error)),
        };
        let letterbox = prediction_letterbox(image.dimensions(), self.image_size, self.shape);
        // As YOLOv5's detect; its evaluation takes means.
        let resized = match decode(path, letterbox.resized, Shrink::Bilinear) {
            Ok(resized) => resized,
            Err(error) => return Ok(Err(error)),
        };
        let (width, height) = letterbox.output;
        let mut pixels = vec![0; 3 * width as usize * height as usize];
        lay(&resized, &letterbox, &mut pixels);
        let size = [1, 3, height.into(), width.into()];
        let pixels = Tensor::f_from_data_size(&pixels, &size, Kind::Uint8)?;
        let mut found = self.finder.find(&pixels, &self.options)?.detections;
        let mut found = found.pop().unwrap_or_default();
        for detection in &mut found {
            detection.xyxy = letterbox.to_original(detection.xyxy);
        }
        Ok(Ok((image, found)))
    }
}

/// Makes the folder of the contact sheet, before anything is computed, and keeps its name for it.
fn prepare_sheet(file: &Path, output: &Path, names: &mut FileNames) -> Result<(), OutputError> {
    let folder = output_folder::of(file);
    output_folder::make(folder)?;
    if folder.canonicalize().ok() == output.canonicalize().ok() {
        names.unique(file);
    }
    Ok(())
}

/// Writes each object as a picture of its own into a folder of its class, a fiftieth and ten pixels wider and higher,
/// as `YOLOv5` does. `files` are those of all pictures.
fn save_crops(
    folder: &Path,
    files: &mut FileNames,
    stem: &str,
    image: &RgbImage,
    found: &[Detection],
    names: &[String],
) -> Result<(), PredictError> {
    for detection in found {
        let b = detection.xyxy.to_xywh();
        let around = |middle: f32, size: f32, limit: u32| {
            let half = f32::midpoint(size * 1.02, 10.0);
            let low = (middle - half).max(0.0) as u32;
            let high = (middle + half).clamp(0.0, limit as f32) as u32;
            (low.min(limit), high.saturating_sub(low))
        };
        let (left, width) = around(b.x, b.w, image.width());
        let (top, height) = around(b.y, b.h, image.height());
        if width == 0 || height == 0 {
            continue;
        }
        let class = usize::from(detection.class);
        // A name may hold what a path must not.
        let name = names.get(class).map_or("", String::as_str);
        let name: String = name
            .chars()
            .map(|c| {
                if c.is_alphanumeric() || " -_".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let folder = folder.join(format!("{class} {name}").trim_end());
        output_folder::make(&folder)?;
        let name = files.unique_in(&folder, Path::new(&format!("{stem}.png")));
        let file = folder.join(format!("{name}.png"));
        let crop = image::imageops::crop_imm(image, left, top, width, height).to_image();
        write_png(&crop, &file)?;
    }
    Ok(())
}

/// One line per box: class, centre and size as fractions, confidence; YOLO's label form.
pub(crate) fn rows(found: &[Detection], (width, height): (u32, u32)) -> String {
    let scale = (1.0 / width as f32, 1.0 / height as f32);
    let mut text = String::new();
    for detection in found {
        let b = detection.xyxy.scale(scale.0, scale.1).to_xywh();
        let Detection { class, conf, .. } = detection;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{class} {:.6} {:.6} {:.6} {:.6} {conf:.6}",
            b.x, b.y, b.w, b.h
        );
    }
    text
}

/// The labels that belong to a picture of a data set; none if there are none or they are bad.
fn labels_of(path: &Path, (width, height): (u32, u32), classes: usize) -> Vec<LabelledBox> {
    let file = label_path(path);
    let content = match bounded::read_text(&file, MAX_LABELS) {
        Ok(content) => content,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                console::warn(&format!("{} cannot be read: {error}", file.display()));
            }
            return Vec::new();
        }
    };
    match parse_label_file(&file.display().to_string(), &content, classes) {
        Ok(parsed) => parsed
            .labels
            .iter()
            .map(|label| LabelledBox {
                xyxy: label.xywh.scale(width as f32, height as f32).to_xyxy(),
                class: label.class,
            })
            .collect(),
        Err(problems) => {
            let first = problems.first().map(ToString::to_string);
            console::warn(&format!(
                "labels are not drawn: {}",
                first.unwrap_or_default()
            ));
            Vec::new()
        }
    }
}

/// Names of results, each used once in its folder.
#[derive(Default)]
pub(crate) struct FileNames {
    used: BTreeSet<PathBuf>,
}

impl FileNames {
    /// The name of `path` without its folder and ending, with a number where that is used.
    pub(crate) fn unique(&mut self, path: &Path) -> String {
        self.unique_in(Path::new(""), path)
    }

    /// The same for a file in this folder.
    fn unique_in(&mut self, folder: &Path, path: &Path) -> String {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut name = stem.clone();
        let mut number = 1;
        while !self.used.insert(folder.join(&name)) {
            number += 1;
            name = format!("{stem}-{number}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use trainer_core::boxes::Xyxy;

    use super::*;

    #[test]
    fn pictures_of_one_name_get_two_files() {
        let mut names = FileNames::default();
        let all = ["a/x.jpg", "b/x.png", "b/y.png"].map(|path| names.unique(Path::new(path)));
        assert_eq!(["x", "x-2", "y"], all.each_ref().map(String::as_str));
    }

    #[test]
    fn crops_of_all_pictures_get_files_of_their_own() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let found = Detection {
            xyxy: Xyxy::new(10., 20., 30., 60.),
            conf: 0.5,
            class: 0,
        };
        let image = RgbImage::new(100, 100);
        let mut files = FileNames::default();
        // The second object of the first picture, and the first of the second.
        for (stem, found) in [("x", &[found, found][..]), ("x-2", &[found])] {
            let names = ["a".to_owned()];
            save_crops(folder.path(), &mut files, stem, &image, found, &names).expect("written");
        }
        let entries = std::fs::read_dir(folder.path().join("0 a")).expect("crops");
        assert_eq!(3, entries.count());
    }

    #[test]
    fn boxes_become_fractions() {
        let found = [Detection {
            xyxy: Xyxy::new(10., 20., 30., 60.),
            conf: 0.5,
            class: 3,
        }];
        assert_eq!(
            "3 0.200000 0.200000 0.200000 0.200000 0.500000\n",
            rows(&found, (100, 200))
        );
    }
}
