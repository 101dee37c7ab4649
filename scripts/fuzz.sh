#!/usr/bin/env bash
# Feeds the trainer's readers with broken files, for a minute each: `make fuzz`.
#
#   fuzz.sh [TARGET ...]     labels, data_yaml, model_yaml, job_yaml, pickle, weights, image, coco, voc, checkpoint
#   FUZZ_SECONDS=600         how long for each
#
# Begins with the files in trainer/fuzz/seeds; what it learns stays in target/fuzz/corpus. An input that makes a target fail
# is left in target/fuzz/findings, and the exit status is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${FUZZ_SECONDS:-60}"
targets=("$@")
((${#targets[@]})) || targets=(labels data_yaml model_yaml job_yaml pickle weights image coco voc checkpoint)

environment="$(scripts/libtorch.sh --env)"
eval "$environment"
# Only crates of this workspace are built anew: cargo keeps what a wrapper makes apart from what it makes itself.
RUSTC_WORKSPACE_WRAPPER="$PWD/scripts/fuzz-rustc.sh" cargo build --quiet --locked -p fuzz --bins

failed=()
for target in "${targets[@]}"; do
    corpus="target/fuzz/corpus/$target"
    findings="target/fuzz/findings/$target"
    log="target/fuzz/$target.log"
    mkdir -p "$corpus" "$findings"
    if OMP_NUM_THREADS=1 "target/debug/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -timeout=20 -rss_limit_mb=3072 \
        -print_final_stats=1 -artifact_prefix="$findings/" "$corpus" "trainer/fuzz/seeds/$target" >"$log" 2>&1; then
        outcome=fine
    else
        outcome="FAILED, see $log and $findings"
        failed+=("$target")
    fi
    executions="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    memory="$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")"
    covered="$(grep -o 'cov: [0-9]* ft: [0-9]* corp: [0-9]*' "$log" | tail -n 1)"
    echo "$target: ${executions:-?} executions, ${covered:-no coverage}, ${memory:-?} MB: $outcome"
done
if ((${#failed[@]})); then
    echo "fuzz.sh: ${failed[*]} failed; run one input again with target/debug/fuzz_TARGET FILE" >&2
    exit 1
fi
