use super::*;
use crate::dataset::Split;
use crate::testing::TestSet;

#[test]
fn the_cache_changes_nothing_and_keeps_its_limit() {
    let set = TestSet::with_images(6);
    let data = set.open(Split::Train);
    let all = data.decoded_bytes(64);
    let store = |bytes| ImageStore::new(Arc::clone(&data), 64, Sizing::Train, bytes);
    let (none, half, whole) = (store(0), store(all / 2), store(all));
    for _ in 0..2 {
        for k in 0..6 {
            let [a, b, c] = [&none, &half, &whole].map(|s| s.load(k).pixels);
            assert!(a == b && b == c, "image {k}");
            assert_eq!(a.width().max(a.height()), 64);
        }
    }
    assert_eq!(none.cached_bytes(), 0);
    assert!(half.cached_bytes() > 0 && half.cached_bytes() <= all / 2);
    assert_eq!(whole.cached_bytes(), all);
    assert!(Arc::ptr_eq(&whole.load(0).pixels, &whole.load(0).pixels));
}

#[test]
fn files_that_break_later_become_grey() {
    let set = TestSet::with_images(2);
    let data = set.open(Split::Train);
    // The header stays whole, the pixels do not.
    let path = data.image(0).unwrap().path.clone();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let store = ImageStore::new(data, 64, Sizing::Evaluate, 1 << 20);
    let loaded = store.load(0);
    let skipped = loaded.record.unwrap_err();
    assert_eq!(skipped.name, "images/train/000.png");
    assert!(
        skipped.reason.starts_with("the image cannot be decoded: "),
        "{skipped}"
    );
    assert_eq!(loaded.pixels.dimensions(), (64, 64));
    assert!(loaded.pixels.iter().all(|v| *v == FILL));
    std::fs::remove_file(&path).unwrap();
    assert!(
        store
            .load(0)
            .record
            .unwrap_err()
            .reason
            .contains("cannot be read: ")
    );
    assert!(store.load(1).record.is_ok());
    assert!(
        store
            .load(9)
            .record
            .unwrap_err()
            .to_string()
            .contains("number 9: the data set has 2")
    );
}

#[test]
fn shrinking_averages_for_evaluation_only() {
    let set = TestSet::new();
    // Black and white columns, one pixel wide.
    let stripes = RgbImage::from_fn(400, 400, |x, _| Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]));
    set.image("images/train/a.png", &stripes);
    set.write("labels/train/a.txt", "0 0.5 0.5 1 1");
    let load = |sizing| {
        ImageStore::new(set.open(Split::Train), 100, sizing, 0)
            .load(0)
            .pixels
    };
    assert!(
        load(Sizing::Evaluate)
            .iter()
            .all(|v| (127..=128).contains(v))
    );
    let enlarged = ImageStore::new(set.open(Split::Train), 800, Sizing::Evaluate, 0)
        .load(0)
        .pixels;
    assert_eq!(enlarged.dimensions(), (800, 800));
    assert!(enlarged.contains(&255) && enlarged.contains(&0));
}

/// Two ranks, one file in memory and one on disk: pixels are those of a store without a cache, from both and with
/// several threads, and once one of them has decoded an image neither looks at its file again.
#[test]
fn a_shared_file_changes_nothing_and_is_filled_once() {
    let on_disk = |length| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        file
    };
    for in_memory in [true, false] {
        let set = TestSet::with_images(6);
        let data = set.open(Split::Train);
        let sizes: Vec<u64> = data.decoded_sizes(64).collect();
        // Of six images the last one has no place. Before the first one are 62 bytes.
        let length = 62 + sizes[..5].iter().sum::<u64>();
        let file = if in_memory {
            trainer_cache::in_memory(length).unwrap()
        } else {
            on_disk(length)
        };
        let rank = || {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let file = std::fs::File::options().read(true).write(true).open(path);
            // As a validation split lies behind two training images.
            let sizes = [7, 7].into_iter().chain(sizes.iter().copied());
            let file = CacheFile::open(file.unwrap(), &[1; 32], sizes).unwrap();
            ImageStore::shared(Arc::clone(&data), 64, Sizing::Train, Arc::new(file), 2)
        };
        let (one, two) = (rank(), rank());
        let plain = ImageStore::new(Arc::clone(&data), 64, Sizing::Train, 0);
        let whole: Vec<_> = (0..6).map(|k| plain.load(k).pixels).collect();
        std::thread::scope(|scope| {
            for store in [&one, &two, &one, &two] {
                scope.spawn(|| {
                    for (k, expected) in (0..).zip(&whole) {
                        assert!(*expected == store.load(k).pixels, "image {k}");
                        let rows = store.load_rows(k, 9).pixels;
                        let length = 9 * 3 * rows.width() as usize;
                        assert_eq!(expected.as_raw()[..length], rows.as_raw()[..length]);
                    }
                });
            }
        });
        std::fs::remove_dir_all(set.root().join("images")).unwrap();
        for store in [one, two, rank()] {
            for k in 0..5 {
                assert!(whole[k as usize] == store.load(k).pixels, "image {k}");
            }
            assert!(store.load(5).record.is_err());
        }
    }
}

#[test]
fn scaled_decoding_changes_pixels_but_no_size_no_box_and_no_cache() {
    let set = TestSet::new();
    for k in 0..4 {
        let size = [(200, 150), (131, 300), (263, 263), (90, 127)][k as usize];
        let image = crate::testing::noise(k, size);
        set.image(&format!("images/train/{k}.jpg"), &image);
        set.write(&format!("labels/train/{k}.txt"), "1 0.4 0.5 0.5 0.6\n");
    }
    let data = set.open(Split::Train);
    let store = |sizing, bytes| ImageStore::new(Arc::clone(&data), 64, sizing, bytes);
    let file = trainer_cache::in_memory(1 << 20).unwrap();
    let file = CacheFile::open(file, &[1; 32], data.decoded_sizes(64)).unwrap();
    let file = Arc::new(file);
    let shared = ImageStore::shared(Arc::clone(&data), 64, Sizing::TrainScaled, file, 0);
    let (plain, scaled) = (store(Sizing::Train, 0), store(Sizing::TrainScaled, 0));
    let own = store(Sizing::TrainScaled, 1 << 20);
    for _ in 0..2 {
        for k in 0..4 {
            let [plain, scaled, own, shared] =
                [&plain, &scaled, &own, &shared].map(|store| store.load(k).pixels);
            assert!(scaled == own && scaled == shared, "image {k}");
            assert_eq!(plain.dimensions(), scaled.dimensions());
            // The last one is less than twice as large.
            assert_eq!(k == 3, plain == scaled, "image {k}");
        }
    }
    assert_eq!(own.cached_bytes(), data.decoded_bytes(64));
    let settings = contract::spec::Augmentation::default();
    let source = |store| crate::TrainSource::new(store, 5, &settings, 100);
    let (plain, scaled) = (source(plain), source(scaled));
    for k in 0..4 {
        let sample = |source: &crate::TrainSource| {
            let mut pixels = vec![0; 3 * 64 * 64];
            let sample = crate::SampleSource::sample(source, 0, k, None, &mut pixels);
            (sample, pixels)
        };
        let (plain, scaled) = (sample(&plain), sample(&scaled));
        assert!(!plain.0.targets.is_empty() && plain.0 == scaled.0);
        assert!(plain.1 != scaled.1, "sample {k}");
    }
}
