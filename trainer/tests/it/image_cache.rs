//! Decoded images in memory, in a file that ranks share, on disk and not at all: the same training.

use image::{ImageFormat, RgbImage};
use serde_json::json;
use trainer_cache::{hand_down, in_memory};
use trainer_data::decode::decode_whole;

use crate::harness::{Fixture, Start};

#[test]
fn where_images_are_kept_changes_no_bit_and_a_restart_finds_them() {
    let training =
        |cache: &str| json!({"training": {"epochs": 2, "evaluateEvery": 1, "cache": cache}});
    let fixture = Fixture::new(&training("none"));
    let ranks = fixture.succeed(&Start::new("none", 2));
    assert!(ranks[0].text.contains("decoded images are not kept"));
    let expected = fixture.tensors("none", 6);

    fixture.write_manifest(&training("disk"));
    let scratch = fixture.path("scratch");
    std::fs::create_dir(&scratch).expect("made");
    let flags = ["--scratch", scratch.to_str().expect("readable")];
    let ranks = fixture.succeed(&Start {
        flags: &flags,
        ..Start::new("disk", 2)
    });
    let text = &ranks[0].text;
    assert!(
        text.contains("kept on disk: 26 of 26 training and 10 of 10 validation images"),
        "{text}"
    );
    assert!(expected == fixture.tensors("disk", 6));
    let left = std::fs::read_dir(&scratch).expect("readable").count();
    assert_eq!(0, left, "files in the scratch folder");

    // As their agent starts ranks, and starts them again.
    fixture.write_manifest(&training("ram"));
    let file = in_memory(1 << 30).expect("a file");
    let cache_fd = Some(hand_down(&file).expect("handed down"));
    let start = |output| Start {
        cache_fd,
        ..Start::new(output, 2)
    };
    let ranks = fixture.succeed(&start("first"));
    let text = &ranks[0].text;
    assert!(
        text.contains("kept in memory, shared by 2 processes: 26 of 26 training"),
        "{text}"
    );
    assert!(expected == fixture.tensors("first", 6));
    for split in ["train", "val"] {
        for entry in std::fs::read_dir(fixture.path("data/images").join(split)).expect("readable") {
            // The header stays whole, the pixels do not.
            let path = entry.expect("entry").path();
            let bytes = std::fs::read(&path).expect("readable");
            std::fs::write(&path, &bytes[..100]).expect("written");
        }
    }
    let ranks = fixture.succeed(&start("again"));
    assert!(
        !ranks[0].text.contains("image skipped"),
        "{}",
        ranks[0].text
    );
    assert!(expected == fixture.tensors("again", 6));
}

/// Makes JPEGs of twice the width and height of all images of a split.
fn enlarge(fixture: &Fixture, split: &str) {
    for entry in std::fs::read_dir(fixture.path("data/images").join(split)).expect("readable") {
        let path = entry.expect("entry").path();
        let image = decode_whole(&path).expect("an image");
        let (width, height) = image.dimensions();
        let large = RgbImage::from_fn(2 * width, 2 * height, |x, y| {
            // So that the nearest pixels are not the mean.
            let mut pixel = *image.get_pixel(x / 2, y / 2);
            pixel.0[0] = pixel.0[0].wrapping_add((31 * x * (y + 7)) as u8);
            pixel
        });
        // The contents count, not the ending.
        large
            .save_with_format(&path, ImageFormat::Jpeg)
            .expect("written");
    }
}

#[test]
fn scaled_decoding_gives_the_same_training_wherever_images_are_kept() {
    let training = |scaled: bool, cache: &str| json!({"training": {"epochs": 1, "evaluateEvery": 1, "cache": cache, "scaledDecoding": scaled}});
    let fixture = Fixture::new(&training(true, "none"));
    for split in ["train", "val"] {
        enlarge(&fixture, split);
    }
    fixture.succeed(&Start::new("none", 2));
    let expected = fixture.tensors("none", 3);

    fixture.write_manifest(&training(true, "ram"));
    let file = in_memory(1 << 30).expect("a file");
    let shared = |output| Start {
        cache_fd: Some(hand_down(&file).expect("handed down")),
        ..Start::new(output, 2)
    };
    fixture.succeed(&shared("shared"));
    assert!(expected == fixture.tensors("shared", 3));

    // What was kept before is not taken for what this run needs.
    fixture.write_manifest(&training(false, "ram"));
    fixture.succeed(&shared("unscaled"));
    let unscaled = fixture.tensors("unscaled", 3);
    assert!(expected != unscaled);
    fixture.write_manifest(&training(false, "none"));
    fixture.succeed(&Start::new("own", 2));
    assert!(unscaled == fixture.tensors("own", 3));
}
