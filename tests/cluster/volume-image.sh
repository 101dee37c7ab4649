#!/usr/bin/env bash
# Makes an image of a folder, which pods can mount as a volume, and loads it into both nodes.
#
#   volume-image.sh FOLDER NAME      NAME with registry and tag: localhost/digits:1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/lib-build.sh"

main() {
    local usage="usage: volume-image.sh FOLDER NAME" container folder name work
    folder=$(realpath "${1:?$usage}") name=${2:?$usage}
    require_root
    work=$(mktemp -d "$STATE/volume-image-XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    cd "$work"
    container=$(storage from scratch)
    storage copy --quiet "$container" "$folder" / >/dev/null
    storage commit --quiet "$container" "$name" >/dev/null
    storage push --quiet "$name" "oci-archive:$work/image.tar:$name"
    "$CLUSTER_DIR/load-image.sh" "$work/image.tar"
}

main "$@"
