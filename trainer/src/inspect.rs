//! What a data set holds, and which anchors fit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use trainer_core::anchors::{AnchorFit, DEFAULT_ANCHORS, fit};
use trainer_core::autoanchor::evolve;
use trainer_data::decode::decode_whole;
use trainer_data::{Dataset, DatasetError, Split};

use crate::cli::{AnchorsArgs, CheckDataArgs};
use crate::console::chain;

/// Anchors of one level, as in all of YOLOv5's models.
const PER_LEVEL: usize = 3;
/// Objects of an area below 32² and 96² pixels are small and medium (COCO's definition).
const SMALL: f32 = 32.0 * 32.0;
const MEDIUM: f32 = 96.0 * 96.0;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The path has no file name.
    #[error("{} is not a path of a data file", .0.display())]
    DataPath(PathBuf),
    /// The data set cannot be used.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Images are damaged.
    #[error("{} of the images cannot be decoded:\n{}", .0.len(), .0.join("\n"))]
    Damaged(Vec<String>),
    /// There are too few boxes.
    #[error(
        "the training images have too few different boxes for {count} anchors: label more of them, or lower --levels"
    )]
    TooFewBoxes {
        /// Anchors wanted.
        count: usize,
    },
}

/// The report of `check-data`.
pub fn check_data(args: &CheckDataArgs) -> Result<String, InspectError> {
    let mut text = String::new();
    let mut damaged = Vec::new();
    for split in [Split::Train, Split::Val] {
        let dataset = open(&args.data, split)?;
        describe(&mut text, split, &dataset, args.image_size);
        if args.decode {
            damaged.extend(undecodable(&dataset));
        }
    }
    if damaged.is_empty() {
        Ok(text.trim_end().to_owned())
    } else {
        Err(InspectError::Damaged(damaged))
    }
}

/// The report of `anchors`.
pub fn anchors(args: &AnchorsArgs) -> Result<String, InspectError> {
    let dataset = open(&args.data, Split::Train)?;
    let boxes = dataset.box_sizes(args.image_size);
    let count = PER_LEVEL * usize::from(args.levels);
    let found = evolve(&boxes, count, args.threshold, args.seed);
    let found = found.ok_or(InspectError::TooFewBoxes { count })?;
    let mut text = format!("{} boxes at {} pixels", boxes.len(), args.image_size);
    let mut tell = |what: &str, anchors: &[[f32; 2]]| {
        let AnchorFit {
            best_possible_recall,
            anchors_above_threshold,
            ..
        } = fit(&boxes, anchors, args.threshold);
        let _ = write!(
            text,
            "\n{what}: best possible recall {best_possible_recall:.4}, {anchors_above_threshold:.2} anchors for each box"
        );
    };
    tell("YOLOv5's anchors", DEFAULT_ANCHORS.as_flattened());
    tell("these anchors", &found);
    text.push_str("\nmodel:\n  anchors:");
    for level in found.chunks(PER_LEVEL) {
        let sides: Vec<String> = level
            .as_flattened()
            .iter()
            .map(|side| format!("{side:.1}"))
            .collect();
        let _ = write!(text, "\n    - [{}]", sides.join(", "));
    }
    Ok(text)
}

fn open(data: &Path, split: Split) -> Result<Dataset, InspectError> {
    let bad_path = || InspectError::DataPath(data.to_owned());
    let config = data.file_name().and_then(|name| name.to_str());
    let root = match data.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => return Err(bad_path()),
    };
    Ok(Dataset::open(root, config.ok_or_else(bad_path)?, split)?)
}

fn describe(text: &mut String, split: Split, dataset: &Dataset, image_size: u32) {
    let _ = writeln!(text, "{}: {}", split.as_str(), dataset.summary());
    let sides = |side: fn((u32, u32)) -> u32| {
        let all = || dataset.images().iter().map(|image| side(image.size));
        (all().min().unwrap_or(0), all().max().unwrap_or(0))
    };
    let ((least_w, most_w), (least_h, most_h)) = (sides(|size| size.0), sides(|size| size.1));
    let _ = writeln!(
        text,
        "  images of {least_w} to {most_w} x {least_h} to {most_h} pixels"
    );
    let boxes = dataset.box_sizes(image_size);
    let (mut small, mut medium) = (0, 0);
    for [width, height] in &boxes {
        match width * height {
            area if area < SMALL => small += 1,
            area if area < MEDIUM => medium += 1,
            _ => {}
        }
    }
    let _ = writeln!(
        text,
        "  at {image_size} pixels: {small} objects below 32² pixels, {medium} below 96², {} larger",
        boxes.len() - small - medium
    );
    let mut counts = vec![(0, 0); dataset.classes()];
    for image in dataset.images() {
        let mut seen = vec![false; counts.len()];
        for label in &image.labels {
            let class = usize::from(label.class);
            counts[class].0 += 1;
            if !std::mem::replace(&mut seen[class], true) {
                counts[class].1 += 1;
            }
        }
    }
    for (name, (objects, images)) in dataset.names().iter().zip(counts) {
        let note = if objects == 0 { ": never shown" } else { "" };
        let _ = writeln!(
            text,
            "  {name:<20} {objects:>8} objects on {images:>7} images{note}"
        );
    }
    for skipped in dataset.skipped() {
        let _ = writeln!(text, "  skipped: {skipped}");
    }
}

fn undecodable(dataset: &Dataset) -> Vec<String> {
    dataset
        .images()
        .iter()
        .filter_map(|image| {
            let error = decode_whole(&image.path).err()?;
            Some(format!("{}: {}", image.name, chain(&error)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use contract::spec::Model;
    use trainer_data::{DigitsConfig, make_dataset_digits};

    use super::*;

    fn digits(folder: &Path) -> PathBuf {
        let config = DigitsConfig {
            train: 12,
            val: 2,
            ..DigitsConfig::default()
        };
        make_dataset_digits(folder, &config, &mut |_| ()).expect("made");
        folder.join("data.yaml")
    }

    #[test]
    fn reports_count_objects_and_name_damaged_images() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = CheckDataArgs {
            data: digits(folder.path()),
            image_size: 640,
            decode: true,
        };
        let text = check_data(&args).expect("in order");
        assert!(text.contains("train: 12 images"), "{text}");
        assert!(text.contains("val: 2 images"), "{text}");
        assert_eq!(2, text.matches(" larger").count());
        assert_eq!(
            20,
            text.matches(" objects on ").count(),
            "ten classes, twice"
        );

        let image = std::fs::read_dir(folder.path().join("images/val")).expect("readable");
        let image = image.flatten().next().expect("an image").path();
        let bytes = std::fs::read(&image).expect("readable");
        std::fs::write(&image, &bytes[..bytes.len() / 2]).expect("written");
        let error = check_data(&args).expect_err("damaged").to_string();
        let name = image
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        assert!(
            error.starts_with("1 of the images") && error.contains(name),
            "{error}"
        );
        args.decode = false;
        assert!(check_data(&args).is_ok(), "the header is whole");
    }

    #[test]
    fn anchors_can_be_pasted_into_a_job() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut args = AnchorsArgs {
            data: digits(folder.path()),
            image_size: 160,
            levels: 3,
            threshold: 4.0,
            seed: 0,
        };
        let text = anchors(&args).expect("found");
        let start = text.find("model:").expect("a part of a job");
        let model: BTreeMap<String, Model> = serde_saphyr::from_str(&text[start..]).expect("YAML");
        let levels = model["model"].anchors.as_ref().expect("anchors");
        assert!(levels.iter().all(|level| level.len() == 6), "{levels:?}");
        assert!(
            text.contains("these anchors: best possible recall 1.0000"),
            "{text}"
        );
        assert_eq!(text, anchors(&args).expect("found again"));
        args.levels = 5;
        args.data = folder.path().join("no.yaml");
        let error = anchors(&args).expect_err("no file").to_string();
        assert!(error.contains("no.yaml does not exist"), "{error}");
    }
}
