use super::scans::Stroke;
use super::*;
use crate::dataset::{Dataset, Split};
use std::collections::{BTreeMap, HashSet};
use trainer_core::rng::Purpose;

fn small() -> DigitsConfig {
    DigitsConfig {
        train: 12,
        val: 5,
        seed: 4,
        ..DigitsConfig::default()
    }
}

fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

fn made(config: &DigitsConfig) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    make_dataset_digits(folder.path(), config, &mut |_| {}).unwrap();
    files(folder.path())
}

#[test]
fn all_scans_are_there() {
    let scans = Scans::load();
    let count = |class| scans.0.iter().filter(|s| s.class == class).count();
    assert_eq!(scans.0.len(), 1797);
    assert_eq!(
        (0..10).map(count).collect::<Vec<_>>(),
        [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    );
    assert!(
        scans
            .0
            .iter()
            .all(|s| s.ink.iter().flatten().all(|v| *v <= 16))
    );
    // The first scan, as the README of the assets shows it.
    assert_eq!(scans.0[0].ink[1], [0, 0, 13, 15, 10, 15, 5, 0]);
}

#[test]
fn training_and_validation_share_no_scan() {
    let scans = Scans::load();
    for seed in 0..3 {
        let (train, val) = scans.split(&mut stream(seed, Purpose::Scenes, 2, 0));
        assert_eq!(train.0.len() + val.0.len(), 1797);
        let seen: HashSet<_> = train.0.iter().collect();
        assert!(val.0.iter().all(|s| !seen.contains(s)));
        assert!((0..10).all(|class| val.0.iter().filter(|s| s.class == class).count() >= 34));
    }
}

#[test]
fn every_scan_can_be_enlarged_to_the_size_asked_for() {
    for (k, scan) in Scans::load().0.iter().enumerate().step_by(3) {
        let side = 20.0 + (k % 34) as f64;
        let stroke = Stroke::new(scan, side).unwrap();
        let long = f64::from(stroke.width.max(stroke.height));
        assert!((long - side).abs() <= 1.5, "scan {k}: {long} for {side}");
        // Tight: each border holds ink.
        let (w, h) = (stroke.width as usize, stroke.height as usize);
        assert_eq!(stroke.cover.len(), w * h);
        let inked =
            |mut cells: Box<dyn Iterator<Item = usize>>| cells.any(|c| stroke.cover[c] >= 0.5);
        assert!(
            inked(Box::new(0..w)) && inked(Box::new((h - 1) * w..h * w)),
            "scan {k}"
        );
        assert!(
            inked(Box::new((0..h).map(move |y| y * w)))
                && inked(Box::new((0..h).map(move |y| y * w + w - 1)))
        );
    }
}

/// On a scene painted without noise or gradient the ink's extent is found again from the pixels.
#[test]
fn boxes_are_the_extent_of_the_ink_in_the_picture() {
    let scans = Scans::load();
    let config = SceneConfig {
        size: 160,
        digits: (2, 7),
        sides: (0.125, 1.0 / 3.0),
    };
    for number in 0..40 {
        let mut rng = stream(9, Purpose::Scenes, 0, number);
        let scene = Scene::paint(&mut rng, &config, &scans);
        assert!((2..=7).contains(&scene.digits.len()));
        for (k, digit) in scene.digits.iter().enumerate() {
            let a = digit.area;
            let long = (a.x2 - a.x1).max(a.y2 - a.y1);
            assert!((19..=55).contains(&long), "{a:?}");
            assert!(a.x1 >= 2 && a.y1 >= 2 && a.x2 <= 158 && a.y2 <= 158);
            for other in &scene.digits[..k] {
                let b = other.area;
                assert!(
                    a.x2 < b.x1 || b.x2 < a.x1 || a.y2 < b.y1 || b.y2 < a.y1,
                    "{a:?} {b:?}"
                );
            }
            // What is brighter (or darker) than the surroundings by half of the ink's contrast.
            let luma = |x: u32, y: u32| {
                let p = scene.image.get_pixel(x, y).0.map(f64::from);
                0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]
            };
            let border: Vec<f64> = (a.x1 - 1..=a.x2)
                .flat_map(|x| [luma(x, a.y1 - 1), luma(x, a.y2)])
                .chain((a.y1 - 1..=a.y2).flat_map(|y| [luma(a.x1 - 1, y), luma(a.x2, y)]))
                .collect();
            let paper = border.iter().sum::<f64>() / border.len() as f64;
            let inside: Vec<f64> = (a.y1..a.y2)
                .flat_map(|y| (a.x1..a.x2).map(move |x| (x, y)))
                .map(|(x, y)| (luma(x, y) - paper).abs())
                .collect();
            let contrast = inside.iter().copied().fold(0.0, f64::max);
            assert!(contrast >= 60.0, "scene {number}: {contrast}");
            assert!(
                border.iter().all(|v| (v - paper).abs() < 0.75 * contrast),
                "scene {number}: ink outside of {a:?}"
            );
            let strong = inside.iter().filter(|v| **v > 0.5 * contrast).count();
            assert!(
                strong * 20 > inside.len(),
                "scene {number}: no ink in {a:?}"
            );
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let first = made(&small());
    assert_eq!(first.len(), 2 * 17 + 1);
    assert!(first == made(&small()));
    let other = made(&DigitsConfig { seed: 5, ..small() });
    let png = Path::new("images/train/000003.png");
    assert_ne!(first[png], other[png]);
    // More scenes leave the first ones as they are.
    let more = made(&DigitsConfig {
        train: 13,
        ..small()
    });
    assert!(first.iter().all(|(name, bytes)| more[name] == *bytes));
}

#[test]
fn the_result_is_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/digits");
    let mut seen = Vec::new();
    let summary = make_dataset_digits(&out, &small(), &mut |p| seen.push(p)).unwrap();
    assert_eq!(
        (seen.len(), seen[16]),
        (
            17,
            DigitsProgress {
                done: 17,
                total: 17
            }
        )
    );
    let train = Dataset::open(&out, "data.yaml", Split::Train).unwrap();
    let val = Dataset::open(&out, "data.yaml", Split::Val).unwrap();
    assert_eq!(
        (train.len(), val.len(), train.names()[7].as_str()),
        (12, 5, "7")
    );
    let objects = train.summary().objects + val.summary().objects;
    assert_eq!((summary.images, summary.objects as usize), (17, objects));
    for image in train.images() {
        for label in image.labelled_boxes() {
            let b = label.xyxy;
            for edge in [b.x1, b.y1, b.x2, b.y2] {
                assert!(
                    (edge - edge.round()).abs() < 1e-3,
                    "{b:?} is not made of whole pixels"
                );
            }
        }
    }
}

#[test]
fn what_exists_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine"), "precious").unwrap();
    let error = make_dataset_digits(folder.path(), &small(), &mut |_| {}).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("is not empty: choose a new folder"),
        "{error}"
    );
    assert_eq!(files(folder.path()).len(), 1);
    let file = make_dataset_digits(&folder.path().join("mine"), &small(), &mut |_| {}).unwrap_err();
    assert!(matches!(file, DigitsError::Write { .. }));
}

#[test]
fn impossible_settings_are_refused() {
    let refused = |change: fn(&mut DigitsConfig)| {
        let mut config = small();
        change(&mut config);
        let folder = tempfile::tempdir().unwrap();
        make_dataset_digits(folder.path(), &config, &mut |_| {})
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused(|c| c.image_size = 63),
        "imageSize is 63: choose 64 to 2048"
    );
    assert_eq!(refused(|c| c.train = 0), "train is 0: choose 1 to 1000000");
    assert_eq!(
        refused(|c| c.min_side = f64::NAN),
        "minSide is NaN: choose 0.05 (8 pixels) to 0.5"
    );
    assert_eq!(
        refused(|c| c.max_side = 0.1),
        "maxSide is 0.1: choose 0.125 (minSide) to 0.5"
    );
    assert_eq!(
        refused(|c| c.max_digits = 14),
        "maxDigits is 14: choose 1 to 13, the digits of minSide that find room"
    );
    assert_eq!(
        refused(|c| c.min_digits = 8),
        "minDigits is 8: choose 1 to 7 (maxDigits)"
    );
}

/// The fullest scenes that are allowed are finished, too.
#[test]
fn full_scenes_end() {
    let config = DigitsConfig {
        train: 3,
        val: 1,
        min_digits: 13,
        max_digits: 13,
        max_side: 0.5,
        ..small()
    };
    let folder = tempfile::tempdir().unwrap();
    let summary = make_dataset_digits(folder.path(), &config, &mut |_| {}).unwrap();
    assert_eq!(summary.objects, 4 * 13);
}
