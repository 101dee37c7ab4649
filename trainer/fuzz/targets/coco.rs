//! COCO's annotations.
#![no_main]

use fuzz::{PICTURE, Scratch, write};
use libfuzzer_sys::fuzz_target;
use trainer_data::{Dataset, Split};

const DATA: &str = "\
train: {annotations: a.json, images: images}
val: {annotations: a.json, images: images}
names: [cat, dog]
";

static SCRATCH: Scratch = Scratch::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = SCRATCH.folder(|folder| {
        write(folder.join("data.yaml"), DATA);
        write(folder.join("images/a.bmp"), PICTURE);
    });
    write(folder.join("a.json"), bytes);
    let _ = Dataset::open(folder, "data.yaml", Split::Train);
});
