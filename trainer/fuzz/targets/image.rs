//! Images: their headers, as a data set reads them, and their pixels.
#![no_main]

use fuzz::{Scratch, write};
use libfuzzer_sys::fuzz_target;
use trainer_data::decode::{Shrink, decode, decode_whole};
use trainer_data::{Dataset, Split};

static SCRATCH: Scratch = Scratch::new();

fuzz_target!(
    // Decoders that panic are caught and reported as damage to the file, so only panics that nobody catches count.
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| {
        let folder = SCRATCH.folder(|folder| {
            write(
                folder.join("data.yaml"),
                "train: images\nval: images\nnames: [a]\n",
            );
        });
        let path = folder.join("images/a.jpg");
        write(path.clone(), bytes);
        let dataset = Dataset::open(folder, "data.yaml", Split::Train);
        let decoded = decode_whole(&path);
        if let Ok(scaled) = decode(&path, (9, 7), Shrink::Scaled) {
            assert_eq!((9, 7), scaled.dimensions());
        }
        if let (Ok(dataset), Ok(image)) = (dataset, decoded) {
            assert_eq!(
                dataset.images()[0].size,
                image.dimensions(),
                "the header promises another size"
            );
        }
    }
);
