#!/usr/bin/env bash
# Kubernetes' example driver of dynamic resource allocation on the test cluster, from its chart: two pretend GPUs on
# each node, of which a container sees only variables.
#
#   dra.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NAME=dra-example-driver
NAMESPACE=dra-system
# What its devices are of.
DRIVER=gpu.example.com
DEVICES=2

build_dra-example-driver() {
    build_program "$1" "sigs.k8s.io/$NAME" "$DRA_DRIVER_VERSION" "sigs.k8s.io/$NAME/cmd/dra-example-kubeletplugin"
    cp -r --no-preserve=mode "$MODULE_DIR/deployments/helm/$NAME" "$1/chart"
    make_program_image "$1" "$NAME" "$DRA_DRIVER_VERSION" /usr/bin/dra-example-kubeletplugin
}

build_all() { build_part "$NAME" "$DRA_DRIVER_VERSION"; }

up() {
    # As root, who alone may write into the kubelet's folders.
    install "$NAME" "$DRA_DRIVER_VERSION" "$NAMESPACE" \
        --set "image.repository=localhost/$NAME,image.tag=v$DRA_DRIVER_VERSION,image.pullPolicy=Never" \
        --set "kubeletPlugin.numDevices=$DEVICES,kubeletPlugin.podSecurityContext.runAsUser=0"
    # A ready pod has not yet told its devices.
    wait_for 60 "the devices of all nodes" all_told
    say "$NAME: $((${#NODES[@]} * DEVICES)) devices"
}

all_told() {
    local told
    told=$(kube get resourceslices --field-selector="spec.driver=$DRIVER" --output=jsonpath='{.items[*].spec.devices[*].name}' | wc -w)
    ((told == ${#NODES[@]} * DEVICES))
}

down() {
    # Without the driver no kubelet can give devices back, and pods that have some do not end.
    kube wait resourceclaims --all --all-namespaces --for=delete --timeout=60s &>/dev/null || true
    uninstall "$NAME" "$NAMESPACE"
    # The kubelets would do that half a minute later.
    kube delete resourceslices --field-selector="spec.driver=$DRIVER" >/dev/null
}

run_command "$@"
