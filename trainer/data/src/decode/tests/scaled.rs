//! JPEGs decoded at a part of their size.

use super::*;
use mozjpeg::{ColorSpace, Compress, Marker};
use std::f64::consts::TAU;
use std::io::Write;
use tempfile::NamedTempFile;

/// Waves of 160 pixels: a shift by one pixel changes values by 2.5 on average.
fn waves(width: u32, height: u32) -> RgbImage {
    let wave = |place: f64| (127.0 + 100.0 * (place * TAU / 160.0).sin()) as u8;
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        Rgb([wave(x), wave(y), wave(x + y)])
    })
}

/// A JPEG with so many pixels for each one of colour, in both directions.
fn jpeg_file(image: &RgbImage, colour: u8, orientation: u8) -> NamedTempFile {
    let mut encoder = Compress::new(ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(image.width() as usize, image.height() as usize);
    encoder.set_quality(95.0);
    encoder.set_chroma_sampling_pixel_sizes((colour, colour), (colour, colour));
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    let exif = [
        &b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..],
        &[orientation, 0, 0, 0, 0, 0, 0, 0],
    ];
    encoder.write_marker(Marker::APP(1), &exif.concat());
    encoder.write_scanlines(image).unwrap();
    file(&encoder.finish().unwrap())
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// The size that libjpeg gives an image of which `least` pixels are enough.
fn decoded_size(bytes: &[u8], least: u32) -> (u32, u32) {
    let photograph = jpeg::decode(bytes, least, |height| height);
    photograph.unwrap().unwrap().image.dimensions()
}

fn mean_difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a
        .iter()
        .zip(b.iter())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len() as f64
}

#[test]
fn the_smallest_scale_that_is_enough_is_taken() {
    let own = (333, 250);
    let bytes = std::fs::read(jpeg_file(&waves(own.0, own.1), 2, 1).path()).unwrap();
    for (least, size) in [
        (jpeg::OWN_SIZE, own),
        (333, own),
        // Half of 333 is less than 167.
        (167, own),
        (166, (167, 125)),
        (84, (167, 125)),
        (83, (84, 63)),
        (42, (84, 63)),
        (41, (42, 32)),
        (1, (42, 32)),
    ] {
        assert_eq!(size, decoded_size(&bytes, least), "{least}");
    }
    let bytes = std::fs::read(jpeg_file(&waves(128, 320), 2, 1).path()).unwrap();
    assert_eq!((64, 160), decoded_size(&bytes, 160));
    assert_eq!((128, 320), decoded_size(&bytes, 161));
}

/// Also when sizes do not divide and the image is turned: what libjpeg adds to fill a pixel lies on other sides then.
#[test]
fn pixels_are_nearly_the_means() {
    for colour in [1, 2] {
        for orientation in 1..=8 {
            let path = jpeg_file(&waves(333, 251), colour, orientation);
            for long in [166, 130, 83, 70, 41, 30] {
                let short = (251.0 * f64::from(long) / 333.0).ceil() as u32;
                let size = if orientation > 4 {
                    (short, long)
                } else {
                    (long, short)
                };
                let scaled = decode(path.path(), size, Shrink::Scaled).unwrap();
                let means = decode(path.path(), size, Shrink::Area).unwrap();
                let difference = mean_difference(&scaled, &means);
                assert!(
                    difference < 1.0,
                    "{colour} {orientation} {size:?}: {difference}"
                );
            }
        }
    }
}

#[test]
fn what_is_not_twice_as_large_or_no_jpeg_stays_the_same() {
    let same = |path: &Path, size: (u32, u32)| {
        let [scaled, whole] =
            [Shrink::Scaled, Shrink::Bilinear].map(|shrink| decode(path, size, shrink).unwrap());
        assert_eq!(size, scaled.dimensions());
        scaled == whole
    };
    let small = jpeg_file(&waves(319, 240), 2, 1);
    assert!(same(small.path(), (160, 121)));
    assert!(same(small.path(), (640, 482)));
    assert!(!same(small.path(), (159, 120)));
    let png = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
    waves(320, 240).save(png.path()).unwrap();
    assert!(same(png.path(), (80, 60)));
    // Not for libjpeg.
    let mut inks = Compress::new(ColorSpace::JCS_CMYK);
    inks.set_size(64, 64);
    let mut inks = inks.start_compress(Vec::new()).unwrap();
    inks.write_scanlines(&[90; 4 * 64 * 64]).unwrap();
    assert!(same(file(&inks.finish().unwrap()).path(), (16, 16)));
}

#[test]
fn grey_is_scaled_too() {
    let mut encoder = Compress::new(ColorSpace::JCS_GRAYSCALE);
    encoder.set_size(333, 251);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    let grey: Vec<u8> = waves(333, 251).pixels().map(|p| p.0[2]).collect();
    encoder.write_scanlines(&grey).unwrap();
    let bytes = encoder.finish().unwrap();
    assert_eq!((167, 126), decoded_size(&bytes, 130));
    let path = file(&bytes);
    let [scaled, means] = [Shrink::Scaled, Shrink::Area]
        .map(|shrink| decode(path.path(), (130, 98), shrink).unwrap());
    let difference = mean_difference(&scaled, &means);
    assert!(difference < 1.0, "{difference}");
    assert!(
        scaled
            .pixels()
            .all(|p| p.0[0] == p.0[1] && p.0[1] == p.0[2])
    );
}

#[test]
fn the_first_rows_alone_are_those_of_the_whole_image() {
    for name in [
        "tall-444.jpg",
        "tall-422.jpg",
        "tall-420.jpg",
        "tall-420-restarts.jpg",
    ] {
        for size in [(20, 100), (18, 90), (10, 50), (9, 43), (5, 25), (4, 20)] {
            for rows in 1..size.1 {
                same_rows(name, size, Shrink::Scaled, rows);
            }
        }
        // Something was left out, or this would test nothing.
        for (size, rows) in [((20, 100), 70), ((18, 90), 60), ((5, 25), 18)] {
            assert!(
                !same_rows(name, size, Shrink::Scaled, rows),
                "{name} {size:?}"
            );
        }
    }
    assert!(!same_rows(
        "tall-420-progressive.jpg",
        (20, 100),
        Shrink::Scaled,
        7
    ));
    assert!(same_rows("tall-turned.jpg", (20, 100), Shrink::Scaled, 7));
}

#[test]
fn a_file_that_ends_too_early_is_refused() {
    let decode = |bytes: &[u8], least| jpeg::decode(bytes, least, |height| height);
    for name in [
        "tall-420.jpg",
        "tall-420-restarts.jpg",
        "tall-444.jpg",
        "tall-turned.jpg",
    ] {
        let bytes = std::fs::read(testdata(name)).unwrap();
        for least in [100, 50, 25] {
            let whole = decode(&bytes, least).unwrap().unwrap();
            assert_eq!(least, whole.image.height());
            let without_last_marker = &bytes[..bytes.len() - 2];
            assert_eq!(Some(whole), decode(without_last_marker, least).unwrap());
            for length in 0..bytes.len() - 32 {
                let torn = decode(&bytes[..length], least);
                assert!(!matches!(torn, Ok(Some(_))), "{name} {length}");
            }
            let half = decode(&bytes[..bytes.len() / 2], least);
            assert!(matches!(half, Err(DecodeError::Torn)));
        }
    }
}
