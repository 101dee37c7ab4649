#!/usr/bin/env bash
# Volcano on the test cluster: a scheduler that gives nodes to all pods of a group or to none. Without its webhooks,
# which are for its own kind of job.
#
#   volcano.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Its own replacements of modules are wanted, so it is built in its own folder. Its API is a module that it takes from
# a folder which its own module leaves out, and whose releases are not all to be had.
build_volcano() {
    local program source
    go mod init neighbours
    source=$(go mod download -json "volcano.sh/volcano@v$VOLCANO_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    cp -r --no-preserve=mode "$source" source
    cd source
    go mod edit -replace "volcano.sh/apis=volcano.sh/apis@v$VOLCANO_APIS_VERSION"
    for program in scheduler controller-manager; do
        go build -mod=mod -ldflags '-s -w' -o "$1/manager" "./cmd/$program"
        make_program_image "$1" "volcano-$program" "$VOLCANO_VERSION"
    done
    cp -r installer/helm/chart/volcano "$1/chart"
}

build_all() { build_part volcano "$VOLCANO_VERSION"; }

up() {
    install volcano "$VOLCANO_VERSION" volcano-system \
        --set "basic.image_registry=localhost,basic.image_pull_policy=Never,basic.image_tag_version=v$VOLCANO_VERSION" \
        --set basic.scheduler_image_name=volcano-scheduler,basic.controller_image_name=volcano-controller-manager \
        --set custom.admission_enable=false
}

down() {
    uninstall volcano volcano-system {podgroups,queues}.scheduling.volcano.sh
}

run_command "$@"
