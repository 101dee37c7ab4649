//! Data files, and the data set that they describe.
#![no_main]

use fuzz::{PICTURE, Scratch, write};
use libfuzzer_sys::fuzz_target;
use trainer_data::{Dataset, Split};

static SCRATCH: Scratch = Scratch::new();

fuzz_target!(|text: &str| {
    let folder = SCRATCH.folder(|folder| {
        write(folder.join("images/a.bmp"), PICTURE);
        write(folder.join("labels/a.txt"), "0 0.5 0.5 0.5 0.5\n");
        write(folder.join("list.txt"), "./images/a.bmp\n");
        write(folder.join("loop.txt"), "./loop.txt\n");
    });
    write(folder.join("data.yaml"), text);
    for split in [Split::Train, Split::Val, Split::Test] {
        let _ = Dataset::open(folder, "data.yaml", split);
    }
});
