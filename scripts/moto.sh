#!/usr/bin/env bash
# Puts moto, an S3 server for tests, into an environment of its own, and prints the path of that
# environment's Python.
#
#   "$(scripts/moto.sh)" -m moto.server --host 127.0.0.1 --port 5000
#
# It is only ever run as a program; nothing of it becomes part of this project. Needs Python 3.10 or later
# with pip and about 200 MB of disk. Running it again does nothing.
set -euo pipefail

version=5.2.5
home="${XDG_CACHE_HOME:-$HOME/.cache}/yolo-operator/moto-$version"
partial="$home.partial"

mkdir -p "$(dirname "$home")"
# Tests ask for it at the same time.
exec 9>"$home.lock"
flock 9
if [[ ! -d "$home" ]]; then
    echo "moto.sh: installing moto $version" >&2
    rm -rf "$partial"
    trap 'rm -rf "$partial"' EXIT
    python3 -m venv "$partial"
    "$partial/bin/python" -m pip install --quiet --progress-bar off --no-cache-dir "moto[server]==$version" >&2 ||
        { echo "moto.sh: pip could not install it; is a package index reachable? Run this again." >&2; exit 1; }
    mv "$partial" "$home"
fi
echo "$home/bin/python"
