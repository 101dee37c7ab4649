#!/usr/bin/env bash
# Prometheus beside the test cluster. It sees pods at their addresses.
#
#   prometheus.sh up CONFIG    starts it anew with this configuration file
#   prometheus.sh down
#   prometheus.sh url
#   prometheus.sh test-rules FILE    promtool's tests of alerts; needs no cluster
set -euo pipefail
CALLED_FROM=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh

USAGE="usage: prometheus.sh up CONFIG | down | url | test-rules FILE"
URL=http://127.0.0.1:$PROMETHEUS_PORT

prometheus_ready() { busybox wget -q -O /dev/null "$URL/-/ready"; }

main() {
    local config
    require_root
    case ${1:-} in
    up)
        (($# == 2)) || die "$USAGE"
        config=$(cd "$CALLED_FROM" && realpath --canonicalize-existing "$2") || die "no file $2"
        [[ -f $KUBECONFIG_FILE ]] || die "the test cluster is not up; start it with up.sh"
        ./binaries.sh prometheus
        stop_process prometheus
        rm -rf "$STATE/prometheus"
        start_process prometheus daemons "$PROMETHEUS/prometheus" --config.file="$config" \
            --storage.tsdb.path="$STATE/prometheus" --web.listen-address="127.0.0.1:$PROMETHEUS_PORT" --log.level=warn
        wait_running 60 Prometheus prometheus prometheus_ready
        say "Prometheus is ready at $URL"
        ;;
    down)
        stop_process prometheus
        rm -rf "$STATE/prometheus"
        ;;
    url) echo "$URL" ;;
    test-rules)
        (($# == 2)) || die "$USAGE"
        ./binaries.sh prometheus
        cd "$CALLED_FROM"
        "$PROMETHEUS/promtool" test rules "$2"
        ;;
    *) die "$USAGE" ;;
    esac
}

main "$@"
