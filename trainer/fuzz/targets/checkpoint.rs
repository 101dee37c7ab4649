//! Checkpoints: the first byte of the input says which of their files the rest of it is.
#![no_main]

use std::fs;

use contract::attempt::Attempt;
use fuzz::{Scratch, write};
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use trainer::checkpoint::{
    CheckpointStore, EMA, FORMAT_VERSION, MANIFEST, MODEL, OPTIMIZER, STATE,
};

const FILES: [&str; 4] = [MODEL, EMA, OPTIMIZER, STATE];
const STEP: u64 = 1;

static SCRATCH: Scratch = Scratch::new();

fuzz_target!(|input: &[u8]| {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    let folder = SCRATCH.folder(|_| ());
    let store = CheckpointStore::new(folder.to_owned(), Attempt::default());
    let path = store.path_of(STEP);
    let tensors = include_bytes!("../seeds/weights/tiny.safetensors");
    let mut files = [&tensors[..]; 4];
    files[3] = include_bytes!("../checkpoint.json");
    let which = usize::from(*which) % (FILES.len() + 1);
    if let Some(file) = files.get_mut(which) {
        *file = bytes;
    }
    let mut entries = serde_json::Map::new();
    for (name, bytes) in FILES.into_iter().zip(files) {
        write(path.join(name), bytes);
        let checksum = blake3::hash(bytes).to_hex().to_string();
        entries.insert(
            name.to_owned(),
            json!({"size": bytes.len(), "blake3": checksum}),
        );
    }
    let manifest = json!({"formatVersion": FORMAT_VERSION, "files": entries}).to_string();
    let is_manifest = which == FILES.len();
    write(
        path.join(MANIFEST),
        if is_manifest {
            bytes
        } else {
            manifest.as_bytes()
        },
    );
    let _ = store.newest_whole();
    let _ = store.prune(1, STEP + 1);
    fs::write(folder.join("last"), bytes).expect("written");
    let _ = store.pointed(trainer::checkpoint::Pointer::Last);
});
