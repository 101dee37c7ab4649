# Taking the cluster away, whatever state a killed run left it in.
# shellcheck shell=bash disable=SC2153 # the settings come from lib.sh

remove_cluster() {
    local n h folder
    kill_group ''
    # The nodes' mounts and interfaces went with their namespaces.
    for n in "${NODES[@]}"; do ip link delete "$(node_cable "$n")" 2>/dev/null || true; done
    ip link delete "$BRIDGE" 2>/dev/null || true
    ip route delete unreachable "$NETWORK" 2>/dev/null || true
    while host_rules -D 2>/dev/null; do :; done
    mend_network
    while read -r folder; do umount --lazy "$folder"; done < <(host_mounts)
    wait_for 10 "the kernel to let go of the cgroups" remove_cgroups
    if [[ -f $STATE/made-folders ]]; then
        while read -r folder; do rmdir --ignore-fail-on-non-empty "$folder" 2>/dev/null || true; done <"$STATE/made-folders"
    fi
    rm -rf --one-file-system "$STATE"
}

remove_cgroups() {
    local h
    for h in $(cgroup_hierarchies); do
        [[ ! -d $h/$CGROUP ]] || find "$h/$CGROUP" -depth -type d -exec rmdir {} +
    done
}

# Mounts below the state folder in the host's own namespace, innermost first.
host_mounts() { awk -v under="$STATE/" 'index($5, under) == 1 {print $5}' /proc/self/mountinfo | tac; }

# A line for each thing that should not be there after remove_cluster.
list_leftovers() {
    local h pid exe
    for pid in $(group_processes ''); do echo "process $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)"; done
    # Also what may have slipped out of the cgroup.
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" 2>/dev/null) in
        "$CACHE"/*/helm | "$CACHE"/*/kubectl | "$CACHE"/*/ctr | "$CACHE"/*/promtool) ;;
        "$KUBERNETES"/* | "$ETCD"/* | "$CONTAINERD"/* | "$COREDNS"/* | "$LOCAL_PATH_PROVISIONER"/* | "$PROMETHEUS"/* | "$KWOK"/* | "$DELAY"/*)
            pid=${exe#/proc/}
            echo "process ${pid%/exe}: $(readlink "$exe")"
            ;;
        esac
    done
    host_mounts | sed 's/^/mount /'
    ip -o link show | awk -F'[:@ ]+' '$2 ~ /^yolo(br0|-n)/ {print "interface " $2}'
    ip route show root "$NETWORK" | sed 's/^/route /'
    iptables --wait -S 2>/dev/null | grep -F -- "$RULE_COMMENT" | sed 's/^/iptables rule /' || true
    for h in $(cgroup_hierarchies); do [[ ! -d $h/$CGROUP ]] || echo "cgroup $h/$CGROUP"; done
    [[ ! -e $STATE ]] || echo "folder $STATE"
}
