#!/usr/bin/env bash
# Puts a small file system over the folder of a volume, for both nodes.
#
#   small-volume.sh make FOLDER SIZE       it holds no more than SIZE, 60m for example
#   small-volume.sh resize FOLDER SIZE     what is in it stays
#   small-volume.sh fill FOLDER            it holds no more than it does now
#   small-volume.sh remove FOLDER          with what is in it, once the last pod has left it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh

USAGE="usage: small-volume.sh make|resize FOLDER SIZE, small-volume.sh fill|remove FOLDER"

main() {
    local folder=${2:?$USAGE}
    require_root
    case $1 in
    make) mount -t tmpfs -o "size=${3:?$USAGE},mode=0777" yolo-small "$folder" ;;
    resize) mount -o "remount,size=${3:?$USAGE}" "$folder" ;;
    # No size below what is in use is taken, and while something writes that grows.
    fill) wait_for 10 "$folder to be full" fill "$folder" ;;
    remove) umount --lazy "$folder" ;;
    *) die "$USAGE" ;;
    esac
}

fill() { mount -o "remount,size=$(df --block-size=1K --output=used "$1" | tail -1)k" "$1"; }

main "$@"
