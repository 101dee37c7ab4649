use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

mod scaled;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// Grey, transparent, with palettes, of 1, 8 and 16 bits: `tests/parity/images_testdata.py` made the files,
/// and OpenCV the numbers.
#[test]
fn all_kinds_of_pixels_are_those_that_opencv_reads() {
    let text = std::fs::read_to_string(testdata("opencv.json")).unwrap();
    let expected: BTreeMap<String, Vec<u8>> = serde_json::from_str(&text).unwrap();
    assert_eq!(expected.len(), 18);
    for (name, pixels) in expected {
        let decoded = decode_whole(&testdata(&name)).unwrap();
        let size = match name.as_str() {
            "small-turned.jpg" => (13, 19),
            jpeg if jpeg.starts_with("small-") => (19, 13),
            _ => (5, 3),
        };
        assert_eq!(decoded.dimensions(), size, "{name}");
        assert_eq!(decoded.into_raw(), pixels, "{name}");
    }
}

/// libjpeg fills up with grey what a file lacks, and does not say so.
#[test]
fn a_jpeg_that_ends_too_early_is_refused() {
    for name in ["tall-420.jpg", "tall-420-restarts.jpg", "tall-444.jpg"] {
        let bytes = std::fs::read(testdata(name)).unwrap();
        let whole = decode_bytes(&bytes).unwrap();
        let longer = [&bytes[..], &[0; 100]].concat();
        assert_eq!(decode_bytes(&longer).unwrap(), whole, "{name}");
        let without_last_marker = &bytes[..bytes.len() - 2];
        assert_eq!(decode_bytes(without_last_marker).unwrap(), whole, "{name}");
        // Without its last few bytes, only the last blocks are damaged.
        only_torn(&bytes, bytes.len() - 32);
    }
    let progressive = std::fs::read(testdata("tall-420-progressive.jpg")).unwrap();
    only_torn(&progressive, progressive.len() - 2);
}

/// Tears a file before each of its bytes up to `end`.
fn only_torn(bytes: &[u8], end: usize) {
    for length in 0..end {
        assert!(decode_bytes(&bytes[..length]).is_err(), "{length}");
    }
    let half = decode_bytes(&bytes[..end / 2]);
    assert!(matches!(half, Err(DecodeError::Torn)));
}

#[test]
fn the_first_rows_alone_are_those_of_the_whole_image() {
    let same = |name, size, rows| same_rows(name, size, Shrink::Bilinear, rows);
    for name in [
        "tall-444.jpg",
        "tall-422.jpg",
        "tall-420.jpg",
        "tall-420-restarts.jpg",
    ] {
        for size in [(40, 200), (17, 85), (60, 300), (40, 131)] {
            for rows in 1..size.1 {
                same(name, size, rows);
            }
        }
        // Something was left out, or this would test nothing.
        assert!(
            !same(name, (40, 200), 150) && !same(name, (60, 300), 230),
            "{name}"
        );
        assert!(same(name, (40, 200), 200));
    }
    assert!(!same("tall-420-progressive.jpg", (40, 200), 7));
    assert!(same("tall-turned.jpg", (40, 200), 7));
}

/// Asserts that the first rows are right; whether the rest is right too.
fn same_rows(name: &str, size: (u32, u32), shrink: Shrink, rows: u32) -> bool {
    let path = testdata(name);
    let whole = decode(&path, size, shrink).unwrap();
    let part = decode_rows(&path, size, shrink, rows).unwrap();
    let bytes = 3 * (size.0 * rows.min(size.1)) as usize;
    let (first, expected) = (&part.as_raw()[..bytes], &whole.as_raw()[..bytes]);
    assert!(first == expected, "{name} {size:?} {rows}");
    part == whole
}
