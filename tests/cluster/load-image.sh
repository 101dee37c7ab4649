#!/usr/bin/env bash
# Loads images into both nodes; skips what a node already has.
#
#   load-image.sh ARCHIVE...
#
# An ARCHIVE is what `buildah push IMAGE oci-archive:FILE:NAME:TAG` makes. Give
# NAME a registry (localhost/...), since Kubernetes looks for a bare name in a
# public one, and use imagePullPolicy Never or IfNotPresent.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/lib-process.sh"
source "$CLUSTER_DIR/lib-node.sh"

# The digest that the name has on the node, or nothing.
digest_on_node() { node_ctr "$1" images list "name==$2" 2>/dev/null | awk 'NR > 1 {print $3}'; }

# An image that lost its name stays on the disk until its other references
# (by digest, by configuration) are gone too.
forget_image() {
    local n=$1 digest=$2 refs
    refs=$(node_ctr "$n" images list 2>/dev/null | awk -v digest="$digest" 'NR > 1 && $3 == digest {print $1}')
    # Another name for the same image keeps it.
    ! grep -qvE '^sha256:|@sha256:' <<<"$refs" || return 0
    # shellcheck disable=SC2086 # a list of names
    [[ -z $refs ]] || node_ctr "$n" images remove $refs &>/dev/null
}

# load NODE ARCHIVE NAME DIGEST
load() {
    local n=$1 archive=$2 name=$3 digest=$4 before
    before=$(digest_on_node "$n" "$name")
    if [[ $before == "$digest" ]]; then
        say "node-$n: $name is there already"
        return
    fi
    say "node-$n: loading $name ($(($(stat -Lc %s "$archive") / 1048576)) MiB)"
    node_ctr "$n" images import "$archive" &>>"$LOGS/node-$n-images.log" || tail -n 5 "$LOGS/node-$n-images.log" >&2
    [[ $(digest_on_node "$n" "$name") == "$digest" ]] ||
        die "node-$n does not have $name after loading $archive"
    [[ -z $before ]] || forget_image "$n" "$before"
    say "node-$n: $name loaded"
}

main() {
    local archive index name digest n jobs failed=0
    require_root
    (($#)) || die "usage: load-image.sh ARCHIVE..."
    [[ -f $KUBECONFIG_FILE ]] || die "the test cluster is not up; start it with up.sh"
    for archive in "$@"; do
        [[ -f $archive ]] || die "no file $archive"
        index=$(tar -xOf "$archive" index.json 2>/dev/null) ||
            die "$archive is no OCI archive; make one with: buildah push IMAGE oci-archive:FILE:NAME:TAG"
        name=$(grep -oP '"org.opencontainers.image.ref.name":\s*"\K[^"]+' <<<"$index" | head -n 1) ||
            die "$archive names no image; make it with: buildah push IMAGE oci-archive:FILE:NAME:TAG"
        digest=$(grep -oP '"digest":\s*"\K[^"]+' <<<"$index" | head -n 1)
        jobs=()
        for n in "${NODES[@]}"; do
            load "$n" "$archive" "$name" "$digest" &
            jobs+=("$!")
        done
        for n in "${jobs[@]}"; do wait "$n" || failed=1; done
    done
    ((failed == 0)) || die "an image was not loaded"
}

main "$@"
