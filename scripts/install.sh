#!/usr/bin/env bash
# Brings the cluster up (or uses CLUSTER_KUBECONFIG's), hands it the images, installs the chart.
#
# A healthy local cluster is kept; `make cluster-up` makes a new one.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -z "${CLUSTER_KUBECONFIG:-}" ]]; then
    tests/cluster/up.sh --keep
fi
tests/cluster/binaries.sh kubernetes helm
source scripts/cluster-env.sh

policy=IfNotPresent
if ((LOCAL_CLUSTER)); then
    tests/cluster/load-image.sh target/images/operator.tar target/images/trainer.tar
else
    # The tag is always the same: nodes that have an earlier image of it would keep that.
    policy=Always
    # A store of its own, thrown away at the end: only from one does buildah push.
    store="$(mktemp -d target/images/store.XXXXXX)"
    trap 'rm -rf "$store"' EXIT
    buildah_here() { buildah --storage-driver vfs --root "$store/root" --runroot "$store/run" "$@"; }
    for name in operator trainer; do
        say "pushing $IMAGE_REPO/yolo-$name:dev"
        buildah_here pull --quiet "oci-archive:target/images/$name.tar" >/dev/null
        buildah_here push --quiet "localhost/yolo-$name:dev" "docker://$IMAGE_REPO/yolo-$name:dev"
    done
fi

say "helm upgrade --install yolo-operator charts/yolo-operator"
helm upgrade --install yolo-operator charts/yolo-operator \
    --namespace "$NAMESPACE" --create-namespace --wait --timeout 2m \
    --set image.repository="$OPERATOR_IMAGE",image.tag=dev,image.pullPolicy="$policy" \
    --set trainerImage.repository="$TRAINER_IMAGE",trainerImage.tag=dev,trainerImage.pullPolicy="$policy" \
    --set podAnnotations.images="$(sha256sum target/images/operator.tar | cut -c1-16)" \
    >/dev/null
say "the operator runs in namespace $NAMESPACE"
