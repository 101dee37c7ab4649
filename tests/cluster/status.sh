#!/usr/bin/env bash
# Says what runs; succeeds only when the whole cluster is healthy.
#
#   status.sh [--quiet]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-control-plane.sh
source ./lib-node.sh

healthy=yes

# line NAME STATE: prints it; any state but "ok" makes the cluster unhealthy.
line() {
    printf '%-28s %s\n' "$1" "$2"
    [[ $2 == ok* ]] || healthy=no
}

# check NAME COMMAND...
check() {
    local name=$1
    shift
    if "$@" &>/dev/null; then line "$name" ok; else line "$name" "NOT OK"; fi
}

report() {
    local n name pid names=(etcd kube-apiserver kube-controller-manager kube-scheduler coredns local-path-provisioner)
    for n in "${NODES[@]}"; do names+=("node-$n-containerd" "node-$n-kubelet" "node-$n-kube-proxy"); done
    for name in "${names[@]}"; do
        if pid=$(process_id "$name"); then line "$name" "ok (process $pid)"; else line "$name" "NOT RUNNING"; fi
    done
    check "apiserver answers" apiserver_ready
    check "DNS answers" dns_answers
    for n in "${NODES[@]}"; do check "node-$n Ready" node_ready "$n"; done
    check "StorageClass standard" kube --request-timeout=5s get storageclass standard
    # Only where someone started them.
    for name in kwok prometheus; do
        [[ ! -e $PIDS/$name ]] || if pid=$(process_id "$name"); then
            line "$name" "ok (process $pid)"
        else
            line "$name" "NOT RUNNING"
        fi
    done
}

main() {
    require_root
    if [[ ! -f $KUBECONFIG_FILE ]]; then
        echo "the test cluster is not up; start it with up.sh"
        exit 1
    fi
    report
    printf '%-28s %s\n' versions "Kubernetes $KUBERNETES_VERSION, etcd $ETCD_VERSION, containerd $CONTAINERD_VERSION, CoreDNS $COREDNS_VERSION" \
        kubeconfig "$KUBECONFIG_FILE" logs "$LOGS"
    [[ $healthy == yes ]]
}

if [[ ${1:-} == --quiet ]]; then main >/dev/null; else main; fi
