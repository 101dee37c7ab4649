#!/usr/bin/env bash
# Builds libtorch_bridge_cuda.so, the part of the bridge that needs CUDA, without nvcc or a GPU.
#
#   trainer/torch-bridge/build-cuda.sh [OUT]     (default: target/cuda-bridge/libtorch_bridge_cuda.so)
#
# Prints the path. Does nothing when the file is newer than its sources. The library goes beside
# libtorch_cuda.so in a GPU image, or into a folder that TORCH_BRIDGE_CUDA_DIR names; src/cuda.rs tells more.
set -euo pipefail
cd "$(dirname "$0")"
root="$(git rev-parse --show-toplevel 2>/dev/null || echo "$PWD/../..")"
out="${1:-${CARGO_TARGET_DIR:-$root/target}/cuda-bridge/libtorch_bridge_cuda.so}"

environment="$("$root/scripts/libtorch.sh" --env)"
eval "$environment"

sources=(cpp/cuda_bridge.cpp cpp/cuda_bridge.h cpp/cuda-stubs/*.h "$LIBTORCH/build-version" build-cuda.sh)
current=true
for source in "${sources[@]}"; do
    [[ "$out" -nt "$source" ]] || current=false
done

if ! "$current"; then
    echo "build-cuda.sh: compiling $out" >&2
    mkdir -p "$(dirname "$out")"
    # The stubs come after libtorch's and CUDA's own headers: a real header wins where there is one.
    # -z defs: a symbol that libtorch, c10 or cudart does not have fails here and not on a GPU machine.
    # The run path finds libtorch in the same folder.
    # shellcheck disable=SC2016 # $ORIGIN is for the loader.
    "${CXX:-g++}" -std=c++20 -O2 -fPIC -shared -fvisibility=hidden -Wall -Wextra -Werror \
        -D_GLIBCXX_USE_CXX11_ABI=1 -DUSE_DISTRIBUTED -DUSE_C10D_NCCL \
        -isystem "$LIBTORCH/include" -isystem "$LIBTORCH/include/torch/csrc/api/include" \
        -isystem "$LIBTORCH/cuda/include" -isystem cpp/cuda-stubs \
        cpp/cuda_bridge.cpp -o "$out.partial" \
        -L"$LIBTORCH/lib" -L"$LIBTORCH/cuda/lib" \
        -ltorch_cuda -lc10_cuda -ltorch_cpu -lc10 -l:libcudart.so.13 \
        -Wl,-z,defs -Wl,-rpath,'$ORIGIN'
    mv "$out.partial" "$out"
fi

# Exactly the functions that src/cuda.rs looks up, no more and no fewer.
exported="$(nm -D --defined-only "$out" | sed -n 's/^[0-9a-f]* T //p' | sort)"
wanted="$(grep -o '"torch_bridge_cuda_[a-z_]*"' src/cuda.rs | tr -d '"' | sort -u)"
if [[ "$exported" != "$wanted" ]]; then
    echo "build-cuda.sh: the library exports other functions than src/cuda.rs looks up:" >&2
    diff <(echo "$wanted") <(echo "$exported") >&2
    exit 1
fi
echo "$out"
