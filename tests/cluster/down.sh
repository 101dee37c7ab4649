#!/usr/bin/env bash
# Takes the test cluster away. Safe to call at any time, also twice.
#
#   down.sh           remove it
#   down.sh --check   list what is left of one; fails when anything is
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-cleanup.sh

main() {
    local left
    require_root
    case ${1:-} in
    --check) ;;
    '')
        take_lock
        remove_cluster
        ;;
    *) die "usage: down.sh [--check]" ;;
    esac
    left=$(list_leftovers)
    if [[ -n $left ]]; then
        printf 'left of the test cluster:\n%s\n' "$left" >&2
        exit 1
    fi
    say "nothing is left of the test cluster"
}

main "$@"
