# The host's bridge and the two nodes' namespaces.
# shellcheck shell=bash disable=SC2153 # the settings come from lib.sh
#
# Each node is a network and a mount namespace, held by a sleeping process.
# Both vanish with the last process in them, and every mount and interface of
# the node with them. The host is left with the bridge and its ends of the
# cables, so either node can be cut off from everything else.

# The host's end of a node's cable.
node_cable() { printf 'yolo-n%s' "$1"; }

RULE_COMMENT=yolo-operator-cluster
WORSE_COMMENT=$RULE_COMMENT-worse

# Places with one fixed path, given to each node as its own by a bind mount
# inside its mount namespace: kubelet's device plugin socket, CNI's results,
# containerd's shim sockets, what drivers tell it of devices, and the pods' logs
# are at such places.
NODE_FOLDERS=(/var/lib/kubelet /var/lib/cni /var/lib/containerd /run/containerd /run/cdi /var/log)

make_bridge() {
    local n
    ip link add "$BRIDGE" type bridge
    ip address add "$HOST_IP/24" dev "$BRIDGE"
    ip link set "$BRIDGE" up
    # Addresses of pretend pods answer "unreachable" at once, and no packet of
    # ours ever leaves the machine.
    ip route add unreachable "$NETWORK"
    for n in "${NODES[@]}"; do
        ip route add "$(node_pod_range "$n")" via "$(node_ip "$n")" dev "$BRIDGE"
    done
    # The host reaches Services through node 0's kube-proxy.
    ip route add "$SERVICE_RANGE" via "$(node_ip 0)" dev "$BRIDGE"
    # For hosts whose firewall drops what it does not know.
    host_rules -I
}

# host_rules -I|-D
host_rules() {
    local chain
    for chain in INPUT FORWARD; do
        iptables --wait "$1" "$chain" -i "$BRIDGE" -m comment --comment "$RULE_COMMENT" -j ACCEPT
    done
}

# What network.sh did, whatever it was. Rules of a node that is gone went with it.
mend_network() {
    local n rule
    for n in "${NODES[@]}"; do
        tc qdisc del dev "$(node_cable "$n")" root 2>/dev/null || true
        process_id "node-$n-holder" >/dev/null || continue
        while read -r rule; do
            # shellcheck disable=SC2086 # a rule is words
            in_node "$n" iptables --wait --table raw ${rule/#-A/-D}
        done < <(in_node "$n" iptables --wait --table raw -S PREROUTING | grep -F -- "$WORSE_COMMENT" | tr -d '"')
        # After its rule: what it holds is lost with it.
        stop_process "node-$n-delay"
    done
}

# A command inside a node: `in_node 0 ip address`.
in_node() {
    local holder
    holder=$(process_id "node-$1-holder") || die "node-$1 is not there; start the cluster with up.sh"
    shift
    nsenter --target "$holder" --net --mount -- "$@"
}

make_node_namespace() {
    local n=$1 cable holder folder
    cable=$(node_cable "$n")
    # Mounts of the host reach the node, none of the node reach the host.
    start_process "node-$n-holder" "node-$n-holder" unshare --net --mount --propagation slave sleep infinity
    wait_for 5 "the namespaces of node-$n" holder_ready "$n"
    holder=$(process_id "node-$n-holder")

    ip link add "$cable" type veth peer name eth0 netns "$holder"
    ip link set "$cable" master "$BRIDGE"
    ip link set "$cable" up
    for folder in "${NODE_FOLDERS[@]}"; do
        mkdir -p "$STATE/node-$n$folder"
        [[ -d $folder ]] || {
            mkdir -p "$folder"
            echo "$folder" >>"$STATE/made-folders"
        }
    done
    in_node "$n" bash -euc "$(declare -f inside_node); inside_node \"\$@\"" inside_node \
        "$(node_ip "$n")" "$HOST_IP" "$SERVICE_RANGE" "$STATE/node-$n" "${NODE_FOLDERS[@]}"
    for folder in "${NODES[@]}"; do
        ((folder == n)) || in_node "$n" ip route add "$(node_pod_range "$folder")" via "$(node_ip "$folder")"
    done
}

# Whether the holder has left the host's namespaces and sleeps.
holder_ready() {
    local pid
    pid=$(process_id "node-$1-holder") && [[ $(readlink "/proc/$pid/exe") == */sleep ]]
}

# Runs inside the node's namespaces.
inside_node() {
    local ip=$1 host_ip=$2 service_range=$3 own=$4 folder setting
    shift 4
    ip link set lo up
    ip address add "$ip/24" dev eth0
    ip link set eth0 up
    # No default route: what is not in the cluster is unreachable at once.
    ip route add "$service_range" via "$host_ip"
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # After a cut, kubelet's connections try again every second instead of ever
    # more seldom. Pods have network namespaces, and so settings, of their own.
    [[ ! -e /proc/sys/net/ipv4/tcp_rto_max_ms ]] || echo 1000 >/proc/sys/net/ipv4/tcp_rto_max_ms
    mount --make-rshared /
    for folder in "$@"; do mount --bind "$own$folder" "$folder"; done
    # kubelet sets a few kernel settings of the whole machine. It finds the
    # values it wants in files laid over them here, and leaves the host's be.
    mkdir -p "$own/sysctl"
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
        kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
        [[ -e /proc/sys/${setting%=*} ]] || continue
        echo "${setting#*=}" >"$own/sysctl/$(basename "${setting%=*}")"
        mount --bind "$own/sysctl/$(basename "${setting%=*}")" "/proc/sys/${setting%=*}"
    done
}

# Stops with plain words when an address or port is taken.
check_free() {
    local port taken
    taken=$(ip -o address show to "$NETWORK")
    [[ -z $taken ]] || die "the cluster needs the addresses $NETWORK, and this machine already uses some: $taken"
    taken=$(ip route show root "$NETWORK")
    [[ -z $taken ]] || die "the cluster needs the addresses $NETWORK, and this machine already has a route: $taken"
    for port in "$API_PORT" "$ETCD_PORT" "$ETCD_PEER_PORT" "$CONTROLLER_MANAGER_PORT" "$SCHEDULER_PORT"; do
        taken=$(ss --no-header --listening --numeric --tcp --processes "sport = :$port")
        [[ -z $taken ]] || die "the cluster needs port $port, and another program listens there: $taken"
    done
    taken=$(ss --no-header --listening --numeric --tcp --udp --processes "sport = :53" |
        grep -E ' (0\.0\.0\.0|\*|\[::\]):53 ') || return 0
    die "the cluster's DNS needs $HOST_IP:53, and another program listens on port 53 of all addresses: $taken"
}
