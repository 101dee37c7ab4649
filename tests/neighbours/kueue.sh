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

# Whose pods do not run after 20 s gives its place back, and may have it again soon.
READY='waitForPodsReady: {timeout: 20s, blockAdmission: false, requeuingStrategy: {backoffBaseSeconds: 1}}'

up() {
    local image=controllerManager.manager.image
    # Its configuration is one text in its chart's values, which has this as a comment.
    sed "s/#waitForPodsReady:.*/$READY/" "$(part_dir kueue "$KUEUE_VERSION")/chart/values.yaml" >"$STATE/kueue.yaml"
    install kueue "$KUEUE_VERSION" kueue-system --values "$STATE/kueue.yaml" \
        --set "$image.repository=localhost/kueue,$image.tag=v$KUEUE_VERSION,$image.pullPolicy=Never"
}

down() {
    uninstall kueue kueue-system {workloads,localqueues,clusterqueues,cohorts,resourceflavors}.kueue.x-k8s.io
}

run_command "$@"
