#!/usr/bin/env bash
# Breaks everything around one job on the cluster that `make install` prepared, and compares its weights with
# those of a job that was left alone.
#
#   scripts/soak.sh        SOAK_SECONDS=600 SOAK_SEED=1 SOAK_EPOCHS=200
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/cluster-env.sh

((LOCAL_CLUSTER)) ||
    die "the soak breaks nodes and the control plane: it runs only on the local cluster (unset CLUSTER_KUBECONFIG)"

export YOLO_TEST_CLUSTER=1
export YOLO_TEST_TRAINER_IMAGE="$TRAINER_IMAGE:dev"
cargo test --locked -p tests --test soak -- --nocapture
