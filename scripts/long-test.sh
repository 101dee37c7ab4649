#!/usr/bin/env bash
# Runs one of the long tests on the cluster that `make install` prepared.
#
#   scripts/long-test.sh soak          breaks everything around one job: SOAK_SECONDS=600 SOAK_SEED=1 SOAK_EPOCHS=400;
#                                      target/soak-SEED.md has what it broke and what came of it
#   scripts/long-test.sh faults        the faults that the daily tests have no time for
#   scripts/long-test.sh neighbours    beside Kueue, Volcano, the coscheduling plugin, a driver of devices, the
#                                      Prometheus operator, Katib and PyTorch, which are built, installed and removed again
#
# What follows the name is given to the tests, a filter for example; of neighbours, those are installed whose names
# filters begin with.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/cluster-env.sh

((LOCAL_CLUSTER)) ||
    die "these tests break nodes and the control plane: they run only on the local cluster (unset CLUSTER_KUBECONFIG)"

name=${1:-}
[[ $name == soak || $name == faults || $name == neighbours ]] || die "usage: scripts/long-test.sh soak|faults|neighbours [FILTER]..."
shift
if [[ $name == neighbours ]]; then
    neighbours=()
    for neighbour in kueue volcano coscheduling dra prometheus-operator katib pytorch; do
        # Those that the filters name, by the modules of their tests; all without any.
        (($# > 0)) && [[ " $*" != *" ${neighbour//-/_}"* ]] || neighbours+=("$neighbour")
    done
    away() { for neighbour in "${neighbours[@]}"; do "tests/neighbours/$neighbour.sh" down || true; done; }
    trap away EXIT
    for neighbour in "${neighbours[@]}"; do "tests/neighbours/$neighbour.sh" up; done
fi
export YOLO_TEST_CLUSTER=1
export YOLO_TEST_TRAINER_IMAGE="$TRAINER_IMAGE:dev"
cargo test --locked -p tests --test "$name" -- --test-threads=1 --nocapture "$@"
