#!/usr/bin/env bash
# Says plainly what this machine lacks for `make demo` and `make test`; changes nothing.
set -euo pipefail

missing=()
need() { missing+=("$1"); }

# need_version NAME HAVE WANT WHERE
need_version() {
    if [[ -z "$2" || "$(printf '%s\n%s\n' "$3" "$2" | sort -V | head -n 1)" != "$3" ]]; then
        need "$1 $3 or later (found: ${2:-none}): $4"
    fi
}

[[ "$(uname -sm)" == "Linux x86_64" ]] || need "Linux on x86_64 (this is $(uname -sm)): libtorch's wheel is for it"
((EUID == 0)) || need "root: the cluster makes namespaces, cgroups and iptables rules (run with sudo)"
command -v apt-get >/dev/null || need "apt-get (Debian or a relative): runc, buildah and the CNI plugins come from it"
command -v g++ >/dev/null || need "g++: apt-get install g++"
command -v git >/dev/null || need "git: apt-get install git"
command -v curl >/dev/null || need "curl: apt-get install curl"

rust="$(rustc --version 2>/dev/null | cut -d' ' -f2 || :)"
need_version Rust "$rust" 1.95 https://rustup.rs
go="$(go env GOVERSION 2>/dev/null | sed 's/^go//' || :)"
need_version Go "$go" 1.26 https://go.dev/dl
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || need "Python 3.9 or later"
python3 -c 'import ensurepip' 2>/dev/null || need "venv for python3: apt-get install python3-venv"
python3 -m pip --version >/dev/null 2>&1 || need "pip for python3: apt-get install python3-pip"

cache="${XDG_CACHE_HOME:-$HOME/.cache}"
mkdir -p "$cache"
free="$(df --output=avail -BG "$cache" | tail -n 1 | tr -dc 0-9)"
# Most of it only while other projects' programs are built.
wanted=20
[[ ! -d "$cache/yolo-operator" ]] || ! compgen -G "$cache/yolo-operator/kwok-*" >/dev/null || wanted=10
((free >= wanted)) || need "$wanted GB of free disk below $cache (there are $free)"

if ((${#missing[@]})); then
    echo "this machine lacks:" >&2
    printf '  - %s\n' "${missing[@]}" >&2
    exit 1
fi
