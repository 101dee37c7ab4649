#!/usr/bin/env bash
# Builds the container images without Docker and without any registry.
#
#   scripts/images.sh [--variant cpu|cuda]
#
# Results: target/images/operator.tar and target/images/trainer.tar, OCI archives of
# localhost/yolo-operator:dev and localhost/yolo-trainer:dev, and target/images/sizes.json.
# Does nothing when neither the binaries nor the Dockerfile changed.
set -euo pipefail
cd "$(dirname "$0")/.."

variant=cpu
if [[ "${1:-}" == --variant ]]; then variant="${2:?cpu or cuda}"; fi

export BUILDAH_ISOLATION=chroot
images=target/images
mkdir -p "$images"

scripts/build-binaries.sh
stamp="$(cat Dockerfile .dockerignore scripts/image-root.sh \
    "target/$(uname -m)-unknown-linux-gnu/release/yolo-operator" \
    "target/$(uname -m)-unknown-linux-gnu/release/yolo-agent" \
    "target/$(uname -m)-unknown-linux-gnu/release/yolo-fetch" \
    target/release/yolo-trainer <(echo "$variant") | sha256sum | cut -d' ' -f1)"
if [[ "$(cat "$images/stamp" 2>/dev/null)" == "$stamp" ]]; then
    echo "images: up to date"
    exit 0
fi

# On a machine that never had the cluster.
command -v buildah >/dev/null || tests/cluster/deps.sh

echo "images: collecting files"
scripts/image-root.sh "$variant" target/image
# A store of its own, thrown away at the end: vfs keeps a full copy of every layer.
store="$(mktemp -d "$images/store.XXXXXX")"
trap 'rm -rf "$store"' EXIT
buildah_here() { buildah --storage-driver vfs --root "$store/root" --runroot "$store/run" "$@"; }

for name in operator trainer; do
    image="localhost/yolo-$name:dev"
    echo "images: building $image"
    buildah_here build --quiet --target "$name" --build-arg PREBUILT=1 \
        --build-arg VARIANT="$variant" --timestamp 0 --tag "$image" . >/dev/null
    rm -f "$images/$name.tar"
    # Lightly compressed: these archives go no further than this machine's containerd.
    buildah_here push --quiet --compression-format zstd --compression-level 1 \
        "$image" "oci-archive:$images/$name.tar:$image"
done

# Unpacked, as they lie on a node.
mebibytes() { du --bytes --summarize --total "$@" | awk 'END{printf "%.1f", $1/1048576}'; }
printf '{"operatorImageMiB": %s, "trainerImageMiB": %s}\n' "$(mebibytes target/image/operator)" \
    "$(mebibytes target/image/trainer target/image/trainer-libs)" >"$images/sizes.json"
echo "$stamp" >"$images/stamp"
echo "images: $(cat "$images/sizes.json")"
