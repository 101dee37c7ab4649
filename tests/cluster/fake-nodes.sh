#!/usr/bin/env bash
# Pretend nodes for tests of scale. They run pretend pods: these become Ready
# at once, never end by themselves, and are gone as soon as they are deleted.
#
#   fake-nodes.sh up N    N of them (fake-0 ...), instead of any there were
#   fake-nodes.sh down    removes the nodes, their pods and kwok
#
# Only pods with this toleration land there:
#   {key: kwok.x-k8s.io/node, operator: Equal, value: fake, effect: NoSchedule}
# and a nodeSelector of "kwok.x-k8s.io/node: fake" keeps them off the real ones.
# Each node offers 32 CPUs, 256 GiB, 110 pods and 8 nvidia.com/gpu.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh

KEY=kwok.x-k8s.io/node

print_nodes() {
    local i
    for ((i = 0; i < $1; i++)); do
        cat <<END
---
apiVersion: v1
kind: Node
metadata:
  name: fake-$i
  annotations: {$KEY: fake, node.alpha.kubernetes.io/ttl: "0"}
  labels: {$KEY: fake, kubernetes.io/hostname: fake-$i, kubernetes.io/os: linux, kubernetes.io/arch: amd64}
spec:
  taints: [{key: $KEY, value: fake, effect: NoSchedule}]
status:
  allocatable: &size {cpu: "32", memory: 256Gi, pods: "110", nvidia.com/gpu: "8"}
  capacity: *size
END
    done
}

start_kwok() {
    local stage
    # Without pod-complete: with it the pods of a Job would end at once.
    for stage in pod/fast/pod-ready pod/fast/pod-delete node/fast/node-initialize \
        node/heartbeat-with-lease/node-heartbeat-with-lease; do
        echo ---
        cat "$KWOK/stage/$stage.yaml"
    done >"$STATE/kwok.yaml"
    # With its default of 4 pods at a time a test of scale would measure kwok. A file has to name the others too.
    cat >>"$STATE/kwok.yaml" <<'END'
---
apiVersion: config.kwok.x-k8s.io/v1alpha1
kind: KwokConfiguration
options:
  podPlayStageParallelism: 32
  nodePlayStageParallelism: 4
  nodeLeaseParallelism: 4
  podsOnNodeSyncParallelism: 4
END
    start_process kwok daemons "$KWOK/kwok" --config "$STATE/kwok.yaml" --kubeconfig "$KUBECONFIG_FILE" \
        --manage-nodes-with-annotation-selector "$KEY=fake" --node-lease-duration-seconds 40 \
        --cidr "$FAKE_POD_RANGE" --node-ip 10.213.1.1 --server-address "127.0.0.1:$KWOK_PORT"
}

remove_all() {
    local n namespace on_fake='spec.nodeName!='
    for n in "${NODES[@]}"; do on_fake+=",spec.nodeName!=$(node_name "$n")"; done
    # Nodes first, so that no pod is put onto one again.
    kube delete nodes --selector "$KEY=fake" --ignore-not-found --wait=false >/dev/null
    # One request a namespace: kubectl would take a fifth of a second for a pod.
    kube get pods --all-namespaces --field-selector "$on_fake" \
        -o 'jsonpath={range .items[*]}{.metadata.namespace}{"\n"}{end}' | sort -u |
        while read -r namespace; do
            kube delete --raw \
                "/api/v1/namespaces/$namespace/pods?gracePeriodSeconds=0&fieldSelector=${on_fake//=/%3D}" >/dev/null
        done
    # Pods of a Job go once the Job's controller has counted them.
    wait_for 30 "pods on pretend nodes to be gone" no_pod_on "$on_fake" ||
        die "a finalizer keeps these pods: $(kube get pods --all-namespaces --field-selector "$on_fake" -o name)"
    stop_process kwok
}

no_pod_on() { [[ -z $(kube get pods --all-namespaces --field-selector "$1" -o name) ]]; }

main() {
    local count=${2:-}
    require_root
    [[ -f $KUBECONFIG_FILE ]] || die "the test cluster is not up; start it with up.sh"
    case ${1:-} in
    up)
        [[ $count =~ ^[1-9][0-9]*$ ]] || die "usage: fake-nodes.sh up N"
        ./binaries.sh kwok
        remove_all
        print_nodes "$count" | kube create --validate=false -f - >/dev/null
        start_kwok
        kube wait --for=condition=Ready nodes --selector "$KEY=fake" --timeout=120s >/dev/null || {
            require_running kwok
            die "the pretend nodes did not become Ready; see $LOGS/kwok.log"
        }
        say "$count pretend nodes are Ready"
        ;;
    down)
        remove_all
        say "no pretend node is left"
        ;;
    *) die "usage: fake-nodes.sh up N | down" ;;
    esac
}

main "$@"
