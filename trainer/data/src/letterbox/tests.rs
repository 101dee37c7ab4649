use super::*;
use crate::dataset::Split;
use crate::store::Sizing;
use crate::testing::{TestSet, noise};
use image::{Rgb, imageops};
use trainer_core::boxes::Xyxy;

/// A red box on black is found again in the sample, where its target says, and the way
/// back leads to its label.
#[test]
fn boxes_and_pixels_agree() {
    let set = TestSet::new();
    let mut image = RgbImage::new(120, 60);
    imageops::replace(
        &mut image,
        &RgbImage::from_pixel(40, 20, Rgb([255, 0, 0])),
        30,
        10,
    );
    set.image("images/val/a.png", &image);
    set.write(
        "labels/val/a.txt",
        format!(
            "1 {} {} {} {}",
            50. / 120.,
            20. / 60.,
            40. / 120.,
            20. / 60.
        ),
    );
    for side in [32_u32, 120, 320] {
        let source = EvaluateSource::new(
            ImageStore::new(set.open(Split::Val), side, Sizing::Evaluate, 0),
            Shape::Square,
        );
        let mut pixels = vec![7; 3 * (side * side) as usize];
        let sample = source.sample(0, 0, None, &mut pixels);
        let about = sample.evaluated.unwrap();
        assert_eq!(about.labels[0].xyxy, Xyxy::new(30., 10., 70., 30.));
        assert_eq!(
            (about.name.as_str(), about.letterbox.original),
            ("images/val/a.png", (120, 60))
        );

        let expected = sample.targets[0]
            .xywh
            .scale(side as f32, side as f32)
            .to_xyxy();
        let red = &pixels[..(side * side) as usize];
        let green = &pixels[(side * side) as usize..];
        let inside = |k: &usize| red[*k] > 127 && green[*k] < 60;
        let found: Vec<(u32, u32)> = (0..red.len())
            .filter(inside)
            .map(|k| (k as u32 % side, k as u32 / side))
            .collect();
        let extent = Xyxy::new(
            found.iter().map(|p| p.0).min().unwrap() as f32,
            found.iter().map(|p| p.1).min().unwrap() as f32,
            found.iter().map(|p| p.0).max().unwrap() as f32 + 1.,
            found.iter().map(|p| p.1).max().unwrap() as f32 + 1.,
        );
        for (a, b) in [
            (extent.x1, expected.x1),
            (extent.y1, expected.y1),
            (extent.x2, expected.x2),
            (extent.y2, expected.y2),
        ] {
            assert!((a - b).abs() <= 1.0, "{side}: {extent:?} {expected:?}");
        }
        let back = about.letterbox.to_original(expected);
        assert!(
            (back.x1 - 30.).abs() < 0.01 && (back.y2 - 30.).abs() < 0.01,
            "{back:?}"
        );
        // Grey above and below, nothing left of what was there before.
        assert!(red[..side as usize].iter().all(|v| *v == FILL));
        assert!(
            pixels[pixels.len() - side as usize..]
                .iter()
                .all(|v| *v == FILL)
        );
    }
}

/// Detections end at the image's edges, so a label that does not could never be found exactly.
#[test]
fn labels_are_cut_off_at_the_edges_of_their_image() {
    let set = TestSet::new();
    set.image("images/val/a.png", &noise(5, (100, 50)));
    set.write("labels/val/a.txt", "0 0.95 0.5 0.2 0.4\n1 0.5 0.1 0.2 0.4");
    let store = ImageStore::new(set.open(Split::Val), 64, Sizing::Evaluate, 0);
    let source = EvaluateSource::new(store, Shape::Square);
    let mut pixels = vec![0; 3 * 64 * 64];
    let sample = source.sample(0, 0, None, &mut pixels);
    let about = sample.evaluated.unwrap();
    let found = about
        .letterbox
        .from_original(Xyxy::new(85., 15., 105., 35.));
    let found = about.letterbox.to_original(found);
    let iou = about.labels[0].xyxy.iou(found);
    assert!(iou > 0.999, "{iou}");
    assert_eq!(
        (100.0, 0.0),
        (about.labels[0].xyxy.x2, about.labels[1].xyxy.y1)
    );
}

#[test]
fn an_image_of_the_right_size_keeps_its_pixels() {
    let set = TestSet::new();
    let image = noise(5, (64, 64));
    set.image("images/val/a.png", &image);
    let source = EvaluateSource::new(
        ImageStore::new(set.open(Split::Val), 64, Sizing::Evaluate, 0),
        Shape::Square,
    );
    let mut pixels = vec![0; 3 * 64 * 64];
    let sample = source.sample(3, 0, None, &mut pixels);
    assert!(sample.targets.is_empty() && sample.skipped.is_empty());
    for (k, pixel) in image.pixels().enumerate() {
        assert_eq!(pixel.0, [pixels[k], pixels[4096 + k], pixels[8192 + k]]);
    }
}

#[test]
fn a_broken_file_is_grey_without_labels() {
    let set = TestSet::new();
    let path = set.image("images/val/a.png", &noise(5, (64, 32)));
    set.write("labels/val/a.txt", "0 0.5 0.5 0.5 0.5");
    let source = EvaluateSource::new(
        ImageStore::new(set.open(Split::Val), 64, Sizing::Evaluate, 0),
        Shape::Square,
    );
    std::fs::write(path, "gone").unwrap();
    let mut pixels = vec![0; 3 * 64 * 64];
    let sample = source.sample(0, 0, None, &mut pixels);
    assert!(pixels.iter().all(|v| *v == FILL));
    let about = sample.evaluated.unwrap();
    assert!(sample.targets.is_empty() && about.labels.is_empty());
    assert_eq!(
        (sample.skipped[0].name.as_str(), about.name.as_str()),
        ("images/val/a.png", "images/val/a.png")
    );
}

/// Half a stride of border or more around an image that keeps its shape, and its boxes with it.
#[test]
fn rectangles_are_as_large_as_their_image_needs() {
    let set = TestSet::new();
    let sizes = [(120, 60), (64, 64), (50, 100), (240, 120)];
    for (k, size) in sizes.into_iter().enumerate() {
        set.image(&format!("images/val/{k}.png"), &noise(k as u64, size));
        set.write(&format!("labels/val/{k}.txt"), "0 0.5 0.5 1.0 1.0");
    }
    let store = ImageStore::new(set.open(Split::Val), 64, Sizing::Evaluate, 0);
    let source = EvaluateSource::new(store, Shape::Rectangle { stride: 32 });
    assert_eq!((96, 64), source.size(0));
    assert_eq!((96, 96), source.size(1));
    assert_eq!((64, 96), source.size(2));
    // Each batch is of one size.
    assert_eq!(vec![vec![2], vec![0, 3], vec![1]], source.batches(8));
    assert_eq!(4, source.batches(1).len());

    let mut pixels = vec![0; 3 * 96 * 64];
    let sample = source.sample(0, 3, None, &mut pixels);
    let about = sample.evaluated.unwrap();
    assert_eq!(
        ((64, 32), (16, 16)),
        (about.letterbox.resized, about.letterbox.offset)
    );
    let box_ = sample.targets[0].xywh.scale(96.0, 64.0).to_xyxy();
    assert_eq!(Xyxy::new(16.0, 16.0, 80.0, 48.0), box_);
    assert_eq!(
        Xyxy::new(0.0, 0.0, 240.0, 120.0),
        about.letterbox.to_original(box_)
    );
    let row = |y: usize| &pixels[96 * y..96 * (y + 1)];
    assert!(row(15).iter().all(|v| *v == FILL) && row(48).iter().all(|v| *v == FILL));
    assert!(row(16)[..16].iter().all(|v| *v == FILL) && row(16)[16..80].iter().any(|v| *v != FILL));
}

/// 160 / 281 of 281 pixels are a little more than 160 in floating point, which counts as 161.
#[test]
fn an_image_that_rounding_makes_too_wide_is_cut() {
    let set = TestSet::new();
    set.image("images/val/a.png", &noise(5, (281, 20)));
    let store = ImageStore::new(set.open(Split::Val), 160, Sizing::Evaluate, 0);
    assert_eq!(161, store.size(0).0);
    let source = EvaluateSource::new(store, Shape::Square);
    let mut pixels = vec![0; 3 * 160 * 160];
    assert!(source.sample(0, 0, None, &mut pixels).skipped.is_empty());
    assert!(pixels.iter().any(|v| *v != FILL));
}

/// Facts on YOLOv5's detect; with a larger stride the border is larger.
#[test]
fn predictions_have_as_little_border_as_the_stride_allows() {
    let of = |size, shape| {
        let letterbox = prediction_letterbox(size, 640, shape);
        (letterbox.output, letterbox.offset)
    };
    let rectangle = Shape::rectangle(8);
    assert_eq!(((640, 480), (0, 0)), of((640, 480), rectangle));
    assert_eq!(((640, 384), (0, 12)), of((1920, 1080), rectangle));
    assert_eq!(((256, 640), (9, 0)), of((37, 100), rectangle));
    assert_eq!(((640, 512), (0, 16)), of((640, 480), Shape::rectangle(64)));
    assert_eq!(((640, 640), (0, 80)), of((640, 480), Shape::Square));
}
