#!/usr/bin/env bash
# Starts the test cluster: a real Kubernetes with two nodes on this machine.
#
#   up.sh          a fresh one; what an earlier or killed run left is removed
#   up.sh --keep   leaves a healthy one as it is
#
# NODE_LOSS_DEFAULTS=1 makes one that gives nodes up as late as Kubernetes does by
# itself (50 s of silence, looked for every 5 s) instead of after 20 s.
#
# logs/audit.log has every request of the operator. CLUSTER_BENCH=1 makes a
# cluster for benchmarks: the apiserver takes 4,000 requests at once instead of
# 600, and the log has every change instead, whoever made it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-control-plane.sh
source ./lib-node.sh
source ./lib-cleanup.sh

default_account_there() { kube --request-timeout=2s get serviceaccount default; }

main() {
    local n jobs=() job
    require_root
    case ${1:-} in
    --keep)
        if ./status.sh --quiet && [[ -z ${CLUSTER_BENCH:-} || -f $BENCH_MARK ]]; then
            say "the cluster is up and healthy; left as it is"
            say "use it with: export KUBECONFIG=$KUBECONFIG_FILE"
            return
        fi
        ;;
    '') ;;
    *) die "usage: up.sh [--keep]" ;;
    esac
    ./deps.sh
    ./binaries.sh kubernetes etcd containerd coredns local-path-provisioner
    ./images.sh

    take_lock
    START_TIME=$EPOCHREALTIME
    remove_cluster
    check_free
    say "nothing of an earlier run is left; starting"

    mkdir -p "$LOGS" "$PIDS"
    chmod 755 "$STATE"
    [[ -z ${CLUSTER_BENCH:-} ]] || touch "$BENCH_MARK"
    make_cgroups
    make_certs
    make_bridge
    make_volumes
    start_etcd
    start_apiserver
    say "certificates made; etcd and apiserver started"

    for n in "${NODES[@]}"; do
        make_node_namespace "$n"
        start_containerd "$n"
        load_base_images "$n" 8>&- &
        jobs+=("$!")
    done
    say "node namespaces made; containerd started"

    wait_running 60 "the apiserver" "etcd kube-apiserver" apiserver_ready
    say "apiserver ready"

    start_controller_manager
    start_scheduler
    start_coredns
    for job in "${jobs[@]}"; do wait "$job" || die "loading the base images failed; see $LOGS"; done
    for n in "${NODES[@]}"; do
        start_kubelet "$n"
        start_kube_proxy "$n"
    done
    start_storage
    say "controllers, DNS, storage and nodes started"

    wait_running 30 "the default service account" kube-controller-manager default_account_there
    wait_running 30 "DNS" coredns dns_answers
    for n in "${NODES[@]}"; do
        wait_running 60 "node-$n to be Ready" "node-$n-containerd node-$n-kubelet node-$n-kube-proxy" node_ready "$n"
    done
    require_running kube-scheduler local-path-provisioner
    say "ready: two nodes, DNS, StorageClass standard"
    say "use it with: export KUBECONFIG=$KUBECONFIG_FILE"
}

main "$@"
