//! Label files in YOLO's text format.
#![no_main]

use fuzz as _; // its allocator
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(file) = trainer_core::labels::parse_label_file("labels.txt", text, 3) {
        for label in &file.labels {
            assert!(label.class < 3, "a class that does not exist");
            let sides = label.xywh;
            assert!(
                [sides.x, sides.y, sides.w, sides.h]
                    .iter()
                    .all(|side| (0.0..=1.0).contains(side)),
                "a box outside of its image"
            );
        }
    }
});
