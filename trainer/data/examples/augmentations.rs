//! A picture of what each augmentation does to the digit scenes, with the labels it makes.
//!
//! ```text
//! cargo run --release -p trainer-data --example augmentations -- sheet.png
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "a picture for developers, not part of the program"
)]

use contract::spec::Augmentation;
use std::f32::consts::TAU;
use std::path::Path;
use std::sync::Arc;
use trainer_core::detection::LabelledBox;
use trainer_core::labels::parse_label_file;
use trainer_data::{
    Dataset, DigitsConfig, DrawnImage, ImageStore, RgbImage, SampleSource, Sizing, Split,
    TrainSource, contact_sheet, make_dataset_digits, write_png,
};

const SIDE: u32 = 320;
const SCENES: u32 = 24;
/// Samples of each augmentation, one row of the sheet.
const SAMPLES: u32 = 6;

type Change = fn(&mut Augmentation);

/// Nothing, everything YOLOv5 has by default, and every other augmentation by itself.
fn variants() -> Vec<(&'static str, Augmentation)> {
    let default = Augmentation::default();
    let none = Augmentation {
        hsv_h: 0.0,
        hsv_s: 0.0,
        hsv_v: 0.0,
        translate: 0.0,
        scale: 0.0,
        fliplr: 0.0,
        mosaic: 0.0,
        ..default.clone()
    };
    let changes: [(&'static str, Change); 14] = [
        ("none", |_| {}),
        ("mosaic", |a| a.mosaic = 1.0),
        ("mosaic9", |a| (a.mosaic, a.mosaic9) = (1.0, 1.0)),
        ("mixup", |a| (a.mosaic, a.mixup) = (1.0, 1.0)),
        ("cutmix", |a| a.cutmix = 1.0),
        ("copyPaste", |a| a.copy_paste = 1.0),
        ("randomCrop", |a| a.random_crop = 1.0),
        ("cutout", |a| a.cutout = 1.0),
        ("blur", |a| a.blur = 1.0),
        ("medianBlur", |a| a.median_blur = 1.0),
        ("gray", |a| a.gray = 1.0),
        ("clahe", |a| a.clahe = 1.0),
        ("brightness, gamma", |a| {
            (a.brightness_contrast, a.gamma) = (1.0, 1.0);
        }),
        ("jpeg", |a| a.jpeg = 1.0),
    ];
    let single = changes.into_iter().map(|(name, change)| {
        let mut settings = none.clone();
        change(&mut settings);
        (name, settings)
    });
    let mut all = default.clone();
    for (_, change) in changes {
        change(&mut all);
    }
    (all.degrees, all.shear, all.flipud) = (15.0, 5.0, 0.5);
    single
        .chain([("default", default), ("everything", all)])
        .collect()
}

/// Writes every box of the data set as an ellipse: only objects with outlines are pasted.
fn outline(root: &Path) {
    for number in 0..SCENES {
        let path = root.join(format!("labels/train/{number:06}.txt"));
        let text = std::fs::read_to_string(&path).unwrap();
        let labels = parse_label_file("", &text, 10).unwrap().labels;
        let rows = labels.iter().map(|label| {
            let points = (0..24).map(|k| {
                let (sin, cos) = (k as f32 / 24.0 * TAU).sin_cos();
                // A little wider than the ink, so that a copy does not lose the corners of a digit.
                let x = label.xywh.x + 0.55 * label.xywh.w * cos;
                let y = label.xywh.y + 0.55 * label.xywh.h * sin;
                format!(" {:.5} {:.5}", x.clamp(0.0, 1.0), y.clamp(0.0, 1.0))
            });
            format!("{}{}\n", label.class, points.collect::<String>())
        });
        std::fs::write(&path, rows.collect::<String>()).unwrap();
    }
}

/// The sample of an image in the first epoch in which it differs from `plain`: cutmix often finds no
/// room, and a crop may be the whole.
fn draw(source: &TrainSource, plain: &TrainSource, index: u32, title: String) -> DrawnImage {
    let side = SIDE as usize;
    let sample = |source: &TrainSource, epoch| {
        let mut planes = vec![0; 3 * side * side];
        let sample = source.sample(epoch, index, None, &mut planes);
        (planes, sample.targets)
    };
    let (planes, targets) = (0..50)
        .map(|epoch| (sample(source, epoch), sample(plain, epoch)))
        .find_map(|(sample, plain)| (sample != plain).then_some(sample))
        .unwrap_or_else(|| sample(source, 0));
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let at = y as usize * side + x as usize;
        image::Rgb(std::array::from_fn(|c| planes[c * side * side + at]))
    });
    let labels = targets.iter().map(|target| LabelledBox {
        xyxy: target.xywh.scale(SIDE as f32, SIDE as f32).to_xyxy(),
        class: target.class,
    });
    DrawnImage {
        image,
        detections: Vec::new(),
        labels: labels.collect(),
        title,
    }
}

fn main() {
    let path = std::env::args().nth(1).unwrap();
    let folder = std::env::temp_dir().join(format!("augmentations-{}", std::process::id()));
    let config = DigitsConfig {
        image_size: SIDE,
        train: SCENES,
        val: 1,
        ..DigitsConfig::default()
    };
    make_dataset_digits(&folder, &config, &mut |_| {}).unwrap();
    outline(&folder);
    let data = Arc::new(Dataset::open(&folder, "data.yaml", Split::Train).unwrap());
    let source = |settings| {
        let store = ImageStore::new(Arc::clone(&data), SIDE, Sizing::Train, u64::MAX);
        TrainSource::new(store, 1, settings, 100)
    };
    let variants = variants();
    let plain = source(&variants[0].1);
    let mut images = Vec::new();
    for (name, settings) in &variants {
        let source = source(settings);
        let row = (0..SAMPLES).map(|index| draw(&source, &plain, index, format!("{name} {index}")));
        images.extend(row);
    }
    write_png(
        &contact_sheet(&images, data.names(), SAMPLES),
        Path::new(&path),
    )
    .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
