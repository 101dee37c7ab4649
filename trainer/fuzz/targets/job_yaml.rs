//! Manifests of jobs that run without Kubernetes.
#![no_main]

use fuzz as _; // its allocator
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = trainer::manifest::parse(text);
});
