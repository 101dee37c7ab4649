//! Gives the programs of this crate the run path on which they find libtorch.
#![allow(
    clippy::print_stdout,
    reason = "a build script talks to cargo by printing"
)]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // In an image libtorch lies in `lib/` beside the program's `bin/`.
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,$ORIGIN/../lib");
    // Where torch-bridge found it: for runs from the target folder, tests included.
    if let Ok(folder) = env::var("DEP_TORCH_BRIDGE_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
