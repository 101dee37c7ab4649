use super::canvas::CanvasTile;
use super::*;
use crate::dataset::Split;
use crate::store::{FILL, Sizing};
use crate::testing::{NONE, TestSet, noise};
use image::{Rgb, RgbImage};
use proptest::prelude::*;
use std::sync::Arc;
use trainer_core::boxes::Xyxy;
use trainer_core::rng::stream;

/// Of the runs of these tests.
const EPOCHS: u32 = 10;

fn source(set: &TestSet, side: u32, augmentation: &Augmentation) -> TrainSource {
    let store = ImageStore::new(set.open(Split::Train), side, Sizing::Train, 1 << 24);
    TrainSource::new(store, 7, augmentation, EPOCHS)
}

/// The canvas of a sample.
fn canvas(source: &TrainSource, epoch: u64, index: u32) -> Canvas {
    let mosaics = source.settings.mosaics(epoch);
    let pool = Pool::All(source.len() as u32);
    let streams = Streams::new(source.seed, epoch, index, pool);
    let side = 2 * source.store.image_size();
    let all = canvas::whole((side, side));
    source.lay(streams, Layer::Own, &mosaics, index, all)
}

fn sample(source: &TrainSource, epoch: u64, index: u32) -> (Vec<u8>, Sample) {
    let mut pixels = vec![1; crate::source::sample_bytes(source.size(index))];
    let sample = source.sample(epoch, index, None, &mut pixels);
    (pixels, sample)
}

#[test]
fn without_augmentation_pixels_and_boxes_stay() {
    let set = TestSet::new();
    let image = noise(1, (64, 40));
    set.image("images/train/a.png", &image);
    set.write("labels/train/a.txt", "1 0.25 0.5 0.5 0.5");
    let (pixels, sample) = sample(&source(&set, 64, &NONE), 0, 0);
    for (k, value) in pixels[..4096].iter().enumerate() {
        let (x, y) = (k as u32 % 64, k as u32 / 64);
        let inside = (12..52).contains(&y);
        assert_eq!(
            *value,
            if inside {
                image.get_pixel(x, y - 12).0[0]
            } else {
                FILL
            }
        );
    }
    let xywh = sample.targets[0].xywh;
    assert_eq!(sample.targets[0].class, 1);
    let expected = [0.25, 0.5, 0.5, 20. / 64.];
    for (a, b) in [xywh.x, xywh.y, xywh.w, xywh.h].into_iter().zip(expected) {
        assert!((a - b).abs() < 1e-4, "{xywh:?}");
    }
}

#[test]
fn flips_mirror_pixels_and_boxes() {
    let set = TestSet::new();
    let image = noise(1, (32, 32));
    set.image("images/train/a.png", &image);
    set.write("labels/train/a.txt", "1 0.25 0.375 0.5 0.5");
    for (up, left) in [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)] {
        let settings = Augmentation {
            flipud: up,
            fliplr: left,
            ..NONE
        };
        let (pixels, sample) = sample(&source(&set, 32, &settings), 0, 0);
        let mirror = |v: u32, on: f64| if on > 0.0 { 31 - v } else { v };
        for (x, y) in [(0, 0), (5, 9), (31, 2)] {
            let expected = image.get_pixel(mirror(x, left), mirror(y, up)).0[2];
            assert_eq!(pixels[2048 + (y * 32 + x) as usize], expected);
        }
        let xywh = sample.targets[0].xywh;
        assert!((xywh.x - if left > 0.0 { 0.75 } else { 0.25 }).abs() < 1e-4);
        assert!((xywh.y - if up > 0.0 { 0.625 } else { 0.375 }).abs() < 1e-4);
    }
}

#[test]
fn samples_follow_from_seed_epoch_and_image_alone() {
    let set = TestSet::with_images(7);
    let settings = Augmentation {
        degrees: 10.0,
        flipud: 0.5,
        ..Augmentation::default()
    };
    let (a, b) = (source(&set, 64, &settings), source(&set, 64, &settings));
    let first = sample(&a, 2, 3);
    for k in (0..7).rev() {
        sample(&b, 1, k);
    }
    assert_eq!(first, sample(&b, 2, 3));
    assert_ne!(first.0, sample(&b, 3, 3).0, "the epoch counts");
    assert_ne!(first.0, sample(&b, 2, 4).0, "the image counts");
    let other = TrainSource::new(
        ImageStore::new(set.open(Split::Train), 64, Sizing::Train, 0),
        8,
        &settings,
        EPOCHS,
    );
    assert_ne!(first.0, sample(&other, 2, 3).0, "the seed counts");
}

#[test]
fn one_augmentation_does_not_change_the_draws_of_another() {
    let set = TestSet::with_images(3);
    let with = |hsv, shear| {
        let settings = Augmentation {
            hsv_v: hsv,
            shear,
            mosaic: 0.0,
            ..Augmentation::default()
        };
        (0..20)
            .map(|k| {
                let mut rng = stream(7, Purpose::Augment, k, 0);
                source(&set, 64, &settings).settings.draw(&mut rng).2
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(with(0.0, 0.0), with(0.5, 5.0));
    assert!(
        with(0.0, 0.0).iter().any(|flip| flip.horizontal)
            && with(0.0, 0.0).iter().any(|flip| !flip.horizontal)
    );
}

#[test]
fn mosaics_show_four_images_and_probability_is_kept() {
    let set = TestSet::with_images(5);
    let share = |p| {
        let source = source(&set, 64, &Augmentation { mosaic: p, ..NONE });
        (0..200)
            .filter(|epoch| canvas(&source, *epoch, 0).tiles.len() == 4)
            .count()
    };
    assert_eq!((share(0.0), share(1.0)), (0, 200));
    assert!((70..130).contains(&share(0.5)), "{}", share(0.5));
    let always = source(
        &set,
        64,
        &Augmentation {
            mosaic: 1.0,
            ..NONE
        },
    );
    let own = always.store.load(4).pixels;
    let mut corners = [0; 4];
    for epoch in 0..60 {
        let canvas = canvas(&always, epoch, 4);
        assert_eq!((canvas.size, canvas.labels.len()), ((128, 128), 4));
        let is_own = |tile: &CanvasTile| Arc::ptr_eq(&tile.pixels, &own);
        assert!(canvas.tiles.iter().any(is_own));
        for (count, tile) in corners.iter_mut().zip(&canvas.tiles) {
            *count += u32::from(is_own(tile));
        }
    }
    assert!(corners.iter().all(|count| *count > 10), "{corners:?}");
}

/// FNV-1a over the pixels and targets of some samples.
fn fingerprint(source: &TrainSource, epochs: std::ops::Range<u64>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (epoch, index) in epochs.flat_map(|epoch| (0..source.len()).map(move |k| (epoch, k))) {
        let (pixels, sample) = sample(source, epoch, index as u32);
        let targets = sample
            .targets
            .iter()
            .flat_map(|t| [t.xywh.x, t.xywh.y, t.xywh.w, t.xywh.h].map(f32::to_bits));
        let values = pixels.iter().map(|v| u32::from(*v)).chain(targets);
        for value in values {
            hash = (hash ^ u64::from(value)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// A run that is continued by a newer version goes on with the same samples.
#[test]
fn samples_never_change() {
    let set = TestSet::with_images(6);
    let source = source(&set, 64, &Augmentation::default());
    assert_eq!(
        fingerprint(&source, 1..2),
        8_012_443_387_570_567_402,
        "old runs could no longer be continued"
    );
}

/// The same for outlines, lone images, and transforms that turn.
#[test]
fn samples_of_other_settings_never_change() {
    let set = TestSet::with_images(7);
    set.write(
        "labels/train/003.txt",
        "0 0.1 0.1 0.7 0.2 0.9 0.6 0.4 0.9 0.2 0.5",
    );
    let default = Augmentation::default();
    let lone = Augmentation {
        mosaic: 0.0,
        flipud: 0.5,
        ..default
    };
    let turned = Augmentation {
        mosaic: 0.5,
        degrees: 30.0,
        shear: 5.0,
        perspective: 0.0005,
        ..default
    };
    let got = [(96, default), (64, lone), (96, turned)]
        .map(|(side, settings)| fingerprint(&source(&set, side, &settings), 0..3));
    let expected = [
        4_576_782_920_120_585_354,
        12_137_878_047_484_126_085,
        5_296_319_710_526_363_566,
    ];
    assert_eq!(got, expected, "old runs could no longer be continued");
}

#[test]
fn broken_partners_are_grey_and_named() {
    let set = TestSet::with_images(2);
    let settings = Augmentation {
        mosaic: 1.0,
        ..NONE
    };
    let broken = source(&set, 64, &settings);
    let path = set.root().join("images/train/001.png");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..80]).unwrap();
    let (_, sample) = sample(&broken, 0, 1);
    assert!(!sample.skipped.is_empty());
    assert!(
        sample
            .skipped
            .iter()
            .all(|s| s.name == "images/train/001.png")
    );
    assert!(
        sample.targets.iter().all(|t| t.class == 0),
        "image 1 has class 1"
    );
}

/// An image whose box `k` is filled with a colour of its own, red never being used for anything else.
fn painted(size: (u32, u32), boxes: &[Xyxy]) -> RgbImage {
    RgbImage::from_fn(size.0, size.1, |x, y| {
        let at = (x as f32 + 0.5, y as f32 + 0.5);
        let inside = |b: &Xyxy| b.x1 < at.0 && at.0 < b.x2 && b.y1 < at.1 && at.1 < b.y2;
        if boxes.iter().any(inside) {
            Rgb([255, 0, 0])
        } else {
            Rgb([0, 0, 255])
        }
    })
}

/// The extent of the red pixels of a sample.
fn red_extent(pixels: &[u8], side: usize) -> Option<Xyxy> {
    let plane = side * side;
    let red = |k: &usize| pixels[*k] > 127 && pixels[2 * plane + *k] < 128;
    let found: Vec<usize> = (0..plane).filter(red).collect();
    Some(Xyxy::new(
        found.iter().map(|k| k % side).min()? as f32,
        found.iter().map(|k| k / side).min()? as f32,
        found.iter().map(|k| k % side).max()? as f32 + 1.0,
        found.iter().map(|k| k / side).max()? as f32 + 1.0,
    ))
}

fn close(a: Xyxy, b: Xyxy, tolerance: f32) -> bool {
    [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)]
        .into_iter()
        .all(|(a, b)| (a - b).abs() <= tolerance)
}

mod pipeline;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Wherever augmentation takes an object, its box goes with it: for an upright box under a
    /// transform without rotation the two agree, with rotation the box is the extent of the turned
    /// rectangle, which they still agree on.
    #[test]
    fn boxes_stay_on_their_pixels(
        size in (24_u32..120, 24_u32..120), at in (0.0_f32..0.6, 0.0_f32..0.6), extent in (0.25_f32..0.4, 0.25_f32..0.4),
        epoch in 0_u64..1000, degrees in prop_oneof![Just(0.0), Just(45.0)], mosaic in prop_oneof![Just(0.0), Just(1.0)],
        polygon: bool,
    ) {
        let (w, h) = (size.0 as f32, size.1 as f32);
        let area = Xyxy::new((at.0 * w).round(), (at.1 * h).round(), ((at.0 + extent.0) * w).round(), ((at.1 + extent.1) * h).round());
        let set = TestSet::new();
        set.image("images/train/a.png", &painted(size, &[area]));
        let [x1, y1, x2, y2] = [area.x1 / w, area.y1 / h, area.x2 / w, area.y2 / h];
        set.write("labels/train/a.txt", if polygon {
            format!("0 {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}")
        } else {
            format!("0 {} {} {} {}", f32::midpoint(x1, x2), f32::midpoint(y1, y2), x2 - x1, y2 - y1)
        });
        // A partner with nothing red and no labels, so that the mosaic holds few copies of the object.
        set.image("images/train/b.png", &painted((90, 70), &[]));
        set.image("images/train/c.png", &painted((50, 70), &[]));
        let settings = Augmentation { degrees, mosaic, hsv_h: 0.0, hsv_s: 0.0, hsv_v: 0.0, flipud: 0.5, ..Augmentation::default() };
        let source = source(&set, 96, &settings);
        let canvas = canvas(&source, epoch, 0);
        prop_assume!(canvas.labels.len() == 1);
        let (pixels, sample) = sample(&source, epoch, 0);
        let found = red_extent(&pixels, 96);
        // Dropped are only those of which little is left.
        if sample.targets.is_empty() {
            let left = found.map_or(0.0, Xyxy::area);
            let mut rng = stream(7, Purpose::Augment, epoch, 0);
            let scale = source.settings.draw(&mut rng).0.scale as f32;
            let before = canvas.labels[0].xyxy.scale(scale, scale).area();
            prop_assert!(left <= before * 0.2 + 40.0, "{left} of {before} are left, but no label");
            return Ok(());
        }
        let label = sample.targets[0].xywh.scale(96., 96.).to_xyxy();
        let Some(found) = found else {
            // A sliver thinner than a pixel.
            prop_assert!(label.width().min(label.height()) < 4.0, "{label:?}");
            return Ok(());
        };
        if degrees == 0.0 {
            // A pixel of interpolation, half a pixel between pixel centres and edges times the scale.
            prop_assert!(close(found, label, 2.0), "{found:?} {label:?}");
        } else if polygon {
            // Outlines cut off by the sample's edge keep their true extent inside.
            prop_assert!(close(found, label, 3.0), "{found:?} {label:?}");
        } else {
            // The box of a turned box that the edge cuts may be larger than what is seen of it.
            prop_assert!(found.x1 >= label.x1 - 2.0 && found.y1 >= label.y1 - 2.0, "{found:?} {label:?}");
            prop_assert!(found.x2 <= label.x2 + 2.0 && found.y2 <= label.y2 + 2.0, "{found:?} {label:?}");
        }
    }
}

/// What a sample does not show is not decoded; were it shown, it would be black or absent.
#[test]
fn what_is_not_seen_is_not_missed() {
    let set = TestSet::new();
    for k in 0..6 {
        let size = [(160, 120), (120, 160), (140, 140)][k as usize % 3];
        set.image(&format!("images/train/{k}.jpg"), &noise(k, size));
        set.write(
            &format!("labels/train/{k}.txt"),
            "0 0.5 0.5 0.6 0.6\n1 0.2 0.8 0.2 0.2",
        );
    }
    let (mut left_out, mut shortened) = (0, 0);
    for nine in [0.0, 0.5] {
        let settings = Augmentation {
            mosaic9: nine,
            mixup: 0.3,
            ..Augmentation::default()
        };
        // With memory for all images every one is decoded whole.
        let store = |bytes| ImageStore::new(set.open(Split::Train), 160, Sizing::Train, bytes);
        let [all, part] =
            [u64::MAX, 0].map(|bytes| TrainSource::new(store(bytes), 7, &settings, EPOCHS));
        for epoch in 0..4 {
            for index in 0..6 {
                assert!(
                    sample(&all, epoch, index) == sample(&part, epoch, index),
                    "{epoch} {index}"
                );
                let streams = Streams::new(part.seed, epoch, index, Pool::All(6));
                let draw = part
                    .settings
                    .draw(&mut streams.picture(Purpose::Augment, Layer::Own))
                    .0;
                let mosaics = part.settings.mosaics(epoch);
                let seen = part.canvas(streams, Layer::Own, &mosaics, index, &draw);
                let whole = canvas(&part, epoch, index);
                assert_eq!(seen.labels, whole.labels);
                left_out += whole.tiles.len() - seen.tiles.len();
                let same =
                    |tile: &CanvasTile| whole.tiles.iter().any(|other| other.pixels == tile.pixels);
                shortened += seen.tiles.iter().filter(|tile| !same(tile)).count();
            }
        }
    }
    assert!(left_out > 10 && shortened > 10, "{left_out} {shortened}");
}
