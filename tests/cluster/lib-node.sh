# The programs of a node. Each runs inside the node's namespaces, where the
# usual paths (/run/containerd, /var/lib/kubelet, ...) are the node's own.
# shellcheck shell=bash disable=SC2153 # the settings come from lib.sh

# start_node_process NODE NAME COMMAND...
start_node_process() {
    local n=$1 name=$2 holder
    holder=$(process_id "node-$n-holder") || die "node-$n is not there; start the cluster with up.sh"
    shift 2
    start_process "node-$n-$name" "node-$n-daemons" nsenter --target "$holder" --net --mount -- "$@"
}

# The containerd socket as seen from the host.
node_socket() { printf '%s/node-%s/run/containerd/containerd.sock' "$STATE" "$1"; }

node_ctr() {
    local n=$1
    shift
    "$CONTAINERD/ctr" --address "$(node_socket "$n")" --namespace k8s.io "$@"
}

start_containerd() {
    local n=$1 own=$STATE/node-$1
    mkdir -p "$own/cni"
    # ptp, not bridge: pods of one node meet in its routing, so a Service whose
    # pod sits on the caller's node works without bridge netfilter.
    cat >"$own/cni/10-yolo.conflist" <<END
{
  "cniVersion": "1.0.0",
  "name": "yolo",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$(node_pod_range "$n")"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    }
  ]
}
END
    cat >"$own/containerd.toml" <<END
version = 3
# These make folders on the host (/opt/containerd, /var/run/nri) and are unused.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = 'localhost/pause:1'
[plugins.'io.containerd.cri.v1.runtime']
  # Some machines lack the right to lower a process's OOM score.
  restrict_oom_score_adj = true
  # Loading a profile would change the host.
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ['/usr/lib/cni']
    conf_dir = '$own/cni'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = 'io.containerd.runc.v2'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = '/usr/sbin/runc'
      SystemdCgroup = false
END
    start_node_process "$n" containerd "$CONTAINERD/containerd" --config "$own/containerd.toml" --log-level warn
}

containerd_ready() { node_ctr "$1" version; }

# The two images every node needs before its first pod.
load_base_images() {
    local n=$1 image
    wait_running 20 "containerd of node-$n" "node-$n-containerd" containerd_ready "$n"
    for image in pause helper; do
        node_ctr "$n" images import "$IMAGES/$image.tar" &>>"$LOGS/node-$n-images.log"
    done
}

start_kubelet() {
    local n=$1 own=$STATE/node-$1
    # Pods that do not use the cluster's DNS get no other either.
    echo "nameserver $HOST_IP" >"$own/resolv.conf"
    cat >"$own/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication:
  anonymous: {enabled: false}
  x509: {clientCAFile: $PKI/ca.crt}
tlsCertFile: $PKI/node-$n.crt
tlsPrivateKeyFile: $PKI/node-$n.key
clusterDomain: cluster.local
clusterDNS: ["$HOST_IP"]
resolvConf: $own/resolv.conf
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP/node-$n
enforceNodeAllocatable: []
oomScoreAdj: 0
maxPods: 200
serializeImagePulls: false
registryPullQPS: 0
eventRecordQPS: 0
kubeAPIQPS: 200
kubeAPIBurst: 400
# A node that is cut off must be seen within controller-manager's 20 s of
# grace, and one that is back within seconds.
nodeStatusUpdateFrequency: 4s
nodeLeaseDurationSeconds: 12
# How soon a pod sees that a Secret it mounts has changed: controllers that make
# their own certificates are not ready before.
syncFrequency: 5s
# The disk and memory are the host's: never evict pods or delete images over
# what other programs use.
evictionHard: {memory.available: "0%", nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}
imageGCHighThresholdPercent: 100
END
    start_node_process "$n" kubelet "$KUBERNETES/kubelet" --config="$own/kubelet.yaml" \
        --kubeconfig="$PKI/node-$n.kubeconfig" --hostname-override="node-$n" --node-ip="$(node_ip "$n")"
}

start_kube_proxy() {
    local n=$1 own=$STATE/node-$1
    cat >"$own/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $PKI/kube-proxy.kubeconfig}
hostnameOverride: node-$n
clusterCIDR: $POD_RANGE
# Zero leaves the machine's settings be; some are not ours to write.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s, udpTimeout: 0s, udpStreamTimeout: 0s}
iptables: {minSyncPeriod: 200ms}
END
    start_node_process "$n" kube-proxy "$KUBERNETES/kube-proxy" --config="$own/kube-proxy.yaml"
}

# Ready, and open for pods: the taints of a lost node go a little later than
# the condition.
node_ready() {
    local state
    state=$(kube --request-timeout=5s get node "node-$1" \
        -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints[*].key}')
    [[ $state == True* && $state != *node.kubernetes.io/* ]]
}

# When the node last gave a sign of life.
node_heartbeat() {
    kube --request-timeout=5s --namespace kube-node-lease get lease "node-$1" -o 'jsonpath={.spec.renewTime}'
}
