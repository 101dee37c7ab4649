#!/usr/bin/env bash
# Puts our operator, made from this checkout, and the peers into the test cluster, each by its chart.
# BENCH_OPERATOR=FILE takes that program instead, to compare with an earlier one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
source tests/neighbours/lib.sh

work=target/bench/image
rm -rf "$work"
mkdir -p "$work/scratch"
trap 'rm -rf "$work"' EXIT
cp "${BENCH_OPERATOR:-target/$(uname -m)-unknown-linux-gnu/release/yolo-operator}" "$work/manager"
(cd "$work/scratch" && make_program_image .. yolo-operator bench)
tests/cluster/load-image.sh "$work/yolo-operator.tar"

tests/neighbours/trainer.sh up
# The pods are pretend ones: no image of a trainer is needed. Memory is measured, so no limit ends it.
helm_here install yolo-operator charts/yolo-operator --namespace yolo-system --create-namespace --wait --timeout 2m \
    --set image.repository=localhost/yolo-operator,image.tag=vbench,image.pullPolicy=Never \
    --set trainerImage.repository=localhost/yolo-trainer,trainerImage.tag=bench \
    --set resources.limits.memory=2Gi >/dev/null
