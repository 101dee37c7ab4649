#!/usr/bin/env bash
# Makes the network between the nodes of the test cluster worse, or mends it.
#
#   network.sh slow RATE       each node's cable carries so much (tbf), 2mbit for example
#   network.sh lossy PERCENT   so many packets in a hundred that arrive over a cable are lost
#   network.sh mend            both as they were
#   network.sh dns-stop        nobody answers names any more
#   network.sh dns-start       somebody does again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh
source ./lib-control-plane.sh

USAGE="usage: network.sh slow RATE | lossy PERCENT | mend | dns-stop | dns-start"

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
            iptables --wait --table raw --append PREROUTING --in-interface "$(node_cable "$n")" \
                --match statistic --mode random --probability "$(awk "BEGIN {print $2 / 100}")" \
                --match comment --comment "$LOSSY_COMMENT" --jump DROP
        done
        say "$2 of a hundred packets are lost"
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
