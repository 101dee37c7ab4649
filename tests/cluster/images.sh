#!/usr/bin/env bash
# Builds the two images every node needs, once, as archives in the cache:
#   localhost/pause:1    the process that holds a pod's namespaces
#   localhost/helper:1   busybox, for volumes and for tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh

# No daemon, no kernel mounts.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot

# make_image NAME ROOT COMMAND...
make_image() {
    local name=$1 root=$2 container
    shift 2
    container=$(storage from scratch)
    storage copy --quiet "$container" "$root" / >/dev/null
    storage config --entrypoint "[\"$1\"]" "$container"
    storage commit --quiet "$container" "localhost/$name:1" >/dev/null
    storage push --quiet "localhost/$name:1" "oci-archive:$WORK/out/$name.tar:localhost/$name:1"
}

storage() { buildah --root "$WORK/storage" --runroot "$WORK/run" "$@"; }

main() {
    local program
    [[ ! -d $IMAGES ]] || return 0
    say "building the pause and helper images"
    mkdir -p "$CACHE"
    WORK=$(mktemp -d "$CACHE/.building-images-XXXXXX")
    trap 'rm -rf "$WORK"' EXIT
    mkdir -p "$WORK"/{pause,helper/bin,helper/tmp,out}
    chmod 1777 "$WORK/helper/tmp"
    gcc -static -Os -s -Wall -o "$WORK/pause/pause" pause.c
    cp /bin/busybox "$WORK/helper/bin/busybox"
    for program in $(/bin/busybox --list); do
        [[ $program == busybox ]] || ln -s busybox "$WORK/helper/bin/$program"
    done
    make_image pause "$WORK/pause" /pause
    make_image helper "$WORK/helper" /bin/sh
    # Another run may have been faster; either result is as good.
    mv --no-target-directory "$WORK/out" "$IMAGES" 2>/dev/null || [[ -d $IMAGES ]]
}

main "$@"
