#!/usr/bin/env bash
# Installs the Debian packages the test cluster needs, where they are missing.
# Asks the network only when there is something to install.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# A package and a file it brings. Files are asked, not the package database:
# what matters is that the program is there, not who put it there.
PACKAGES=(
    runc:/usr/sbin/runc
    containernetworking-plugins:/usr/lib/cni/ptp
    buildah:/usr/bin/buildah
    iptables:/usr/sbin/iptables
    iproute2:/sbin/ip
    conntrack:/usr/sbin/conntrack
    busybox-static:/bin/busybox
    openssl:/usr/bin/openssl
    procps:/usr/bin/ps
    util-linux:/usr/bin/nsenter
    xz-utils:/usr/bin/xz
    mount:/usr/bin/mount
    gcc:/usr/bin/gcc
    libc6-dev:/usr/lib/x86_64-linux-gnu/libc.a
)

# The newest Go that answers, as "1 26"; 0 0 when there is none.
go_version() {
    local text
    text=$(go env GOVERSION 2>/dev/null) || text=go0.0
    [[ $text =~ ^go([0-9]+)\.([0-9]+) ]] && echo "${BASH_REMATCH[1]} ${BASH_REMATCH[2]}" || echo 0 0
}

main() {
    local entry file missing=() major minor
    require_root
    for entry in "${PACKAGES[@]}"; do
        file=${entry#*:}
        file=${file/x86_64-linux-gnu/$(uname -m)-linux-gnu}
        [[ -e $file ]] || missing+=("${entry%%:*}")
    done
    # The ordinary busybox is linked to libraries that the helper image lacks.
    ! ldd /bin/busybox &>/dev/null || missing+=(busybox-static)
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null ||
            die "these Debian packages are missing and there is no apt-get to install them: ${missing[*]}"
        say "installing ${missing[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get install --yes --no-install-recommends -qq "${missing[@]}" >/dev/null 2>&1 || {
            # The package lists may be old or absent.
            apt-get update -qq
            apt-get install --yes --no-install-recommends -qq "${missing[@]}" >/dev/null
        }
    fi
    read -r major minor < <(go_version)
    ((major > 1 || (major == 1 && minor >= 26))) ||
        die "Go 1.26 or newer must be on the PATH to build Kubernetes; found $major.$minor (0.0: none)"
    grep -qw overlay /proc/filesystems ||
        die "the kernel has no overlay file system, which containerd needs"
}

main "$@"
