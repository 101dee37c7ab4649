//! How the augmentations work together.

use super::*;
use crate::source::SampleTarget;
use crate::testing::covered;
use trainer_core::affine::AffineDraw;
use trainer_core::rng::{below, unit};

type Seen = (Vec<u8>, Vec<SampleTarget>);
type Change = fn(&mut Augmentation);

fn seen(set: &TestSet, settings: &Augmentation, epoch: u64, index: u32) -> Seen {
    let (pixels, sample) = sample(&source(set, 64, settings), epoch, index);
    (pixels, sample.targets)
}

/// Mosaics that are moved and scaled, in their own colours.
fn plain_mosaics() -> Augmentation {
    Augmentation {
        mosaic: 1.0,
        scale: 0.3,
        translate: 0.1,
        ..NONE
    }
}

/// Images with two outlined objects each.
fn outlined(images: u64) -> TestSet {
    let set = TestSet::with_images(images);
    for k in 0..images {
        set.write(
            &format!("labels/train/{k:03}.txt"),
            "0 0.05 0.1 0.3 0.15 0.35 0.6 0.1 0.5\n1 0.6 0.6 0.9 0.65 0.7 0.95\n",
        );
    }
    set
}

/// Settings of which each does something to every sample.
fn everything() -> Augmentation {
    Augmentation {
        degrees: 20.0,
        shear: 5.0,
        perspective: 0.0005,
        flipud: 0.5,
        mosaic: 0.8,
        mosaic9: 0.5,
        mixup: 0.7,
        cutmix: 0.7,
        copy_paste: 0.7,
        random_crop: 0.7,
        cutout: 0.7,
        blur: 0.5,
        median_blur: 0.5,
        gray: 0.5,
        clahe: 0.5,
        brightness_contrast: 0.5,
        gamma: 0.5,
        jpeg: 0.5,
        ..Augmentation::default()
    }
}

#[test]
fn a_painted_picture_is_what_the_rows_show() {
    let draw = AffineDraw {
        degrees: 10.0,
        ..AffineDraw::IDENTITY
    };
    let view = || View::new(covered(noise(1, (48, 48))), &draw, (32, 32));
    let mut direct = Vec::new();
    view().rows(|_, row| direct.push(row.clone()));
    let mut painted = Vec::new();
    view().render().rows(|_, row| painted.push(row.clone()));
    assert_eq!(direct, painted);
}

#[test]
fn mixup_weights_two_mosaics_and_keeps_both_their_labels() {
    let set = TestSet::with_images(6);
    let plain = plain_mosaics();
    let mixed = Augmentation {
        mixup: 1.0,
        ..plain
    };
    for epoch in 0..5 {
        let source = source(&set, 64, &mixed);
        let streams = Streams::new(source.seed, epoch, 2, Pool::All(6));
        let mut rng = streams.sample_if(1.0, Purpose::Mixup).unwrap();
        let mix = mixup::draw(&mut rng, 1.0, Pool::All(6)).unwrap();
        let mosaics = source.settings.mosaics(epoch);
        let second = source.second(streams, Layer::Mixed, &mosaics, mix.partner, &mut vec![]);
        let (alone, own) = seen(&set, &plain, epoch, 2);
        let (pixels, targets) = seen(&set, &mixed, epoch, 2);
        for (k, got) in pixels.iter().enumerate() {
            let (channel, at) = (k / 4096, (k % 4096) as u32);
            let other = second.pixels.get_pixel(at % 64, at / 64).0[channel];
            let sum = f32::from(alone[k]) * mix.part + f32::from(other) * (1.0 - mix.part);
            assert!((f32::from(*got) - sum).abs() <= 0.501, "{k}: {got} {sum}");
        }
        let others = labels::to_targets(&second.boxes, (64, 64));
        assert_eq!(targets, [own, others].concat());
    }
}

#[test]
fn only_mosaics_are_mixed() {
    let set = TestSet::with_images(6);
    let half = Augmentation {
        mosaic: 0.5,
        ..plain_mosaics()
    };
    let mixed = Augmentation { mixup: 1.0, ..half };
    let mut changed = 0;
    for epoch in 0..30 {
        let is_mosaic = canvas(&source(&set, 64, &half), epoch, 1).tiles.len() == 4;
        let differs = seen(&set, &half, epoch, 1) != seen(&set, &mixed, epoch, 1);
        assert_eq!(differs, is_mosaic, "epoch {epoch}");
        changed += u32::from(differs);
    }
    assert!((5..25).contains(&changed), "{changed}");
}

#[test]
fn cutmix_changes_one_free_rectangle() {
    let set = TestSet::with_images(6);
    let plain = plain_mosaics();
    let cut = Augmentation {
        cutmix: 1.0,
        ..plain
    };
    let mut changed = 0;
    for epoch in 0..40 {
        let (before, own) = seen(&set, &plain, epoch, 3);
        let (after, targets) = seen(&set, &cut, epoch, 3);
        assert_eq!(targets[..own.len()], own, "objects outside stay");
        let different: Vec<usize> = (0..4096).filter(|k| before[*k] != after[*k]).collect();
        if different.is_empty() {
            assert_eq!(targets.len(), own.len());
            continue;
        }
        changed += 1;
        let extent = Xyxy::new(
            different.iter().map(|k| k % 64).min().unwrap() as f32,
            different.iter().map(|k| k / 64).min().unwrap() as f32,
            different.iter().map(|k| k % 64).max().unwrap() as f32 + 1.0,
            different.iter().map(|k| k / 64).max().unwrap() as f32 + 1.0,
        );
        let pixels_of = |t: &SampleTarget| t.xywh.scale(64.0, 64.0).to_xyxy();
        assert!(own.iter().all(|t| pixels_of(t).intersection(extent) == 0.0));
        assert!(targets.len() > own.len(), "without objects nothing is cut");
    }
    assert!(changed > 5, "only {changed} of 40");
}

#[test]
fn the_last_epochs_are_without_mosaics() {
    let set = outlined(5);
    let open = Augmentation {
        mosaic9: 0.5,
        mixup: 1.0,
        cutmix: 1.0,
        copy_paste: 1.0,
        ..Augmentation::default()
    };
    let closing = Augmentation {
        close_mosaic: 3,
        ..open
    };
    let lone = Augmentation {
        mosaic: 0.0,
        ..Augmentation::default()
    };
    for epoch in 0..u64::from(EPOCHS) {
        let expected = if epoch < 7 { &open } else { &lone };
        assert_eq!(
            seen(&set, &closing, epoch, 0),
            seen(&set, expected, epoch, 0),
            "epoch {epoch}"
        );
    }
    // Longer than the run: never.
    let never = Augmentation {
        close_mosaic: EPOCHS + 5,
        ..open
    };
    assert_eq!(seen(&set, &never, 0, 0), seen(&set, &lone, 0, 0));
}

#[test]
fn the_share_of_nine_is_a_share_of_the_mosaics() {
    let set = TestSet::with_images(30);
    let count = |mosaic, mosaic9| {
        let settings = Augmentation {
            mosaic,
            mosaic9,
            ..NONE
        };
        let source = source(&set, 64, &settings);
        let tiles = (0..200).map(|epoch| canvas(&source, epoch, 0).tiles.len());
        let lone = tiles.clone().filter(|tiles| *tiles == 1).count();
        (lone, tiles.filter(|tiles| *tiles > 4).count())
    };
    assert_eq!(count(1.0, 0.0), (0, 0));
    let (lone, nine) = count(0.5, 1.0);
    assert!((70..130).contains(&lone), "{lone}");
    assert!(nine > 60 && nine <= 200 - lone, "{nine}");
}

/// The own sample does not change by what is done to it later, and each later change is the same
/// whatever else is on.
#[test]
fn turning_one_on_leaves_the_draws_of_the_others() {
    let set = outlined(7);
    let all = everything();
    let switches: [(&str, Change); 8] = [
        ("mixup", |a| a.mixup = 0.0),
        ("cutmix", |a| a.cutmix = 0.0),
        ("copyPaste", |a| a.copy_paste = 0.0),
        ("mosaic9", |a| a.mosaic9 = 0.0),
        ("randomCrop", |a| a.random_crop = 0.0),
        ("cutout", |a| a.cutout = 0.0),
        ("blur", |a| a.blur = 0.0),
        ("mosaic", |a| a.mosaic = 0.0),
    ];
    let drawn = |settings: &Augmentation| {
        let source = source(&set, 64, settings);
        let of = |epoch| {
            let streams = Streams::new(7, epoch, 3, Pool::All(4));
            let mosaics = source.settings.mosaics(epoch);
            let changes = source.draw_changes(streams, &mosaics, true);
            let mut rng = streams.picture(Purpose::Augment, Layer::Own);
            let masks = streams
                .sample_if(settings.cutout, Purpose::Cutout)
                .map(|mut rng| cutout::draw(&mut rng, settings.cutout, (64, 64)));
            let (affine, _, flip) = source.settings.draw(&mut rng);
            (changes, masks, affine, flip)
        };
        (0..20).map(of).collect::<Vec<_>>()
    };
    let reference = drawn(&all);
    for (name, switch) in switches {
        let mut settings = all.clone();
        switch(&mut settings);
        for (a, b) in reference.iter().zip(drawn(&settings)) {
            let same = [
                name == "mixup" || a.0.mix == b.0.mix,
                name == "cutmix" || a.0.cut == b.0.cut,
                name == "randomCrop" || a.0.crop == b.0.crop,
                name == "blur" || a.0.effects == b.0.effects,
                name == "cutout" || a.1 == b.1,
                a.2 == b.2 && a.3 == b.3,
            ];
            assert_eq!(same, [true; 6], "without {name}");
        }
    }
    // The mosaics of four stay where they were when others are laid from nine.
    let four = Augmentation {
        mosaic9: 0.0,
        ..all.clone()
    };
    let (with, without) = (source(&set, 64, &all), source(&set, 64, &four));
    let mut kept = 0;
    for epoch in 0..30 {
        let (a, b) = (canvas(&with, epoch, 0), canvas(&without, epoch, 0));
        if a.labels == b.labels {
            kept += 1;
        }
    }
    assert!((10..30).contains(&kept), "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With everything on at once, boxes are inside of the sample, and every pixel is written.
    #[test]
    fn boxes_stay_inside_whatever_is_on(seed: u64, epoch in 0_u64..1000, images in 1_u64..8, side in prop_oneof![Just(32_u32), Just(64)]) {
        let set = TestSet::with_images(images);
        let mut rng = stream(seed, Purpose::Test, epoch, 0);
        for k in 0..images {
            // Boxes or outlines, also such that touch the edges.
            let mut rows = String::new();
            let polygons = unit(&mut rng) < 0.5;
            for _ in 0..=below(&mut rng, 4) {
                let class = below(&mut rng, 2);
                if polygons {
                    rows += &format!("{class}");
                    for _ in 0..3 + below(&mut rng, 9) {
                        rows += &format!(" {:.4} {:.4}", unit(&mut rng), unit(&mut rng));
                    }
                } else {
                    let (w, h) = (unit(&mut rng).max(0.01), unit(&mut rng).max(0.01));
                    let (x, y) = (w / 2.0 + (1.0 - w) * unit(&mut rng), h / 2.0 + (1.0 - h) * unit(&mut rng));
                    rows += &format!("{class} {x:.5} {y:.5} {w:.5} {h:.5}");
                }
                rows.push('\n');
            }
            set.write(&format!("labels/train/{k:03}.txt"), rows);
        }
        let source = source(&set, side, &everything());
        for index in 0..images as u32 {
            let bytes = crate::source::sample_bytes((side, side));
            let (mut pixels, mut again) = (vec![0; bytes], vec![255; bytes]);
            let sample = source.sample(epoch, index, None, &mut pixels);
            prop_assert_eq!(&source.sample(epoch, index, None, &mut again), &sample);
            prop_assert!(pixels == again, "not every pixel is written, or not always alike");
            prop_assert!(sample.skipped.is_empty());
            for target in &sample.targets {
                let Xyxy { x1, y1, x2, y2 } = target.xywh.to_xyxy();
                prop_assert!(target.class < 2);
                prop_assert!([x1, y1, x2, y2].iter().all(|v| v.is_finite()), "{target:?}");
                prop_assert!(x1 >= -1e-6 && y1 >= -1e-6 && x2 <= 1.0 && y2 <= 1.0, "{target:?}");
                prop_assert!(target.xywh.w > 0.0 && target.xywh.h > 0.0, "{target:?}");
            }
        }
    }
}

/// In a rectangle of its own, an image lies in the middle, and is turned and mirrored as in a square.
#[test]
fn images_lie_in_rectangles() {
    let set = TestSet::new();
    let image = noise(1, (64, 30));
    set.image("images/train/a.png", &image);
    set.write("labels/train/a.txt", "1 0.25 0.5 0.5 0.5");
    let make = |augmentation: &Augmentation| {
        let source = source(&set, 64, augmentation).in_rectangles(vec![(64, 32)]);
        assert_eq!(source.size(0), (64, 32));
        sample(&source, 0, 0)
    };
    let at = |pixels: &[u8], x: usize, y: usize| {
        [0, 1, 2].map(|plane| pixels[(plane * 32 + y) * 64 + x])
    };

    let (pixels, plain) = make(&NONE);
    assert_eq!(at(&pixels, 5, 0), [FILL; 3]);
    assert_eq!(at(&pixels, 5, 31), [FILL; 3]);
    for (x, y, pixel) in image.enumerate_pixels() {
        assert_eq!(at(&pixels, x as usize, y as usize + 1), pixel.0);
    }
    let xywh = plain.targets[0].xywh;
    assert!(
        (xywh.h * 32.0 - 15.0).abs() < 0.01 && (xywh.y - 0.5).abs() < 1e-3,
        "{xywh:?}"
    );

    let (turned, sample) = make(&Augmentation {
        flipud: 1.0,
        fliplr: 1.0,
        ..NONE
    });
    for (y, x) in [(3, 9), (30, 63), (0, 0)] {
        assert_eq!(at(&turned, x, y), at(&pixels, 63 - x, 31 - y));
    }
    assert!((sample.targets[0].xywh.x - 0.75).abs() < 1e-3);
}

/// The same image without a mosaic, see the test of evaluation's samples.
#[test]
fn an_image_that_rounding_makes_too_wide_is_cut() {
    let set = TestSet::new();
    set.image("images/train/a.png", &noise(1, (281, 20)));
    set.write("labels/train/a.txt", "1 0.25 0.5 0.5 0.5");
    let source = source(&set, 160, &NONE);
    assert_eq!(161, source.store().size(0).0);
    let (pixels, sample) = sample(&source, 0, 0);
    assert_eq!(1, sample.targets.len());
    assert!(pixels.iter().any(|v| *v != FILL));
}

/// An image that is drawn more than once is another sample each time.
#[test]
fn each_draw_of_an_image_is_a_sample_of_its_own() {
    let set = TestSet::with_images(7);
    for augmentation in [
        Augmentation::default(),
        Augmentation {
            mosaic: 0.0,
            ..NONE
        },
    ] {
        let source = source(&set, 64, &augmentation);
        let made = |before| {
            let drawn = Drawn {
                images: &[3, 5, 3, 3],
                before,
            };
            let mut pixels = vec![0; crate::source::sample_bytes((64, 64))];
            source.sample(0, 3, Some(drawn), &mut pixels);
            pixels
        };
        let differ = augmentation != NONE;
        assert_eq!(made(1), made(1));
        assert_eq!(differ, made(0) != made(1));
        assert_eq!(differ, made(1) != made(2));
    }
}

/// Where an epoch uses some images only, mosaics and mixtures are made of these.
#[test]
fn other_images_come_from_those_drawn() {
    let set = TestSet::new();
    let colours = [[250, 0, 0], [0, 250, 0], [0, 0, 250]];
    for (k, colour) in colours.into_iter().enumerate() {
        set.image(
            &format!("images/train/{k}.png"),
            &RgbImage::from_pixel(64, 64, Rgb(colour)),
        );
        set.write(&format!("labels/train/{k}.txt"), "0 0.5 0.5 0.5 0.5");
    }
    let augmentation = Augmentation {
        mosaic: 1.0,
        mosaic9: 0.5,
        mixup: 0.5,
        cutmix: 0.5,
        ..NONE
    };
    let source = source(&set, 64, &augmentation);
    let has_blue = |drawn: Option<&[u32]>, epoch| {
        let mut pixels = vec![0; crate::source::sample_bytes((64, 64))];
        let drawn = drawn.map(|images| Drawn { images, before: 0 });
        source.sample(epoch, 0, drawn, &mut pixels);
        let (red, rest) = pixels.split_at(64 * 64);
        let (green, blue) = rest.split_at(64 * 64);
        let grey = red.iter().zip(green).zip(blue);
        grey.into_iter()
            .any(|((r, g), b)| *b > 150 && *r < 100 && *g < 100)
    };
    assert!((0..20).any(|epoch| has_blue(None, epoch)));
    assert!((0..20).all(|epoch| !has_blue(Some(&[0, 1, 1]), epoch)));
}
