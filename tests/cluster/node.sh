#!/usr/bin/env bash
# Breaks one node of the test cluster, and mends it.
#
#   node.sh cut NODE       its network cable is out; its pods go on
#   node.sh restore NODE   the cable is in again
#   node.sh stop NODE      kubelet, containerd and kube-proxy are gone; its pods go on
#   node.sh crash NODE     everything on it is gone, its pods as well
#   node.sh start NODE     its programs run again, after stop or crash
#
# restore and start return once the node is Ready and takes pods.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh

USAGE="usage: node.sh cut|restore|stop|crash|start NODE"

# The host reaches Services through one node: take one that works.
send_services_through() {
    ip route replace "$SERVICE_RANGE" via "$(node_ip "$1")" dev "$BRIDGE"
}

has_new_heartbeat() { [[ $(node_heartbeat "$1") != "$2" ]]; }

wait_ready() {
    local n=$1 before=$2
    # The Ready of before the fault may still stand: wait for a sign of life.
    wait_running 60 "a sign of life from node-$n" "node-$n-kubelet" has_new_heartbeat "$n" "$before"
    wait_running 60 "node-$n to be Ready" "node-$n-kubelet" node_ready "$n"
    say "node-$n is Ready"
}

main() {
    local n before name
    require_root
    (($# == 2)) || die "$USAGE"
    n=$(node_number "$2")
    process_id "node-$n-holder" >/dev/null || die "the test cluster is not up; start it with up.sh"
    case $1 in
    cut)
        ip link set "$(node_cable "$n")" down
        send_services_through $((1 - n))
        say "node-$n is cut off; Kubernetes calls it NotReady after about 20 s"
        ;;
    restore)
        before=$(node_heartbeat "$n")
        ip link set "$(node_cable "$n")" up
        send_services_through 0
        wait_ready "$n" "$before"
        ;;
    stop)
        for name in kubelet containerd kube-proxy; do stop_process "node-$n-$name"; done
        send_services_through $((1 - n))
        say "node-$n is stopped; Kubernetes calls it NotReady after about 20 s"
        ;;
    crash)
        # Twice the pods: a shim that was being born may have made one more.
        kill_group "node-$n-daemons"
        kill_group "node-$n"
        send_services_through $((1 - n))
        say "node-$n has crashed; Kubernetes calls it NotReady after about 20 s"
        ;;
    start)
        before=$(node_heartbeat "$n")
        process_id "node-$n-containerd" >/dev/null || start_containerd "$n"
        wait_running 30 "containerd of node-$n" "node-$n-containerd" containerd_ready "$n"
        process_id "node-$n-kubelet" >/dev/null || start_kubelet "$n"
        process_id "node-$n-kube-proxy" >/dev/null || start_kube_proxy "$n"
        send_services_through 0
        wait_ready "$n" "$before"
        ;;
    *) die "$USAGE" ;;
    esac
}

main "$@"
