#!/usr/bin/env bash
# Proves the test cluster on a real run: starts it, tries what the project's
# tests rely on, takes it away and looks for leftovers.
#
# It replaces a cluster that is up.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh

UP_LIMIT=30
NAMESPACE=cluster-test
passed=0
failed=0

# check WHAT COMMAND...: one line each; a failure shows what was printed.
check() {
    local what=$1 output code
    shift
    # Not in an `if`: there bash would go on after a failed step of a function.
    set +e
    output=$(
        set -e
        "$@" 2>&1
    )
    code=$?
    set -e
    if ((code == 0)); then
        passed=$((passed + 1))
        say "ok    $what"
    else
        failed=$((failed + 1))
        say "FAIL  $what"
        printf '          %s\n' "${output//$'\n'/$'\n'          }"
    fi
}

# The same until it succeeds: `eventually 10 COMMAND...`.
eventually() {
    local limit=$1
    shift
    wait_for "$limit" "$*" "$@" || "$@"
}

in_test() { kube --namespace "$NAMESPACE" "$@"; }
in_pod() { in_test exec "rank-$1" -- sh -c "$2"; }
same() { [[ $1 == "$2" ]] || {
    echo "expected '$1', got '$2'"
    return 1
}; }

# A pod as the operator makes them: bound to no root, no writable root folder,
# with memory, an image and a shared folder as volumes. It answers every caller
# with its own name and is never ready, since it must be found all the same.
print_pod() {
    cat <<END
---
apiVersion: v1
kind: Pod
metadata: {name: rank-$1, labels: {app: rank}}
spec:
  hostname: rank-$1
  subdomain: ranks
  nodeSelector: {kubernetes.io/hostname: node-$1}
  terminationGracePeriodSeconds: 0
  securityContext:
    {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 4242, seccompProfile: {type: RuntimeDefault}}
  volumes:
    - {name: shared, persistentVolumeClaim: {claimName: shared}}
    - {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
    - {name: image, image: {reference: "localhost/helper:1", pullPolicy: Never}}
  containers:
    - name: main
      image: localhost/helper:1
      imagePullPolicy: Never
      command: [sh, -c, "echo started; while :; do hostname | nc -l -p 7000; done"]
      readinessProbe: {exec: {command: ["false"]}}
      resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 64Mi}}
      securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
      volumeMounts:
        - {name: shared, mountPath: /shared}
        - {name: memory, mountPath: /memory}
        - {name: image, mountPath: /image}
END
}

print_objects() {
    cat <<END
apiVersion: v1
kind: Namespace
metadata: {name: $NAMESPACE, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Service
metadata: {name: ranks}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {app: rank}
---
apiVersion: v1
kind: Service
metadata: {name: any-rank}
spec:
  publishNotReadyAddresses: true
  selector: {app: rank}
  ports: [{port: 80, targetPort: 7000}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shared}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 1Mi}}
END
    print_pod 0
    print_pod 1
}

up_in_time() {
    local begun=$SECONDS
    ./up.sh
    ((SECONDS - begun <= UP_LIMIT)) || {
        echo "it took $((SECONDS - begun)) s, more than $UP_LIMIT s"
        return 1
    }
}

pods_run() {
    local n
    for n in "${NODES[@]}"; do
        in_test wait pod "rank-$n" '--for=jsonpath={.status.phase}=Running' --timeout=40s || {
            in_test describe pod "rank-$n" | tail -n 15
            return 1
        }
    done
}

# The pod $1 calls the pod $2 by its name.
pod_calls_pod() { same "rank-$2" "$(in_pod "$1" "nc -w 3 rank-$2.ranks 7000 </dev/null")"; }
pod_calls_service() { [[ $(in_pod "$1" 'nc -w 3 any-rank 80 </dev/null') == rank-* ]]; }
host_calls_pod() { same "rank-$1" "$(busybox nc -w 3 "$(in_test get pod "rank-$1" -o 'jsonpath={.status.podIP}')" 7000 </dev/null)"; }
pod_calls_apiserver() { in_pod "$1" 'nc -w 3 kubernetes.default 443 </dev/null'; }
# The pod speaks no TLS: that answer shows that the call got through.
webhook_called() {
    local answer
    kube create -f - <<END
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: cluster-test}
webhooks:
  - name: a.cluster.test
    clientConfig: {service: {name: any-rank, namespace: $NAMESPACE, port: 80}}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: $NAMESPACE}}
    sideEffects: None
    timeoutSeconds: 3
    admissionReviewVersions: [v1]
END
    answer=$(in_test create configmap anything 2>&1) || true
    kube delete validatingwebhookconfiguration cluster-test
    echo "$answer"
    [[ $answer == *'TLS handshake'* ]]
}
share_volume() {
    in_pod 0 'echo from rank 0 >/shared/file'
    same 'from rank 0' "$(in_pod 1 'cat /shared/file')"
}
# shellcheck disable=SC2016 # the pod's shell expands it
not_root() { same 65532:4242 "$(in_pod 0 'echo $(id -u):$(id -G | grep -ow 4242)')"; }
seccomp_on() { same 2 "$(in_pod 0 "awk '/^Seccomp:/ {print \$2}' /proc/self/status")"; }
no_capabilities() { same 0000000000000000 "$(in_pod 0 "awk '/^CapEff:/ {print \$2}' /proc/self/status")"; }
root_read_only() { ! in_pod 0 'touch /file'; }
memory_limited() { in_pod 0 'grep -q " /memory tmpfs .*size=8192k" /proc/mounts && echo x >/memory/file'; }
image_mounted() { in_pod 0 'test -x /image/bin/busybox && ! touch /image/file 2>/dev/null'; }
# What else it prints came over the network, from whoever tried its port.
logs_work() { same started "$(in_test logs rank-1 | head -n 1)"; }
node_says() { same "$2" "$(kube get node "$1" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}')"; }

load_again() {
    ./load-image.sh "$IMAGES/helper.tar" | tee /dev/stderr | grep -c 'there already' | grep -qx 2
}

gang_api_there() { kube get --raw /apis/scheduling.k8s.io/v1beta1 | grep -q '"PodGroup"'; }

crash_and_start() {
    ./node.sh crash node-1
    [[ -z $(group_processes node-1) ]]
    ./node.sh start node-1
}

pretend() {
    ./fake-nodes.sh up 20
    in_test create -f - <<END
apiVersion: v1
kind: Pod
metadata: {name: pretend}
spec:
  nodeSelector: {kwok.x-k8s.io/node: fake}
  tolerations: [{key: kwok.x-k8s.io/node, operator: Equal, value: fake, effect: NoSchedule}]
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: main
      image: no/such:image
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
END
    in_test wait pod pretend --for=condition=Ready --timeout=20s
    ./fake-nodes.sh down
    same 2 "$(kube get nodes -o name | wc -l)"
}

prometheus_starts() {
    echo 'global: {}' >"$STATE/test-prometheus.yaml"
    ./prometheus.sh up "$STATE/test-prometheus.yaml"
    busybox wget -q -O - "$(./prometheus.sh url)/api/v1/query?query=1" | grep -q '"success"'
    ./prometheus.sh down
}

# What node 0 is told by 40 pings to node 1: "LOST MILLISECONDS", of a hundred and on average.
pings() {
    in_node 0 busybox ping -c 40 -A -W 1 -q "$(node_ip 1)" | tr '/' ' ' |
        awk '/packet loss/ {sub("%", "", $7); lost = $7} /round-trip/ {time = $7} END {print lost, int(time)}'
}

network_loses() {
    local lost
    ./network.sh lossy 30
    read -r lost _ < <(pings)
    ./network.sh mend
    # Of two ways, so half of all.
    ((lost > 20 && lost < 80)) || { echo "$lost of a hundred were lost"; return 1; }
}

network_delays() {
    local time
    ./network.sh delayed 30ms
    read -r _ time < <(pings)
    ./network.sh mend
    # There and back.
    ((time >= 60 && time < 120)) || { echo "a ping took $time ms"; return 1; }
}

network_mended() {
    local lost time
    read -r lost time < <(pings)
    ((lost == 0 && time < 20)) || { echo "$lost of a hundred were lost, a ping took $time ms"; return 1; }
}

main() {
    require_root
    # Building is not what is timed.
    ./deps.sh
    ./binaries.sh
    ./images.sh

    check "up within $UP_LIMIT s" up_in_time
    # A node that has just joined may get the taint of one that is not ready once more, from a stale cache.
    check "status is healthy" eventually 10 ./status.sh
    check "up.sh --keep leaves it" ./up.sh --keep
    check "gang scheduling API" gang_api_there

    check "objects are taken" in_test create -f - < <(print_objects)
    check "a pod on each node runs" pods_run
    check "node-0 calls node-1 by name" eventually 15 pod_calls_pod 0 1
    check "node-1 calls node-0 by name" eventually 15 pod_calls_pod 1 0
    check "a pod calls itself by name" eventually 15 pod_calls_pod 0 0
    check "a pod calls a Service" eventually 15 pod_calls_service 0
    check "pods call the apiserver" eventually 15 pod_calls_apiserver 0
    check "from the other node as well" eventually 15 pod_calls_apiserver 1
    check "the host calls a pod" host_calls_pod 1
    check "the apiserver calls a webhook in a pod" webhook_called
    check "a volume is shared by both nodes" share_volume
    check "the user is not root and has the group" not_root
    check "seccomp filters" seccomp_on
    check "no capability is left" no_capabilities
    check "the root folder is read-only" root_read_only
    check "a volume of memory has its limit" memory_limited
    check "an image is a volume" image_mounted
    check "logs work" logs_work

    check "load-image skips what is there" load_again

    check "pretend nodes run pretend pods" pretend
    check "Prometheus starts" prometheus_starts

    check "a lossy network loses packets" network_loses
    check "a delayed network holds them" network_delays
    check "a mended one does neither" network_mended

    check "cut takes node-1 off" ./node.sh cut node-1
    check "it is seen within 30 s" eventually 30 node_says node-1 Unknown
    check "the pod on node-0 does not reach it" eval '! pod_calls_pod 0 1'
    check "restore brings it back" ./node.sh restore node-1
    check "its pod still answers" eventually 15 pod_calls_pod 0 1
    check "crash and start of node-1" crash_and_start
    check "its pod runs again" eventually 30 pod_calls_pod 0 1

    check "down leaves nothing" ./down.sh
    check "down again is no error" ./down.sh
    echo "$passed passed, $failed failed"
    ((failed == 0))
}

main "$@"
