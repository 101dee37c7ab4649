#!/usr/bin/env bash
# Puts the Python YOLOv5 that the comparisons run against into an environment of its own, and prints the
# path of that environment's Python.
#
#   python="$(scripts/peer.sh)"
#
# It is only ever run as a program; nothing of it becomes part of this project. Needs Python 3.11 or older
# with pip and about 6 GB of disk. Running it again does nothing.
set -euo pipefail

version=7.0.14
home="${XDG_CACHE_HOME:-$HOME/.cache}/yolo-operator/peer-yolov5-$version-1"
partial="$home.partial"

if [[ ! -d "$home" ]]; then
    echo "peer.sh: installing Python YOLOv5 $version (a download of about 3 GB)" >&2
    rm -rf "$partial"
    python3 -m venv "$partial/venv"
    # Newer versions of these have dropped what 7.0.14 calls.
    printf '%s\n' 'numpy<2' 'pandas<2.3' 'opencv-python<4.12' 'opencv-python-headless<4.12' 'setuptools<81' >"$partial/constraints.txt"
    "$partial/venv/bin/python" -m pip install --quiet --progress-bar off --no-cache-dir -c "$partial/constraints.txt" \
        "yolov5==$version" torch==2.11.0 torchvision==0.26.0 safetensors==0.5.3 onnx onnxruntime setuptools >&2 ||
        { echo "peer.sh: pip could not install it; is a package index reachable? Run this again." >&2; exit 1; }
    # It asks the network for a font called Arial unless one lies in its folder of settings.
    mkdir -p "$partial/settings"
    cp "$partial"/venv/lib/python3*/site-packages/matplotlib/mpl-data/fonts/ttf/DejaVuSans.ttf "$partial/settings/Arial.ttf"
    mv "$partial" "$home"
fi
echo "$home/venv/bin/python"
