#!/usr/bin/env bash
# Takes the API server of the test cluster away, and brings it back.
#
#   api-server.sh stop       it is gone; nodes and their pods go on
#   api-server.sh start      it runs again
#   api-server.sh restart    both
#
# start and restart return once it is ready.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh
source ./lib-control-plane.sh

USAGE="usage: api-server.sh stop|start|restart"

start() {
    process_id kube-apiserver >/dev/null || start_apiserver
    wait_running 60 "the apiserver" "etcd kube-apiserver" apiserver_ready
    say "apiserver ready"
}

main() {
    require_root
    (($# == 1)) || die "$USAGE"
    process_id etcd >/dev/null || die "the test cluster is not up; start it with up.sh"
    case $1 in
    stop) stop_process kube-apiserver ;;
    start) start ;;
    restart)
        stop_process kube-apiserver
        start
        ;;
    *) die "$USAGE" ;;
    esac
}

main "$@"
