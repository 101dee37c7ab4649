#!/usr/bin/env bash
# The coscheduling plugin on the test cluster, in a second scheduler beside Kubernetes' own.
#
#   coscheduling.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Its module replaces those of Kubernetes, so it is built in its own folder.
build_coscheduling() {
    local source
    go mod init neighbours
    source=$(go mod download -json "sigs.k8s.io/scheduler-plugins@v$COSCHEDULING_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    cp -r --no-preserve=mode "$source" source
    cd source
    # A release of it that is not to be had everywhere.
    go mod edit -replace "k8s.io/csi-translation-lib=k8s.io/csi-translation-lib@v$COSCHEDULING_CSI_VERSION"
    go build -mod=mod -ldflags '-s -w' -o "$1/manager" ./cmd/scheduler
    make_program_image "$1" coscheduling "$COSCHEDULING_VERSION" /bin/kube-scheduler
    cp -r manifests/install/charts/as-a-second-scheduler "$1/chart"
    # A link in the repository, which the module leaves out.
    mkdir "$1/chart/crds"
    cp config/crd/bases/scheduling.x-k8s.io_podgroups.yaml "$1/chart/crds/"
}

build_all() { build_part coscheduling "$COSCHEDULING_VERSION"; }

# Without its controller, which only counts a group's pods.
up() {
    install coscheduling "$COSCHEDULING_VERSION" scheduler-plugins \
        --set "scheduler.image=localhost/coscheduling:v$COSCHEDULING_VERSION,controller.replicaCount=0" \
        --set 'plugins.enabled={Coscheduling}'
}

down() {
    uninstall coscheduling scheduler-plugins podgroups.scheduling.x-k8s.io
}

run_command "$@"
