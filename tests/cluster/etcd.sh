#!/usr/bin/env bash
# Puts the state of the test cluster back to what it was.
#
#   etcd.sh backup FOLDER     copies it (the API server is away for a moment)
#   etcd.sh restore FOLDER    the present state is lost, and that of the copy is the cluster's again
set -euo pipefail
CALLED_FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh
source ./lib-control-plane.sh

USAGE="usage: etcd.sh backup|restore FOLDER"

main() {
    local folder n
    require_root
    (($# == 2)) || die "$USAGE"
    folder=$(cd "$CALLED_FROM" && realpath "$2")
    process_id etcd >/dev/null || die "the test cluster is not up; start it with up.sh"
    # The others keep what they have seen: they are started anew, as after a restored backup they must be.
    stop_process kube-apiserver
    stop_process etcd
    case $1 in
    backup)
        rm -rf "$folder"
        cp -a "$STATE/etcd" "$folder"
        ;;
    restore)
        rm -rf "$STATE/etcd"
        cp -a "$folder" "$STATE/etcd"
        ;;
    *) die "$USAGE" ;;
    esac
    start_etcd
    start_apiserver
    wait_running 60 "the apiserver" "etcd kube-apiserver" apiserver_ready
    if [[ $1 == restore ]]; then
        stop_process kube-controller-manager
        stop_process kube-scheduler
        start_controller_manager
        start_scheduler
        # Pods go on without their kubelet.
        for n in "${NODES[@]}"; do
            stop_process "node-$n-kubelet"
            start_kubelet "$n"
        done
    fi
    say "$1: apiserver ready"
}

main "$@"
