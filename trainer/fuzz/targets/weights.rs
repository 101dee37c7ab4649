//! Files of weights as they lie on a disk: `.pt`, `TorchScript`, safetensors.
#![no_main]

use fuzz as _; // its allocator
use libfuzzer_sys::fuzz_target;
use trainer_formats::WeightsFile;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut file) = WeightsFile::of_bytes(bytes.to_vec()) {
        let _ = file.note("yolo-operator");
        let _ = file.load(|_| true);
    }
});
