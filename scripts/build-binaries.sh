#!/usr/bin/env bash
# Builds the release binaries of the images: operator, agent and fetch static, the trainer against libtorch.
#
#   scripts/build-binaries.sh [operator|agent|fetch|trainer]...      (default: all)
#
# The static ones are linked with glibc's own archive, so that no second C library is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGET="$(uname -m)-unknown-linux-gnu"
parts=("$@")
[[ $# -gt 0 ]] || parts=(operator agent fetch trainer)

for part in "${parts[@]}"; do
    echo "building $part (release)" >&2
    case "$part" in
    operator | agent | fetch)
        # Agent and fetch wait for others most of their time, and are pulled with the operator: small is better than fast.
        settings=()
        [[ $part == operator ]] || settings=(CARGO_PROFILE_RELEASE_{OPT_LEVEL=s,LTO=thin,CODEGEN_UNITS=1})
        # A target of its own keeps RUSTFLAGS away from build scripts and from the trainer.
        env RUSTFLAGS="-C target-feature=+crt-static" "${settings[@]}" \
            cargo build --release --locked --target "$TARGET" -p "$part"
        ;;
    trainer)
        scripts/nasm.sh
        environment="$(scripts/libtorch.sh --env)"
        eval "$environment"
        cargo build --release --locked -p trainer
        ;;
    *)
        echo "build-binaries.sh: no part '$part': operator, agent, fetch or trainer" >&2
        exit 2
        ;;
    esac
done
