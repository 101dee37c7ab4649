#!/usr/bin/env bash
# The release before this one, from which the upgrade is tried: builds its operator's image from the history, once, and
# prints the folder that has it (operator.tar, of localhost/yolo-operator:previous) and its chart.
#
#   tests/faults/previous.sh
#
# Needs the whole history, not a shallow clone. Takes a few minutes the first time.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh"
source "$CLUSTER_DIR/lib-build.sh"

# No release has been published yet; this is the last state before workers were told of a lost worker 0.
COMMIT=2bcac22608f08def80c76bee274cfc19cec395fd
CHECKOUT=$(cd "$CLUSTER_DIR/../.." && pwd)

build_previous() {
    local name programs image=localhost/yolo-operator:previous
    programs=target/$(uname -m)-unknown-linux-gnu/release
    git -C "$CHECKOUT" archive "$COMMIT" | tar -x
    unset CARGO_TARGET_DIR
    scripts/build-binaries.sh operator agent fetch
    for name in yolo-operator yolo-agent yolo-fetch; do
        install -D -m 0755 "$programs/$name" "target/image/operator/$name"
    done
    storage build --quiet --target operator --build-arg PREBUILT=1 --tag "$image" . >/dev/null
    storage push --quiet "$image" "oci-archive:$1/operator.tar:$image"
    cp -r charts/yolo-operator "$1/chart"
}

main() {
    require_root
    [[ -d $(part_dir previous "${COMMIT:0:7}") ]] || git -C "$CHECKOUT" cat-file -e "$COMMIT^{commit}" 2>/dev/null ||
        die "this clone has not the commit $COMMIT, from which the upgrade is tried; get the history with: git fetch --unshallow"
    build_part previous "${COMMIT:0:7}" "the release before" >&2
    part_dir previous "${COMMIT:0:7}"
}

main "$@"
