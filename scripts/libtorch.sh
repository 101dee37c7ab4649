#!/usr/bin/env bash
# Puts libtorch where the trainer's build finds it, from wheels on PyPI.
#
#   scripts/libtorch.sh          fetch what is missing, then print the environment to set
#   scripts/libtorch.sh --env    the same without progress when nothing is missing
#
# Typical use:  eval "$(scripts/libtorch.sh --env)" && cargo build -p trainer
#
# Standard output carries only `export` lines, so both forms can be given to `eval`; progress goes to
# standard error. Needs bash, python3 with pip, flock, and about 2.5 GB of disk while it runs (1 GB
# afterwards). Running it again does nothing, running it twice at once is safe, and after a kill it
# goes on with the wheels that had arrived.
#
# What ends up in ${XDG_CACHE_HOME:-~/.cache}/yolo-operator/libtorch-2.11.0:
#
#   include/    headers of ATen, c10 and c10d
#   lib/        everything a CPU program needs at run time, and nothing that mentions CUDA's larger
#               libraries. torch-sys links libtorch_cuda as soon as that file lies here, so it must not.
#   cuda/       what scripts of this repository need to build the CUDA bridge without nvcc: headers and
#               libtorch's own CUDA libraries. NVIDIA's (cuDNN, cuBLAS, NCCL, ...) belong to the GPU image.
set -euo pipefail

VERSION=2.11.0
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/yolo-operator"
HOME_DIR="$CACHE/libtorch-$VERSION"
# Everything unfinished lives here; HOME_DIR appears only by a rename of a finished tree.
PARTIAL="$HOME_DIR.partial"

# Pinned by hash. The torch wheel's own requirements are left out on purpose: they are 2.7 GB of CUDA
# libraries. cupti and cudart are linked by libtorch_cpu.so itself; crt and cccl hold headers that
# CUDA's runtime headers include and that no other wheel brings; of nccl only nccl.h is kept.
REQUIREMENTS='
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649
nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
'

say() { echo "libtorch.sh: $*" >&2; }
fail() { say "$*"; exit 1; }

print_env() {
    printf 'export LIBTORCH=%q\n' "$HOME_DIR"
    # Left for the shell that evaluates this to expand, so that its own value is kept behind ours.
    # shellcheck disable=SC2016
    printf 'export LD_LIBRARY_PATH=%q${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\n' "$HOME_DIR/lib"
}

download() {
    local line name wheels="$PARTIAL/wheels"
    mkdir -p "$wheels"
    while read -r line; do
        [[ -n "$line" ]] || continue
        name="${line%% *}"
        # An empty marker per finished wheel: pip would otherwise ask the index again for each.
        if [[ -e "$wheels/$name.done" ]]; then
            say "$name is here already"
            continue
        fi
        say "downloading $name"
        echo "$line" >"$wheels/requirement.txt"
        # Platform and Python are fixed, so that the hashes hold whatever python3 is on this machine.
        python3 -m pip download --quiet --progress-bar off --no-deps --no-cache-dir --only-binary=:all: \
            --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
            --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_18_x86_64 \
            --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
            --require-hashes --dest "$wheels" -r "$wheels/requirement.txt" >&2 ||
            fail "pip could not download $name; is a package index reachable? Run this again to go on."
        : >"$wheels/$name.done"
    done <<<"$REQUIREMENTS"
}

extract() {
    say "extracting"
    rm -rf "$PARTIAL/tree"
    python3 - "$PARTIAL/wheels" "$PARTIAL/tree" <<'PYTHON'
import pathlib, shutil, sys, zipfile

wheels, tree = map(pathlib.Path, sys.argv[1:])
CUDA_LIBRARIES = ["libtorch_cuda", "libc10_cuda", "libtorch_nvshmem", "libtorch_cuda_linalg", "libcaffe2_nvrtc"]
CU13 = "nvidia/cu13/"

def extract(wheel, rules):
    """Copies members: a rule maps a member's name, or its folder when it ends in '/', to a place."""
    [path] = wheels.glob(wheel + "-*.whl")
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            for source, target in rules.items():
                if member.endswith("/"):
                    continue
                if member == source:
                    place = tree / target
                elif source.endswith("/") and member.startswith(source):
                    place = tree / target / member[len(source):]
                else:
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as data, open(place, "wb") as file:
                    shutil.copyfileobj(data, file, 1 << 20)

extract("torch", {
    "torch/include/": "include/",
    **{f"torch/lib/{name}": f"lib/{name}" for name in ["libtorch_cpu.so", "libc10.so", "libgomp.so.1"]},
    **{f"torch/lib/{name}.so": f"cuda/lib/{name}.so" for name in CUDA_LIBRARIES},
})
extract("nvidia_cuda_cupti", {CU13 + "lib/libcupti.so.13": "lib/libcupti.so.13"})
extract("nvidia_cuda_runtime", {
    CU13 + "lib/libcudart.so.13": "lib/libcudart.so.13",
    CU13 + "include/": "cuda/include/",
})
extract("nvidia_cuda_crt", {CU13 + "include/": "cuda/include/"})
extract("nvidia_cuda_cccl", {CU13 + "include/": "cuda/include/"})
extract("nvidia_nccl_cu13", {"nvidia/nccl/include/nccl.h": "cuda/include/nccl.h"})

# torch-sys links -ltorch and -lgomp. The wheel's libtorch.so contains no code and pulls in
# libtorch_cuda.so; a linker script in its place satisfies the linker and adds nothing at run time.
(tree / "lib/libtorch.so").write_text("/* Stands in for the wheel's libtorch.so, which only pulls in libtorch_cuda.so. */\n"
                                      "INPUT(-ltorch_cpu -lc10)\n")
(tree / "lib/libgomp.so").symlink_to("libgomp.so.1")
# torch-sys compares this file with the version it was written for.
(tree / "build-version").write_text("2.11.0+cu130\n")
PYTHON
    local file
    for file in include/ATen/ATen.h lib/libtorch_cpu.so lib/libc10.so lib/libgomp.so.1 lib/libcupti.so.13 \
        lib/libcudart.so.13 cuda/lib/libtorch_cuda.so cuda/lib/libc10_cuda.so cuda/include/cuda_runtime_api.h \
        cuda/include/crt/host_config.h cuda/include/nv/target cuda/include/nccl.h; do
        [[ -e "$PARTIAL/tree/$file" ]] || fail "$file is missing after extraction; delete $PARTIAL and run this again"
    done
}

fetch() {
    [[ "$(uname -sm)" == "Linux x86_64" ]] || fail "only Linux on x86_64 is supported, this is $(uname -sm)"
    python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed to download wheels"
    mkdir -p "$CACHE"
    exec 9>"$HOME_DIR.lock"
    flock -n 9 || { say "waiting for another run to finish"; flock 9; }
    # The other run may have done it all.
    [[ -e "$HOME_DIR" ]] && return
    download
    extract
    mv -T "$PARTIAL/tree" "$HOME_DIR"
    rm -rf "$PARTIAL"
    say "ready in $HOME_DIR ($(du -sh "$HOME_DIR" | cut -f1), of which lib/ $(du -sh "$HOME_DIR/lib" | cut -f1))"
}

case "${1:-}" in
"") [[ -e "$HOME_DIR" ]] && say "libtorch $VERSION is in $HOME_DIR" ;;
--env) ;;
-h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;;
*) fail "unknown argument '$1'; see --help" ;;
esac
[[ -e "$HOME_DIR" ]] || fetch
print_env
