//! Small data sets for tests.

use crate::augment::canvas::{Canvas, CanvasTile, whole};
use crate::dataset::{Dataset, Split};
use contract::spec::Augmentation;
use image::{Rgb, RgbImage};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tempfile::TempDir;
use trainer_core::rng::{Purpose, below, stream};

/// No augmentation at all.
pub(crate) const NONE: Augmentation = Augmentation {
    hsv_h: 0.0,
    hsv_s: 0.0,
    hsv_v: 0.0,
    degrees: 0.0,
    translate: 0.0,
    scale: 0.0,
    shear: 0.0,
    perspective: 0.0,
    flipud: 0.0,
    fliplr: 0.0,
    mosaic: 0.0,
    mosaic9: 0.0,
    mixup: 0.0,
    cutmix: 0.0,
    copy_paste: 0.0,
    close_mosaic: 0,
    random_crop: 0.0,
    cutout: 0.0,
    blur: 0.0,
    median_blur: 0.0,
    gray: 0.0,
    clahe: 0.0,
    brightness_contrast: 0.0,
    gamma: 0.0,
    jpeg: 0.0,
};

/// A data set in a folder that goes away.
pub(crate) struct TestSet {
    folder: TempDir,
}

impl TestSet {
    /// Two classes, `images/train` and `images/val`, no images yet.
    pub(crate) fn new() -> Self {
        let set = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        set.write(
            "data.yaml",
            "train: images/train\nval: images/val\nnames: [cat, dog]\n",
        );
        for folder in ["images/train", "images/val"] {
            fs::create_dir_all(set.root().join(folder)).unwrap();
        }
        set
    }

    /// As many training images of 40 x 30, 30 x 40, 50 x 50, ... pixels of noise, each with one box.
    pub(crate) fn with_images(count: u64) -> Self {
        let set = Self::new();
        for k in 0..count {
            let size = [(40, 30), (30, 40), (50, 50)][k as usize % 3];
            set.image(&format!("images/train/{k:03}.png"), &noise(k, size));
            set.write(
                &format!("labels/train/{k:03}.txt"),
                format!("{} 0.5 0.4 0.5 0.{}\n", k % 2, 3 + k % 5),
            );
        }
        set
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and the folders it is in.
    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    /// Writes an image in the format of its name.
    pub(crate) fn image(&self, name: &str, image: &RgbImage) -> PathBuf {
        let path = self.write(name, []);
        image.save(&path).unwrap();
        path
    }

    pub(crate) fn open(&self, split: Split) -> Arc<Dataset> {
        Arc::new(Dataset::open(self.root(), "data.yaml", split).unwrap())
    }

    /// Every file and folder with its size and time of change.
    pub(crate) fn snapshot(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let about = entry.metadata().unwrap();
                if about.is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.path(), (about.len(), about.modified().unwrap()));
            }
        }
        found
    }
}

/// An image of random pixels.
pub(crate) fn noise(seed: u64, (width, height): (u32, u32)) -> RgbImage {
    let mut rng = stream(seed, Purpose::Test, 0, 99);
    RgbImage::from_fn(width, height, |_, _| {
        Rgb(std::array::from_fn(|_| below(&mut rng, 256) as u8))
    })
}

/// A canvas that one image covers whole.
pub(crate) fn covered(image: RgbImage) -> Canvas {
    let size = image.dimensions();
    Canvas {
        size,
        tiles: vec![CanvasTile {
            pixels: Arc::new(image),
            covers: whole(size),
            offset: (0, 0),
        }],
        ..Canvas::default()
    }
}

/// An error and its causes, as a program prints them.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
