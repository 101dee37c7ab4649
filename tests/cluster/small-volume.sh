#!/usr/bin/env bash
# Puts a small file system over a folder, as one node of the test cluster sees it.
#
#   small-volume.sh make NODE FOLDER SIZE      it holds no more than SIZE, 60m for example
#   small-volume.sh resize NODE FOLDER SIZE    what is in it stays
#   small-volume.sh keep NODE FOLDER           copies what is in it to the folder below, for remove
#   small-volume.sh remove NODE FOLDER         once the last pod has left it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
source ./lib.sh
source ./lib-process.sh
source ./lib-network.sh
source ./lib-node.sh

USAGE="usage: small-volume.sh make|resize NODE FOLDER SIZE, small-volume.sh keep|remove NODE FOLDER"

main() {
    local n
    require_root
    (($# >= 3)) || die "$USAGE"
    n=$(node_number "$2")
    case $1 in
    make) in_node "$n" mount -t tmpfs -o "size=${4:?$USAGE},mode=0777" yolo-small "$3" ;;
    resize) in_node "$n" mount -o "remount,size=${4:?$USAGE}" "$3" ;;
    keep) cp --archive "/proc/$(process_id "node-$n-holder")/root$3/." "$3/" ;;
    remove) in_node "$n" umount --lazy "$3" ;;
    *) die "$USAGE" ;;
    esac
}

main "$@"
