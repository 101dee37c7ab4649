#!/usr/bin/env bash
# Kueue on the test cluster: queues, quotas and admission.
#
#   kueue.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build_kueue() {
    build_program "$1" sigs.k8s.io/kueue "$KUEUE_VERSION" sigs.k8s.io/kueue/cmd/kueue
    cp -r --no-preserve=mode "$MODULE_DIR/charts/kueue" "$1/chart"
    make_program_image "$1" kueue "$KUEUE_VERSION"
}

build_all() { build_part kueue "$KUEUE_VERSION"; }

up() {
    local image=controllerManager.manager.image
    install kueue "$KUEUE_VERSION" kueue-system \
        --set "$image.repository=localhost/kueue,$image.tag=v$KUEUE_VERSION,$image.pullPolicy=Never"
}

down() {
    uninstall kueue kueue-system {workloads,localqueues,clusterqueues,cohorts,resourceflavors}.kueue.x-k8s.io
}

run_command "$@"
