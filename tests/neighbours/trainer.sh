#!/usr/bin/env bash
# Kubeflow Trainer on the test cluster, with the JobSet that it needs.
#
#   trainer.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build_trainer() {
    build_program "$1" github.com/kubeflow/trainer/v2 "$TRAINER_VERSION" \
        github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager
    cp -r --no-preserve=mode "$MODULE_DIR/charts/kubeflow-trainer" "$1/chart"
    # Its dependencies are charts of their own, which no registry is asked for.
    sed -i '/^dependencies:/,/^$/d' "$1/chart/Chart.yaml"
    make_program_image "$1" trainer "$TRAINER_VERSION"
}

build_all() {
    "$NEIGHBOURS/jobset.sh" build
    build_part trainer "$TRAINER_VERSION"
}

# Its client's limits are as large as JobSet's by default, not 50 and 100 requests a second.
up() {
    "$NEIGHBOURS/jobset.sh" up
    install trainer "$TRAINER_VERSION" kubeflow-system \
        --set manager.config.clientConnection.qps=500,manager.config.clientConnection.burst=1000 \
        --set "jobset.install=false,fullnameOverride=kubeflow-trainer,image.registry=localhost,image.repository=trainer,image.tag=v$TRAINER_VERSION"
}

down() {
    uninstall trainer kubeflow-system {trainjobs,trainingruntimes,clustertrainingruntimes}.trainer.kubeflow.org
    "$NEIGHBOURS/jobset.sh" down
}

run_command "$@"
