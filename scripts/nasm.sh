#!/usr/bin/env bash
# Sees to the assembler nasm, with which libjpeg decodes twice as fast, and that nothing built without it stays:
#
#   scripts/nasm.sh
#
# Installs it on a Debian-like machine for root; says so where it cannot, and the build goes on without.
set -euo pipefail
cd "$(dirname "$0")/.."

install_nasm() {
    ((EUID == 0)) && command -v apt-get >/dev/null || return
    echo "nasm.sh: installing nasm" >&2
    export DEBIAN_FRONTEND=noninteractive
    # The package lists may be old or absent.
    apt-get install --yes --no-install-recommends -qq nasm >/dev/null 2>&1 ||
        { apt-get update -qq && apt-get install --yes --no-install-recommends -qq nasm >/dev/null; }
}

command -v nasm >/dev/null || install_nasm || {
    echo "nasm.sh: nasm is not installed: JPEGs will take twice as long to decode" >&2
    exit 0
}

# Cargo does not see that there is an assembler now.
target=${CARGO_TARGET_DIR:-target}
if grep -qs 'NASM not installed' "$target"/release/build/mozjpeg-sys-*/output; then
    echo "nasm.sh: libjpeg was built without nasm and will be built anew" >&2
    cargo clean --quiet --locked --release -p mozjpeg-sys
fi
