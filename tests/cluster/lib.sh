# Shared by every script of this folder: settings, messages, waiting, the lock.
# shellcheck shell=bash disable=SC2034 # the settings are used by the scripts

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
source "$CLUSTER_DIR/versions.env"

# Outside the clone: a fresh clone or `git clean` must not cost a rebuild.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/yolo-operator

# One fixed place, whichever checkout runs: the next run finds what a killed
# one left.
STATE=/var/lib/yolo-operator-cluster
LOGS=$STATE/logs
PIDS=$STATE/pids
PKI=$STATE/pki
KUBECONFIG_FILE=$STATE/kubeconfig
# There when the cluster was started for benchmarks; see up.sh.
BENCH_MARK=$STATE/bench
AUDIT_LOG=$LOGS/audit.log
# The namespace whose accounts' requests are noted there.
AUDITED=yolo-system
# The name of the cgroup that holds every process of the cluster.
CGROUP=yolo-operator-cluster

# Addresses, all out of 10.213.0.0/16. The host holds .0.1, node N .0.(10+N).
NETWORK=10.213.0.0/16
BRIDGE=yolobr0
HOST_IP=10.213.0.1
POD_RANGE=10.213.16.0/20
SERVICE_RANGE=10.213.128.0/20
SERVICE_IP=10.213.128.1
FAKE_POD_RANGE=10.213.64.1/18
NODES=(0 1)

# Ports on the host. The nodes' own ports are in their network namespaces.
API_PORT=16443
ETCD_PORT=16379
ETCD_PEER_PORT=16380
CONTROLLER_MANAGER_PORT=16257
SCHEDULER_PORT=16259
KWOK_PORT=16247
PROMETHEUS_PORT=19090

# Where the programs live; see binaries.sh.
part_dir() { printf '%s/%s-%s' "$CACHE" "$1" "$2"; }
KUBERNETES=$(part_dir kubernetes "$KUBERNETES_VERSION")
ETCD=$(part_dir etcd "$ETCD_VERSION")
CONTAINERD=$(part_dir containerd "$CONTAINERD_VERSION")
COREDNS=$(part_dir coredns "$COREDNS_VERSION")
LOCAL_PATH_PROVISIONER=$(part_dir local-path-provisioner "$LOCAL_PATH_PROVISIONER_VERSION")
PROMETHEUS=$(part_dir prometheus "$PROMETHEUS_VERSION")
DELAY=$(part_dir delay "$DELAY_VERSION")
KWOK=$(part_dir kwok "$KWOK_VERSION")
IMAGES=$(part_dir images "$IMAGES_VERSION")

START_TIME=$EPOCHREALTIME

# Seconds since the script began, with one decimal.
elapsed() {
    local now=${EPOCHREALTIME/[.,]/} begun=${START_TIME/[.,]/}
    local tenths=$(((now - begun) / 100000))
    printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

say() { printf '[%6s s] %s\n' "$(elapsed)" "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

require_root() {
    [[ $(uname -s) == Linux ]] || die "the test cluster needs Linux; this is $(uname -s)"
    ((EUID == 0)) || die "the test cluster needs root (namespaces, cgroups, iptables); run it with sudo"
}

# Two runs at once would pull the ground from under each other. The lock is on
# a folder that is always there, so no lock file is left behind; a killed run
# gives it back by itself, once the command it was in has ended.
take_lock() {
    exec 8</var/lib
    flock --wait 3 8 && return
    say "another run is starting or stopping the test cluster; waiting for it"
    flock --wait 120 8 || die "the other run does not end; try again later"
}

# kubectl on the test cluster, never on whatever KUBECONFIG names.
kube() { "$KUBERNETES/kubectl" --kubeconfig "$KUBECONFIG_FILE" "$@"; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" &>/dev/null; do
        ((SECONDS < deadline)) || {
            printf 'error: gave up waiting for %s\n' "$what" >&2
            return 1
        }
        sleep 0.1
    done
}

node_name() { printf 'node-%s' "$1"; }
node_ip() { printf '10.213.0.%s' $((10 + $1)); }
node_pod_range() { printf '10.213.%s.0/24' $((16 + $1)); }

# The number in a node's name, or an error that names the choices.
node_number() {
    local n
    for n in "${NODES[@]}"; do
        [[ $1 != "$(node_name "$n")" ]] || {
            echo "$n"
            return
        }
    done
    die "no node '$1'; the nodes are node-0 and node-1"
}
