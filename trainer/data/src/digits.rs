//! An example data set: handwritten digits in painted scenes, with exact boxes.
//!
//! The digits are scans from "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak
//! (UCI Machine Learning Repository, 1998, CC BY 4.0; see `assets/README.md`). Training and
//! validation scenes use different scans, so validation measures digits never seen before.
//!
//! Everything follows from the seed: the same configuration gives the same bytes. Only whole numbers
//! and basic arithmetic are used to paint, no function whose last digit depends on the machine.

mod scans;
mod scene;

use contract::exit::FailureReason;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};
use scans::Scans;
use scene::{Scene, SceneConfig};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use trainer_core::rng::{Purpose, stream};

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DigitsConfig {
    /// Width and height of the scenes in pixels, 64 to 2048.
    pub image_size: u32,
    /// Number of training scenes.
    pub train: u32,
    /// Number of validation scenes.
    pub val: u32,
    /// From which everything follows.
    pub seed: u64,
    /// Fewest digits in a scene.
    pub min_digits: u32,
    /// Most digits in a scene.
    pub max_digits: u32,
    /// Smallest long side of a digit's box as a fraction of the scene's side.
    pub min_side: f64,
    /// Largest long side of a digit's box, likewise.
    pub max_side: f64,
}

impl Default for DigitsConfig {
    fn default() -> Self {
        Self {
            image_size: 160,
            train: 400,
            val: 100,
            seed: 0,
            min_digits: 2,
            max_digits: 7,
            min_side: 1.0 / 8.0,
            max_side: 1.0 / 3.0,
        }
    }
}

/// How far the making has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigitsProgress {
    /// Scenes written.
    pub done: u32,
    /// Scenes in all.
    pub total: u32,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigitsSummary {
    /// Scenes.
    pub images: u32,
    /// Digits in them.
    pub objects: u32,
}

/// Why the data set was not made.
#[derive(Debug, thiserror::Error)]
pub enum DigitsError {
    /// The configuration makes no sense.
    #[error("{field} is {value}: choose {choose}")]
    Config {
        /// The setting.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        choose: String,
    },
    /// The folder holds something already.
    #[error("{} is not empty: choose a new folder, or remove what is in it", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A folder or file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A scene cannot be encoded.
    #[error("cannot encode {}", path.display())]
    Encode {
        /// The scene's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: image::ImageError,
    },
}

impl DigitsError {
    /// The word that decides the exit code.
    pub fn reason(&self) -> FailureReason {
        match self {
            Self::Config { .. } => FailureReason::InvalidConfig,
            Self::NotEmpty { .. } | Self::Write { .. } => FailureReason::OutputUnwritable,
            Self::Encode { .. } => FailureReason::Internal,
        }
    }
}

/// Writes the data set into the folder `out`, which must be empty or not exist, in YOLO layout:
/// `images/{train,val}/000000.png`, `labels/{train,val}/000000.txt`, and last `data.yaml`.
///
/// A digit's box is the extent of the pixels that its ink covers by at least half. `progress` is
/// called after every scene.
pub fn make_dataset_digits(
    out: &Path,
    config: &DigitsConfig,
    progress: &mut dyn FnMut(DigitsProgress),
) -> Result<DigitsSummary, DigitsError> {
    check(config)?;
    prepare_folder(out)?;
    let scans = Scans::load();
    let (train, val) = scans.split(&mut stream(config.seed, Purpose::Scenes, 2, 0));
    let total = config.train + config.val;
    let mut summary = DigitsSummary::default();
    for (part, (split, count, scans)) in
        (0..).zip([("train", config.train, train), ("val", config.val, val)])
    {
        let images = out.join("images").join(split);
        let labels = out.join("labels").join(split);
        create(&images)?;
        create(&labels)?;
        let scenes = SceneConfig {
            size: config.image_size,
            digits: (config.min_digits, config.max_digits),
            sides: (config.min_side, config.max_side),
        };
        for number in 0..count {
            let mut rng = stream(config.seed, Purpose::Scenes, part, u64::from(number));
            let scene = Scene::paint(&mut rng, &scenes, &scans);
            write_png(&images.join(format!("{number:06}.png")), &scene)?;
            write(
                &labels.join(format!("{number:06}.txt")),
                label_text(&scene, config.image_size).as_bytes(),
            )?;
            summary.images += 1;
            summary.objects += scene.digits.len() as u32;
            progress(DigitsProgress {
                done: summary.images,
                total,
            });
        }
    }
    write(&out.join("data.yaml"), DATA_YAML.as_bytes())?;
    Ok(summary)
}

const DATA_YAML: &str = "\
# Scenes of handwritten digits. The digits are scans from \"Optical Recognition of Handwritten Digits\"
# by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
# https://doi.org/10.24432/C50P49, licence CC BY 4.0; they were enlarged and painted into scenes.
train: images/train
val: images/val
names: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
";

/// Refuses what cannot be painted.
fn check(config: &DigitsConfig) -> Result<(), DigitsError> {
    let refuse = |field, value: String, choose: String| {
        Err(DigitsError::Config {
            field,
            value,
            choose,
        })
    };
    let size = config.image_size;
    if !(64..=2048).contains(&size) {
        return refuse("imageSize", size.to_string(), "64 to 2048".to_owned());
    }
    for (field, count) in [("train", config.train), ("val", config.val)] {
        if !(1..=1_000_000).contains(&count) {
            return refuse(field, count.to_string(), "1 to 1000000".to_owned());
        }
    }
    let (least, most) = (8.0 / f64::from(size), 0.5);
    if !(least..=most).contains(&config.min_side) {
        let choose = format!("{least} (8 pixels) to {most}");
        return refuse("minSide", config.min_side.to_string(), choose);
    }
    if !(config.min_side..=most).contains(&config.max_side) {
        let choose = format!("{} (minSide) to {most}", config.min_side);
        return refuse("maxSide", config.max_side.to_string(), choose);
    }
    let room = scene::room(size, config.min_side);
    if !(1..=room).contains(&config.max_digits) {
        let choose = format!("1 to {room}, the digits of minSide that find room");
        return refuse("maxDigits", config.max_digits.to_string(), choose);
    }
    if !(1..=config.max_digits).contains(&config.min_digits) {
        let choose = format!("1 to {} (maxDigits)", config.max_digits);
        return refuse("minDigits", config.min_digits.to_string(), choose);
    }
    Ok(())
}

fn prepare_folder(out: &Path) -> Result<(), DigitsError> {
    create(out)?;
    let mut entries = fs::read_dir(out).map_err(|source| DigitsError::Write {
        path: out.to_owned(),
        source,
    })?;
    if entries.next().is_some() {
        return Err(DigitsError::NotEmpty {
            path: out.to_owned(),
        });
    }
    Ok(())
}

fn create(folder: &Path) -> Result<(), DigitsError> {
    fs::create_dir_all(folder).map_err(|source| DigitsError::Write {
        path: folder.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), DigitsError> {
    fs::write(path, bytes).map_err(|source| DigitsError::Write {
        path: path.to_owned(),
        source,
    })
}

fn write_png(path: &Path, scene: &Scene) -> Result<(), DigitsError> {
    let (width, height) = scene.image.dimensions();
    let mut bytes = Vec::new();
    // Named settings, so that a new default of the encoder does not change the files.
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Sub)
        .write_image(scene.image.as_raw(), width, height, ExtendedColorType::Rgb8)
        .map_err(|source| DigitsError::Encode {
            path: path.to_owned(),
            source,
        })?;
    write(path, &bytes)
}

/// A row per digit; six decimals are exact to a thousandth of a pixel.
fn label_text(scene: &Scene, size: u32) -> String {
    let mut text = String::new();
    let fraction = |doubled: u32| f64::from(doubled) / f64::from(2 * size);
    for digit in &scene.digits {
        let area = digit.area;
        let (x, y) = (area.x1 + area.x2, area.y1 + area.y2);
        let (w, h) = (2 * (area.x2 - area.x1), 2 * (area.y2 - area.y1));
        let [x, y, w, h] = [x, y, w, h].map(fraction);
        // Writing to a string does not fail.
        let _ = writeln!(text, "{} {x:.6} {y:.6} {w:.6} {h:.6}", digit.class);
    }
    text
}

#[cfg(test)]
mod tests;
