#!/usr/bin/env bash
# Lays out the files of the images under a folder, from the release binaries:
#
#   scripts/image-root.sh cpu|cuda OUT
#
#   OUT/operator       /yolo-operator /yolo-agent /yolo-fetch
#   OUT/trainer        /opt/yolo/bin/yolo-trainer, /etc, /tmp
#   OUT/trainer-libs   /opt/yolo/lib (libtorch) and the C and C++ run-time libraries it needs
#
# The trainer image has no distribution underneath: the shared libraries that the program really
# loads, found by the dynamic linker itself, are all it holds.
set -euo pipefail
cd "$(dirname "$0")/.."

variant="${1:?cpu or cuda}"
out="${2:?output folder}"
target="$(uname -m)-unknown-linux-gnu"

rm -rf "$out"
mkdir -p "$out/operator" "$out/trainer/opt/yolo/bin" "$out/trainer/etc" "$out/trainer/tmp" \
    "$out/trainer-libs/opt/yolo/lib"

for name in yolo-operator yolo-agent yolo-fetch; do
    install -m 0755 "target/$target/release/$name" "$out/operator/"
done

trainer=target/release/yolo-trainer
install -m 0755 "$trainer" "$out/trainer/opt/yolo/bin/"
# Without a passwd file, libraries that ask for the user's name warn; files come before DNS.
echo 'nonroot:x:65532:65532:nonroot:/tmp:/sbin/nologin' >"$out/trainer/etc/passwd"
echo 'nonroot:x:65532:' >"$out/trainer/etc/group"
echo 'hosts: files dns' >"$out/trainer/etc/nsswitch.conf"
chmod 1777 "$out/trainer/tmp"

environment="$(scripts/libtorch.sh --env)"
eval "$environment"

# Copies one shared library to where the trainer's run path (/opt/yolo/lib) or the system's has it.
copy_library() {
    local file="$1"
    case "$file" in
    "$LIBTORCH"/*) cp -L "$file" "$out/trainer-libs/opt/yolo/lib/" ;;
    *) install -D -m 0755 "$(readlink -f "$file")" "$out/trainer-libs$file" ;;
    esac
}

missing="$(ldd "$trainer" | grep 'not found' || :)"
if [[ -n "$missing" ]]; then
    echo "image-root.sh: the trainer needs libraries that are not here:"$'\n'"$missing" >&2
    exit 1
fi
ldd "$trainer" | awk '/=> \//{print $3} /^\t\/lib/{print $1}' | sort -u | while read -r file; do
    copy_library "$file"
done

case "$variant" in
cpu) ;;
cuda) scripts/libtorch-cuda.sh "$out/trainer-libs/opt/yolo/lib" ;;
*)
    echo "image-root.sh: no variant '$variant': cpu or cuda" >&2
    exit 2
    ;;
esac
