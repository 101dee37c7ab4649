use super::*;
use crate::testing::noise;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The short way gives the bytes of the long way, and leaves all but whole colour JPEGs to it.
#[test]
fn photographs_are_decoded_as_by_the_image_crate() {
    let picture = noise(1, (37, 21));
    let jpeg = |image: DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    };
    let bytes = jpeg(DynamicImage::ImageRgb8(picture.clone()));
    let expected = image::load_from_memory(&bytes).unwrap().into_rgb8();
    let (decoded, orientation) = decode_photograph(&bytes).unwrap();
    assert_eq!(decoded, expected);
    assert_eq!(orientation, Orientation::NoTransforms);
    let grey = jpeg(DynamicImage::ImageRgb8(picture).into_luma8().into());
    assert_eq!(decode_photograph(&grey), None);
    assert_eq!(decode_bytes(&grey).unwrap().dimensions(), (37, 21));
    assert_eq!(decode_photograph(&bytes[..30]), None);
    assert!(matches!(
        decode_bytes(&bytes[..30]),
        Err(DecodeError::Decode(_))
    ));
}

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
    assert_eq!(expected.len(), 10);
    for (name, pixels) in expected {
        let decoded = decode_whole(&testdata(&name)).unwrap();
        assert_eq!(decoded.dimensions(), (5, 3), "{name}");
        assert_eq!(decoded.into_raw(), pixels, "{name}");
    }
}

#[test]
fn the_first_rows_alone_are_those_of_the_whole_image() {
    let same = |name: &str, size: (u32, u32), rows: u32| {
        let path = testdata(name);
        let whole = decode(&path, size, Shrink::Bilinear).unwrap();
        let part = decode_rows(&path, size, Shrink::Bilinear, rows).unwrap();
        let bytes = 3 * (size.0 * rows.min(size.1)) as usize;
        let (first, expected) = (&part.as_raw()[..bytes], &whole.as_raw()[..bytes]);
        assert!(first == expected, "{name} {size:?} {rows}");
        part == whole
    };
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
    for name in ["tall-420-progressive.jpg", "tall-turned.jpg"] {
        assert!(same(name, (40, 200), 7), "{name}");
    }
}

#[test]
fn only_the_header_of_a_simple_jpeg_can_be_shortened() {
    let read = |name: &str| std::fs::read(testdata(name)).unwrap();
    let bytes = read("tall-420.jpg");
    let frame = jpeg::frame(&bytes).unwrap();
    assert_eq!(bytes[frame.at..frame.at + 4], [0, 200, 0, 40]);
    assert_eq!(frame.block, 16);
    assert_eq!(jpeg::frame(&read("tall-444.jpg")).unwrap().block, 8);
    assert_eq!(jpeg::frame(&read("tall-420-progressive.jpg")), None);
    assert_eq!(jpeg::frame(&read("grey8.png")), None);
    for length in 0..bytes.len() {
        let found = jpeg::frame(&bytes[..length]);
        assert!(found.is_none() || found == Some(frame));
    }
}
