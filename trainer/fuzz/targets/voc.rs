//! Pascal VOC's annotations.
#![no_main]

use fuzz::{PICTURE, Scratch, write};
use libfuzzer_sys::fuzz_target;
use trainer_data::{Dataset, Split};

const DATA: &str = "train: images\nval: images\nnames: [cat, dog]\nlabel_format: voc\n";

static SCRATCH: Scratch = Scratch::new();

fuzz_target!(|bytes: &[u8]| {
    let folder = SCRATCH.folder(|folder| {
        write(folder.join("data.yaml"), DATA);
        write(folder.join("images/a.bmp"), PICTURE);
    });
    write(folder.join("Annotations/a.xml"), bytes);
    let _ = Dataset::open(folder, "data.yaml", Split::Train);
});
