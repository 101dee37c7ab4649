#!/usr/bin/env bash
# The Prometheus operator on the test cluster, from its own example manifests, with an image of Prometheus that it can
# run.
#
#   prometheus-operator.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Without one of these its controller of Prometheus does not start; the rest it can do without.
KINDS=({prometheuses,servicemonitors,podmonitors,probes,prometheusrules}.monitoring.coreos.com)

# Two of its modules are in folders that its own module leaves out, and its go.mod says that they are there.
build_prometheus-operator() {
    local module=github.com/prometheus-operator/prometheus-operator source kind
    go mod init neighbours
    source=$(go mod download -json "$module@v$PROMETHEUS_OPERATOR_VERSION" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    cp -r --no-preserve=mode "$source" source
    cd source
    go mod edit -dropreplace "$module/pkg/apis/monitoring" -dropreplace "$module/pkg/client"
    go build -mod=mod -ldflags '-s -w' -o "$1/manager" ./cmd/operator
    make_program_image "$1" prometheus-operator "$PROMETHEUS_OPERATOR_VERSION"
    go build -mod=mod -ldflags '-s -w' -o "$1/manager" ./cmd/prometheus-config-reloader
    make_program_image "$1" prometheus-config-reloader "$PROMETHEUS_OPERATOR_VERSION" /bin/prometheus-config-reloader
    mkdir "$1/crds" "$1/manifests"
    for kind in "${KINDS[@]}"; do
        cp "example/prometheus-operator-crd/monitoring.coreos.com_${kind%%.*}.yaml" "$1/crds"
    done
    cp example/rbac/prometheus-operator/*-{cluster-role,cluster-role-binding,service-account,deployment}.yaml \
        example/rbac/prometheus/*-{cluster-role,cluster-role-binding,service-account}.yaml "$1/manifests"
    sed -i 's/^\( *namespace:\) default$/\1 monitoring/' "$1/manifests"/*
    # No endpoints of kubelets, which `down` would have to find. What it asks for would leave less for the other
    # neighbours, and with 200m of a CPU it is slow.
    sed -i -e 's|quay.io/prometheus-operator/|localhost/|' -e 's|^\( *\)image: .*|&\n\1imagePullPolicy: Never|' \
        -e '/--kubelet-/d' -e '/^ *resources:$/,/^ *memory: 100Mi$/d' "$1"/manifests/*-deployment.yaml
}

# A part of its own: it goes with the version of Prometheus.
build_prometheus-image() {
    cp "$PROMETHEUS/prometheus" "$1/manager"
    make_program_image "$1" prometheus "$PROMETHEUS_VERSION" /bin/prometheus
}

build_all() {
    build_part prometheus-operator "$PROMETHEUS_OPERATOR_VERSION"
    "$CLUSTER_DIR/binaries.sh" prometheus
    build_part prometheus-image "$PROMETHEUS_VERSION"
}

up() {
    local dir
    dir=$(part_dir prometheus-operator "$PROMETHEUS_OPERATOR_VERSION")
    "$CLUSTER_DIR/load-image.sh" "$dir"/*.tar "$(part_dir prometheus-image "$PROMETHEUS_VERSION")"/*.tar
    say "prometheus-operator $PROMETHEUS_OPERATOR_VERSION: applying its manifests"
    # By the server: they are too large for the annotation in which kubectl keeps what it has applied.
    kube apply --server-side --filename "$dir/crds" >/dev/null
    kube wait crd "${KINDS[@]}" --for=condition=Established --timeout=30s >/dev/null
    kube create namespace monitoring >/dev/null
    kube apply --namespace monitoring --filename "$dir/manifests" >/dev/null
    kube rollout status deployment/prometheus-operator --namespace monitoring --timeout=2m >/dev/null
    say "prometheus-operator $PROMETHEUS_OPERATOR_VERSION is ready"
}

down() {
    # A killed test leaves our chart with objects of these kinds. Without the kinds helm could not upgrade it any more.
    if [[ $(helm_here get manifest yolo-operator --namespace yolo-system 2>/dev/null) == *monitoring.coreos.com* ]]; then
        helm_here upgrade yolo-operator "$NEIGHBOURS/../../charts/yolo-operator" --namespace yolo-system --reuse-values \
            --set=metrics.{serviceMonitor,podMonitor,prometheusRule}.enabled=false >/dev/null
    fi
    # There is no release of this name, which helm does not mind.
    uninstall prometheus-operator monitoring "${KINDS[@]}"
    kube delete clusterrole,clusterrolebinding prometheus-operator prometheus --ignore-not-found >/dev/null
}

run_command "$@"
