# Shared by the scripts of this folder, each of which brings one neighbour:
#
#   NAME.sh up      builds it once, loads its image, installs its chart anew, waits until it is ready
#   NAME.sh down    removes it with all objects of its kinds
#   NAME.sh build   only builds it (needs no cluster)
# shellcheck shell=bash

NEIGHBOURS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../cluster/lib.sh
source "$NEIGHBOURS/../cluster/lib.sh"
# shellcheck source=../cluster/lib-build.sh
source "$CLUSTER_DIR/lib-build.sh"
# shellcheck source=versions.env
source "$NEIGHBOURS/versions.env"

helm_here() { "$(part_dir helm "$HELM_VERSION")/helm" --kubeconfig "$KUBECONFIG_FILE" "$@"; }

# build_program OUT MODULE VERSION PACKAGE: a program named `manager`, and the module's folder in MODULE_DIR.
build_program() {
    go mod init neighbours
    go get -tool "$4@v$3"
    go build -ldflags '-s -w' -o "$1/manager" "$4"
    MODULE_DIR=$(go list -m -f '{{.Dir}}' "$2")
}

# make_program_image OUT NAME VERSION [PLACE]: OUT/NAME.tar, an image that holds OUT/manager alone, at PLACE.
make_program_image() {
    local out=$1 name=$2 version=$3 place=${4:-/manager}
    mkdir -p root/tmp "root${place%/*}"
    chmod 1777 root/tmp
    mv "$out/manager" "root$place"
    make_image "$out" "$name" "$version" --entrypoint "[\"$place\"]"
}

# make_image OUT NAME VERSION SETTING...: OUT/NAME.tar, an image of the folder root with these settings of buildah's.
make_image() {
    local out=$1 name=$2 version=$3 container image=localhost/$2:v$3
    shift 3
    container=$(storage from scratch)
    storage copy --quiet "$container" root / >/dev/null
    # A number: the kubelet cannot tell whether a name is root.
    storage config --user 65532:65532 "$@" "$container"
    storage commit --quiet "$container" "$image" >/dev/null
    storage push --quiet "$image" "oci-archive:$out/$name.tar:$image"
    rm -rf root
    storage rm --all >/dev/null
    storage rmi --all --force >/dev/null
}

require_cluster() {
    require_root
    [[ -f $KUBECONFIG_FILE ]] || die "the test cluster is not up; start it with tests/cluster/up.sh"
    "$CLUSTER_DIR/binaries.sh" helm
}

# install NAME VERSION NAMESPACE VALUE...: its chart under its name. Call `down` first: helm upgrades no
# release that a killed run has not finished.
install() {
    local name=$1 version=$2 namespace=$3 dir
    shift 3
    dir=$(part_dir "$name" "$version")
    "$CLUSTER_DIR/load-image.sh" "$dir"/*.tar
    say "$name $version: installing its chart"
    helm_here install "$name" "$dir/chart" --namespace "$namespace" --create-namespace \
        --wait --timeout 3m "$@" >/dev/null
    say "$name $version is ready"
}

# uninstall NAME NAMESPACE [KIND...]: the release, its namespace, and first all objects of these kinds, as long
# as there is a controller that takes its finalizers off them.
uninstall() {
    local name=$1 namespace=$2
    shift 2
    delete_all "$@"
    helm_here uninstall "$name" --namespace "$namespace" --ignore-not-found --wait --timeout 2m >/dev/null
    kube delete namespace "$namespace" --ignore-not-found --timeout=60s >/dev/null
    # helm leaves those of a chart's folder crds.
    (($# == 0)) || kube delete crd "$@" --ignore-not-found --timeout=60s >/dev/null
}

# delete_all KIND...: the objects of these kinds, as far as the kinds are there.
delete_all() {
    local kind
    for kind in "$@"; do
        ! kind_there "$kind" || kube delete "$kind" --all --all-namespaces --timeout=30s >/dev/null || drop_finalizers "$kind"
    done
}

kind_there() { kube get crd "$1" &>/dev/null; }

# What is left of a killed run may have no controller any more.
drop_finalizers() {
    local kind=$1 namespace name
    kube get "$kind" --all-namespaces --no-headers \
        -o 'custom-columns=N:.metadata.namespace,M:.metadata.name' |
        while read -r namespace name; do
            [[ $namespace != '<none>' ]] || namespace=default
            kube patch "$kind" "$name" --namespace "$namespace" --type=merge \
                --patch '{"metadata": {"finalizers": null}}' >/dev/null
        done
}

# run_command COMMAND: up, down or build, each a function of the script.
run_command() {
    case ${1:-} in
    build)
        # For `up` the cluster had them installed.
        "$CLUSTER_DIR/deps.sh"
        build_all
        ;;
    up)
        require_cluster
        build_all
        down
        up
        ;;
    down)
        require_cluster
        down
        ;;
    *) die "usage: $(basename "$0") up | down | build" ;;
    esac
}
