#!/usr/bin/env bash
# Builds the third-party programs of the test cluster from their Go modules.
#
#   binaries.sh            all parts
#   binaries.sh NAME...    some: kubernetes etcd containerd coredns helm
#                          local-path-provisioner prometheus kwok
#                          netpol-analyzer delay
#   binaries.sh folder NAME    one, and prints the folder of its programs
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/lib-build.sh"

ALL=(kubernetes etcd containerd coredns helm local-path-provisioner prometheus kwok netpol-analyzer delay)
KUBERNETES_PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl)

version_of() {
    case $1 in
    kubernetes) echo "$KUBERNETES_VERSION" ;;
    etcd) echo "$ETCD_VERSION" ;;
    containerd) echo "$CONTAINERD_VERSION" ;;
    coredns) echo "$COREDNS_VERSION" ;;
    helm) echo "$HELM_VERSION" ;;
    local-path-provisioner) echo "$LOCAL_PATH_PROVISIONER_VERSION" ;;
    prometheus) echo "$PROMETHEUS_VERSION" ;;
    kwok) echo "$KWOK_VERSION" ;;
    delay) echo "$DELAY_VERSION" ;;
    netpol-analyzer) echo "$NETPOL_ANALYZER_VERSION" ;;
    *) die "unknown part '$1'; the parts are: ${ALL[*]}" ;;
    esac
}

build_kubernetes() {
    local out=$1 module gomod program packages=() version=v$KUBERNETES_VERSION
    gomod=$(go list -m -f '{{.GoMod}}' "k8s.io/kubernetes@$version")
    # Kubernetes' own go.mod points its staging modules at folders of its
    # repository; as a dependency they have to be named by their versions.
    {
        printf 'module cluster\n\ngo 1.26\n\nrequire k8s.io/kubernetes %s\n' "$version"
        sed -n 's|^[[:space:]]*\(k8s.io/[a-z0-9-]*\) => ./staging/.*|\1|p' "$gomod" |
            while read -r module; do
                printf 'replace %s => %s v%s\n' "$module" "$module" "$KUBERNETES_STAGING_VERSION"
            done
    } >go.mod
    for program in "${KUBERNETES_PROGRAMS[@]}"; do packages+=("k8s.io/kubernetes/cmd/$program"); done
    # The minor too: with the major alone the apiserver panics.
    local minor=${KUBERNETES_VERSION#*.} v=k8s.io/component-base/version flags='-s -w'
    flags+=" -X $v.gitVersion=$version -X $v.gitMajor=${KUBERNETES_VERSION%%.*} -X $v.gitMinor=${minor%%.*}"
    go build -mod=mod -ldflags "$flags" -o "$out/" "${packages[@]}"
}

build_etcd() {
    # `go install` refuses a module with replace directives.
    go mod init cluster
    go get -tool "go.etcd.io/etcd/server/v3@v$ETCD_VERSION"
    go build -ldflags '-s -w' -o "$1/etcd" go.etcd.io/etcd/server/v3
}

build_containerd() {
    local module=github.com/containerd/containerd/v2
    GOBIN=$1 go install -ldflags "-s -w -X $module/version.Version=v$CONTAINERD_VERSION" \
        "$module"/cmd/{containerd,containerd-shim-runc-v2,ctr}@v"$CONTAINERD_VERSION"
}

build_coredns() { GOBIN=$1 go install -ldflags '-s -w' "github.com/coredns/coredns@v$COREDNS_VERSION"; }

build_helm() {
    GOBIN=$1 go install -ldflags "-s -w -X helm.sh/helm/v4/internal/version.version=v$HELM_VERSION" \
        "helm.sh/helm/v4/cmd/helm@v$HELM_VERSION"
}

build_local-path-provisioner() {
    go mod init cluster
    go get -tool "github.com/rancher/local-path-provisioner@v$LOCAL_PATH_PROVISIONER_VERSION"
    go build -ldflags '-s -w' -o "$1/local-path-provisioner" github.com/rancher/local-path-provisioner
}

build_prometheus() {
    GOBIN=$1 go install -ldflags '-s -w' \
        github.com/prometheus/prometheus/cmd/{prometheus,promtool}@v"$PROMETHEUS_VERSION"
}

build_kwok() {
    local module
    GOBIN=$1 go install -ldflags '-s -w' "sigs.k8s.io/kwok/cmd/kwok@v$KWOK_VERSION"
    # The stages tell kwok how a pretend node and pod live; they are data of
    # the same module.
    module=$(go mod download -json "sigs.k8s.io/kwok@v$KWOK_VERSION" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    cp -r --no-preserve=mode "$module/kustomize/stage" "$1/stage"
}

build_netpol-analyzer() {
    local module=github.com/np-guard/netpol-analyzer
    # `go install` also asks for the list of all versions, which not every
    # module proxy has.
    go mod init cluster
    go mod edit -require="$module@v$NETPOL_ANALYZER_VERSION"
    go build -mod=mod -ldflags '-s -w' -o "$1/netpolicy" "$module/cmd/netpolicy"
}

build_delay() {
    cp "$CLUSTER_DIR/delay.go" .
    go mod init cluster
    go mod edit -require="github.com/florianl/go-nfqueue/v2@v$GO_NFQUEUE_VERSION"
    go build -mod=mod -ldflags '-s -w' -o "$1/delay" delay.go
}

main() {
    local names=("$@") name i=0 missing=()
    ((${#names[@]})) || names=("${ALL[@]}")
    for name in "${names[@]}"; do
        [[ -d $(part_dir "$name" "$(version_of "$name")") ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    say "programs to build: ${missing[*]}; once only, all of them take about 20 minutes on 2 cores"
    for name in "${missing[@]}"; do
        i=$((i + 1))
        build_part "$name" "$(version_of "$name")" "$i of ${#missing[@]}, $name $(version_of "$name")"
    done
}

if [[ ${1:-} == folder ]]; then
    (($# == 2)) || die "usage: binaries.sh [NAME...] | folder NAME"
    # Who asks reads standard output, and there finds nothing but the answer.
    main "$2" >&2
    printf '%s\n' "$(part_dir "$2" "$(version_of "$2")")"
else
    main "$@"
fi
