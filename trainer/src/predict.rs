//! Finds objects on pictures and draws them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use contract::exit::FailureReason;
use serde_json::json;
use tch::{Kind, Tensor};
use trainer_core::detection::{Detection, LabelledBox};
use trainer_core::labels::parse_label_file;
use trainer_core::letterbox::Letterbox;
use trainer_core::nms::NmsOptions;
use trainer_data::decode::{DecodeError, Shrink, decode, decode_whole};
use trainer_data::store::{FILL, evaluation_letterbox};
use trainer_data::{DrawError, DrawnImage, RgbImage, annotated, contact_sheet, write_png};

use crate::cli::{PredictArgs, views};
use crate::console::{self, Bar, chain};
use crate::device::{self, DeviceError};
use crate::finder::{Finder, FinderError};
use crate::output_folder::{self, OutputError};
use crate::weights::WeightsError;

/// What a results folder is known by.
const SUMMARY: &str = "predictions.json";
/// Extensions of pictures in a folder.
const EXTENSIONS: [&str; 7] = ["bmp", "jpeg", "jpg", "png", "tif", "tiff", "webp"];
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
    #[error("cannot read the source {}", path.display())]
    Source {
        /// The source.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
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
            Self::Device(_) | Self::Weights(_) | Self::Finder(_) => FailureReason::InvalidConfig,
            Self::Source { .. } | Self::NoPictures | Self::NoneReadable(_) => {
                FailureReason::InvalidDataset
            }
            Self::Output(_) | Self::Draw(_) => FailureReason::OutputUnwritable,
        }
    }
}

/// Does what the arguments say; returns what to tell.
pub fn predict(args: &PredictArgs) -> Result<String, PredictError> {
    let device = device::for_inference(args.device.into())?;
    let (finder, info) = Finder::load(&args.weights, args.ensemble, views(args.augment), device)?;
    let image_size = args.image_size.unwrap_or(info.image_size);
    finder.check_image_size(image_size)?;
    let mut pictures = list(&args.source)?;
    pictures.truncate(args.limit.unwrap_or(usize::MAX));
    if pictures.is_empty() {
        return Err(PredictError::NoPictures);
    }
    output_folder::prepare(&args.output, SUMMARY)?;

    let predictor = Predictor {
        finder,
        image_size,
        options: NmsOptions {
            confidence: args.conf,
            iou: args.iou,
            ..NmsOptions::DETECTION
        },
    };
    let mut names = FileNames::default();
    let mut sheet = Vec::new();
    let mut summary = Vec::new();
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
        if args.save_txt {
            let text = rows(&found, image.dimensions());
            output_folder::write(
                &args.output.join(format!("labels/{stem}.txt")),
                text.as_bytes(),
            )?;
        }
        summary.push(json!({
            "image": path.display().to_string(),
            "detections": found.iter().map(|found| json!({
                "class": found.class,
                "name": info.names.get(usize::from(found.class)),
                "confidence": found.conf,
                "xyxy": [found.xyxy.x1, found.xyxy.y1, found.xyxy.x2, found.xyxy.y2],
            })).collect::<Vec<_>>(),
        }));
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
            sheet.push(drawn);
        }
        bar.set(done, String::new);
    }
    drop(bar);
    if summary.is_empty() {
        return Err(PredictError::NoneReadable(pictures.len()));
    }
    let weights = args.weights.iter().map(|path| path.display().to_string());
    let weights: Vec<String> = weights.collect();
    let mut text = format!("{} pictures in {}", summary.len(), args.output.display());
    let document = json!({"weights": weights.join(" "), "images": summary});
    output_folder::write(&args.output.join(SUMMARY), document.to_string().as_bytes())?;
    if let Some(path) = &args.contact_sheet {
        write_png(&contact_sheet(&sheet, &info.names, COLUMNS), path)?;
        // Writing to a string cannot fail.
        let _ = write!(text, ", {} of them on {}", sheet.len(), path.display());
    }
    Ok(text)
}

struct Predictor {
    finder: Finder,
    image_size: u32,
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
        let letterbox = evaluation_letterbox(image.dimensions(), self.image_size);
        let resized = match decode(path, letterbox.resized, Shrink::Area) {
            Ok(resized) => resized,
            Err(error) => return Ok(Err(error)),
        };
        let pixels = self.lay(&resized, &letterbox)?;
        let mut found = self.finder.find(&pixels, &self.options)?.detections;
        let mut found = found.pop().unwrap_or_default();
        for detection in &mut found {
            detection.xyxy = letterbox.to_original(detection.xyxy);
        }
        Ok(Ok((image, found)))
    }

    /// The network's input: the picture in the middle of a grey square, as planes.
    fn lay(&self, image: &RgbImage, letterbox: &Letterbox) -> Result<Tensor, tch::TchError> {
        let side = self.image_size as usize;
        let (left, top) = (letterbox.offset.0 as usize, letterbox.offset.1 as usize);
        let mut pixels = vec![FILL; 3 * side * side];
        for (x, y, pixel) in image.enumerate_pixels() {
            let at = (top + y as usize) * side + left + x as usize;
            for (channel, value) in pixel.0.into_iter().enumerate() {
                pixels[channel * side * side + at] = value;
            }
        }
        let side = side as i64;
        Tensor::f_from_data_size(&pixels, &[1, 3, side, side], Kind::Uint8)
    }
}

/// All pictures, those of a folder in order of their names.
fn list(sources: &[PathBuf]) -> Result<Vec<PathBuf>, PredictError> {
    let mut pictures = Vec::new();
    for path in sources {
        let failed = |source| PredictError::Source {
            path: path.clone(),
            source,
        };
        if !std::fs::metadata(path).map_err(failed)?.is_dir() {
            pictures.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(failed)?;
        let mut inside: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
        inside.retain(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|it| EXTENSIONS.contains(&it.to_lowercase().as_str()))
        });
        inside.sort();
        pictures.append(&mut inside);
    }
    Ok(pictures)
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
    let text = path.display().to_string();
    let Some((before, after)) = text.rsplit_once("/images/") else {
        return Vec::new();
    };
    let file = Path::new(&format!("{before}/labels/{after}")).with_extension("txt");
    let Ok(content) = std::fs::read_to_string(&file) else {
        return Vec::new();
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

/// Names of results, each used once.
#[derive(Default)]
pub(crate) struct FileNames {
    used: BTreeSet<String>,
}

impl FileNames {
    pub(crate) fn unique(&mut self, path: &Path) -> String {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut name = stem.clone();
        let mut number = 1;
        while !self.used.insert(name.clone()) {
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
