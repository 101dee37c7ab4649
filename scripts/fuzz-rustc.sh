#!/usr/bin/env bash
# rustc as cargo calls it for the crates of this workspace, with the marks by which libFuzzer sees where an input leads.
# `scripts/fuzz.sh` uses it. Crates of others stay as they are.
set -euo pipefail

# Programs of their own: nothing in them would know the marks.
for argument in "$@"; do
    case "$argument" in
    build_script_* | proc-macro) exec "$@" ;;
    esac
done
[[ " $* " == *" --crate-name "* ]] || exec "$@"
exec "$@" -C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares -C opt-level=1
