#!/usr/bin/env bash
# Makes the network between the nodes of the test cluster worse, or mends it.
#
#   network.sh slow RATE       each node's cable carries so much (tbf), 2mbit for example
#   network.sh lossy PERCENT   so many packets in a hundred that arrive at a node are lost
#   network.sh delayed TIME    packets that arrive at a node are held so long, 20ms for example
#   network.sh mend            all as they were
#   network.sh dns-stop        nobody answers names any more
#   network.sh dns-start       somebody does again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh
source ./lib-control-plane.sh

USAGE="usage: network.sh slow RATE | lossy PERCENT | delayed TIME | mend | dns-stop | dns-start"

# Any number that nobody else in a node's network has.
QUEUE=1

# arriving N OPTION...: a rule for what arrives at a node over its cable. In the node's own network: what goes over the
# host's bridge is, by the host's rules, of the bridge and of no cable.
arriving() {
    local n=$1 command=$2
    shift 2
    in_node "$n" iptables --wait --table raw "$command" PREROUTING --in-interface eth0 "$@" \
        --match comment --comment "$WORSE_COMMENT"
}

queue_read() { in_node "$1" grep -q "^ *$QUEUE " /proc/net/netfilter/nfnetlink_queue; }

main() {
    local n
    require_root
    process_id etcd >/dev/null || die "the test cluster is not up; start it with up.sh"
    case ${1:-} in
    slow)
        (($# == 2)) || die "$USAGE"
        mend_network
        for n in 0 1; do
            tc qdisc add dev "$(node_cable "$n")" root tbf rate "$2" burst 64kb latency 200ms
        done
        say "each cable carries $2"
        ;;
    lossy)
        (($# == 2)) || die "$USAGE"
        mend_network
        for n in 0 1; do
            arriving "$n" --append --match statistic --mode random --jump DROP \
                --probability "$(awk "BEGIN {print $2 / 100}")"
        done
        say "$2 of a hundred packets are lost"
        ;;
    delayed)
        (($# == 2)) || die "$USAGE"
        ./binaries.sh delay
        mend_network
        for n in 0 1; do
            start_process "node-$n-delay" daemons nsenter --target "$(process_id "node-$n-holder")" --net -- \
                "$DELAY/delay" "$QUEUE" "$2"
            wait_running 10 "the queue of node-$n" "node-$n-delay" queue_read "$n"
            arriving "$n" --append --jump NFQUEUE --queue-num "$QUEUE"
        done
        say "each packet is held for $2"
        ;;
    mend)
        mend_network
        say "the network is as it was"
        ;;
    dns-stop) stop_process coredns ;;
    dns-start)
        process_id coredns >/dev/null || start_coredns
        wait_running 30 DNS coredns dns_answers
        say "DNS answers"
        ;;
    *) die "$USAGE" ;;
    esac
}

main "$@"
