#!/usr/bin/env bash
# Adds to a folder what the trainer needs to use NVIDIA GPUs: libtorch's CUDA libraries, NVIDIA's (cuDNN,
# cuBLAS, NCCL, ...: about 4 GB) and our bridge to them. The driver's own come from the node.
#
#   scripts/libtorch-cuda.sh OUT
#
# The versions are those that the torch wheel itself names. Downloads stay in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

out="$(realpath "${1:?output folder}")"
version=2.11.0
cache="${XDG_CACHE_HOME:-$HOME/.cache}/yolo-operator/libtorch-cuda-$version"

if [[ ! -d "$cache" ]]; then
    partial="$cache.partial"
    mkdir -p "$partial"
    echo "libtorch-cuda.sh: fetching torch $version with its NVIDIA libraries, several gigabytes" >&2
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --no-compile --upgrade --target "$partial/site" "torch==$version" >&2
    mkdir -p "$partial/lib"
    mv "$partial"/site/torch/lib/{libtorch_cuda*,libtorch_nvshmem*,libc10_cuda*,libcaffe2_nvrtc*}.so "$partial/lib/"
    find "$partial/site/nvidia" -path '*/lib/*.so*' -type f -exec mv {} "$partial/lib/" ';'
    rm -rf "$partial/site"
    mv "$partial" "$cache"
fi
cp -a "$cache"/lib/*.so* "$out/"
trainer/torch-bridge/build-cuda.sh "$out/libtorch_bridge_cuda.so" >/dev/null
