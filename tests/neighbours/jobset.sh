#!/usr/bin/env bash
# JobSet on the test cluster: groups of Jobs.
#
#   jobset.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

build_jobset() {
    build_program "$1" sigs.k8s.io/jobset "$JOBSET_VERSION" sigs.k8s.io/jobset
    cp -r --no-preserve=mode "$MODULE_DIR/charts/jobset" "$1/chart"
    make_program_image "$1" jobset "$JOBSET_VERSION"
}

build_all() { build_part jobset "$JOBSET_VERSION"; }

up() {
    install jobset "$JOBSET_VERSION" jobset-system \
        --set "image.repository=localhost/jobset,image.tag=v$JOBSET_VERSION,image.pullPolicy=Never"
}

down() { uninstall jobset jobset-system jobsets.jobset.x-k8s.io; }

run_command "$@"
