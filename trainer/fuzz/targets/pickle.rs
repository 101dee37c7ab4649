//! Pickles inside of PyTorch's container, with and without code beside them.
#![no_main]

use fuzz as _; // its allocator
use libfuzzer_sys::fuzz_target;
use trainer_formats::{ArchiveEntry, WeightsFile, write_archive};

fuzz_target!(|bytes: &[u8]| {
    let entry = |name: &str, bytes| ArchiveEntry {
        name: name.to_owned(),
        bytes,
    };
    let numbers = [0; 64];
    let mut entries = vec![
        entry("data.pkl", bytes),
        entry("data/0", &numbers[..]),
        entry("data/1", &numbers[..8]),
    ];
    for _ in 0..2 {
        let archive = write_archive("archive", &entries).expect("a container");
        if let Ok(mut file) = WeightsFile::of_bytes(archive) {
            let _ = file.load(|_| true);
        }
        // As `TorchScript`.
        entries.push(entry("code/__torch__.py", &[]));
    }
});
