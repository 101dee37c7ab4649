# shellcheck shell=bash
# Sourced by the scripts that talk to a cluster: which one, and with which programs.
#
# Sets KUBECONFIG, PATH (kubectl, helm), LOCAL_CLUSTER (1 for the one of tests/cluster), OPERATOR_IMAGE,
# TRAINER_IMAGE and NAMESPACE. A KUBECONFIG from outside is never used: only CLUSTER_KUBECONFIG is.

# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tests/cluster/lib.sh"

PATH="$KUBERNETES:$(part_dir helm "$HELM_VERSION"):$PATH"
NAMESPACE=yolo-system
if [[ -n "${CLUSTER_KUBECONFIG:-}" ]]; then
    [[ -r $CLUSTER_KUBECONFIG ]] || die "CLUSTER_KUBECONFIG=$CLUSTER_KUBECONFIG cannot be read"
    [[ -n "${IMAGE_REPO:-}" ]] ||
        die "CLUSTER_KUBECONFIG needs IMAGE_REPO=registry/path, from which its nodes can pull"
    LOCAL_CLUSTER=0
    KUBECONFIG="$CLUSTER_KUBECONFIG"
    IMAGE_PREFIX="$IMAGE_REPO"
else
    LOCAL_CLUSTER=1
    KUBECONFIG="$KUBECONFIG_FILE"
    IMAGE_PREFIX=localhost
fi
OPERATOR_IMAGE="$IMAGE_PREFIX/yolo-operator"
TRAINER_IMAGE="$IMAGE_PREFIX/yolo-trainer"
export PATH KUBECONFIG LOCAL_CLUSTER NAMESPACE OPERATOR_IMAGE TRAINER_IMAGE
