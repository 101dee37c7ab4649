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
