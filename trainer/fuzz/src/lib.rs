//! What the fuzz targets share. `make fuzz` runs them, see `docs/results/fuzz.md`.
//!
//! A target fails on a panic, on an input that takes longer than its time limit, and on memory: all Rust allocations
//! together may take [`MEMORY`].

use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cap::Cap;
use tempfile::TempDir;

/// Bytes that a target may have allocated at any time: what the largest image that is accepted needs, and some.
const MEMORY: usize = 1 << 30;

/// An allocation beyond the limit fails, which ends the process.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

/// A folder with what a target needs around its input. It is made once and lasts as long as the process.
pub struct Scratch(OnceLock<TempDir>);

impl Scratch {
    /// Not yet made.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// The folder; `fill` is called when it is new.
    pub fn folder(&self, fill: impl FnOnce(&Path)) -> &Path {
        let folder = self.0.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fill(folder.path());
            folder
        });
        folder.path()
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a file of the surroundings, with the folders above it.
pub fn write(path: PathBuf, contents: impl AsRef<[u8]>) {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).expect("folders");
    }
    fs::write(path, contents).expect("written");
}

/// A picture of 12 x 10 pixels, the smallest that data sets may have.
pub const PICTURE: &[u8] = include_bytes!("../seeds/image/grey.bmp");
