#!/usr/bin/env bash
# Runs the tests of tests/e2e on the cluster that `make install` prepared, one after the other.
#
#   scripts/test-cluster.sh [FILTER]...
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/cluster-env.sh

((LOCAL_CLUSTER)) ||
    die "these tests break workers and reinstall the chart: they run only on the local cluster (unset CLUSTER_KUBECONFIG)"

tests/cluster/prometheus.sh up tests/prometheus.yaml
export YOLO_TEST_CLUSTER=1
export YOLO_TEST_TRAINER_IMAGE="$TRAINER_IMAGE:dev"
YOLO_TEST_PROMETHEUS="$(tests/cluster/prometheus.sh url)"
export YOLO_TEST_PROMETHEUS
cargo test --locked -p tests --test e2e -- --test-threads=1 --nocapture "$@"
