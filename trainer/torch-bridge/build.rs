//! Compiles the C++ half of the bridge against the libtorch that torch-sys uses.
#![allow(
    clippy::print_stdout,
    reason = "a build script talks to cargo by printing"
)]

use std::env;
use std::path::{Path, PathBuf};

/// Folder that `LIBTORCH` names, checked for what this crate needs.
fn libtorch() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let get_it = "Run `eval \"$(scripts/libtorch.sh --env)\"` at the repository's root: it fetches libtorch 2.11.0 \
                  and sets LIBTORCH.";
    let Some(root) = env::var_os("LIBTORCH").map(PathBuf::from) else {
        return Err(format!(
            "LIBTORCH is not set, so there is no libtorch to build against. {get_it}"
        ));
    };
    for file in [
        "include/torch/csrc/distributed/c10d/reducer.hpp",
        "lib/libtorch_cpu.so",
        "lib/libc10.so",
    ] {
        let path = root.join(file);
        if !path.exists() {
            return Err(format!(
                "LIBTORCH is {}, but {} does not exist. {get_it}",
                root.display(),
                path.display()
            ));
        }
    }
    Ok(root)
}

fn main() {
    let root = match libtorch() {
        Ok(root) => root,
        // Cargo prints this and fails the build.
        Err(problem) => return println!("cargo::error={problem}"),
    };
    let lib = root.join("lib");

    let mut build = cxx_build::bridge("src/ffi.rs");
    build
        .files([
            "cpp/distributed.cpp",
            "cpp/norm_silu.cpp",
            "cpp/pick.cpp",
            "cpp/sync_norm.cpp",
            "cpp/tensor_ops.cpp",
        ])
        .std("c++20")
        // Without it `at::parallel_for` is a plain loop, and says nothing.
        .flag("-fopenmp")
        // Glue gains nothing from optimisation, and these units take most of this crate's build time.
        .opt_level(1)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_DISTRIBUTED", None)
        .define("USE_C10D_GLOO", None)
        .include("cpp/gloo-stubs");
    // As system headers, so that libtorch's own warnings stay out of our build.
    for folder in ["include", "include/torch/csrc/api/include"] {
        build.flag(format!("-isystem{}", root.join(folder).display()));
    }
    build.compile("torch-bridge");
    compile_kernels();

    for folder in ["cpp", "src/ffi.rs"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    println!("cargo::rustc-link-search=native={}", lib.display());
    // torch-sys links these too; named here because this crate calls them itself.
    for library in ["torch_cpu", "c10", "gomp"] {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    link_test_programs(&lib);
    // Read by dependants as DEP_TORCH_BRIDGE_LIBTORCH_LIB, for the run path of their programs.
    println!("cargo::metadata=libtorch_lib={}", lib.display());
}

/// Arithmetic: names no libtorch header, builds in seconds, and is worth the optimiser's work; once for each instruction
/// set.
fn compile_kernels() {
    let build = || {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++20")
            .opt_level(3)
            .flag_if_supported("-Wno-psabi");
        build
    };
    let x86: &[_] = &[("avx2", "-march=x86-64-v3"), ("avx512", "-march=x86-64-v4")];
    let x86 = match env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("x86_64") => x86,
        _ => &[],
    };
    build()
        .file("cpp/norm_silu_machines.cpp")
        .compile("torch-bridge-machines");
    for (name, flag) in [("plain", "")].iter().chain(x86) {
        let mut build = build();
        build
            .file("cpp/norm_silu_kernels.cpp")
            .define("MACHINE", *name);
        if !flag.is_empty() {
            build.flag(flag);
        }
        build.compile(&format!("torch-bridge-{name}"));
    }
}

/// This crate's own test programs find libtorch without `LD_LIBRARY_PATH`.
fn link_test_programs(lib: &Path) {
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
