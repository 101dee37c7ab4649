# Certificates and the control plane, all in the host's network.
# shellcheck shell=bash disable=SC2153 # the settings come from lib.sh

# make_cert NAME SUBJECT [NAMES]: a key and a certificate of the cluster's
# authority. NAMES is a list such as DNS:a,IP:1.2.3.4.
make_cert() {
    openssl req -x509 -config "$PKI/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
        -keyout "$PKI/$1.key" -out "$PKI/$1.crt" -days 3650 -subj "$2" \
        -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" \
        -addext basicConstraints=CA:FALSE ${3:+-addext "subjectAltName=$3"} 2>>"$LOGS/openssl.log"
}

make_certs() {
    local n service_names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
    (
        umask 077
        mkdir -p "$PKI"
        printf '[req]\ndistinguished_name = name\n[name]\n' >"$PKI/openssl.cnf"
        openssl req -x509 -config "$PKI/openssl.cnf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
            -keyout "$PKI/ca.key" -out "$PKI/ca.crt" -days 3650 -subj /CN=yolo-operator-cluster \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature \
            2>>"$LOGS/openssl.log"
        # Signs the tokens of service accounts.
        openssl ecparam -genkey -name prime256v1 -noout -out "$PKI/service-accounts.key"
        make_cert apiserver /CN=kube-apiserver "$service_names,DNS:localhost,IP:127.0.0.1,IP:$HOST_IP,IP:$SERVICE_IP"
        # The apiserver as a client of kubelets (logs, exec) ...
        make_cert apiserver-client /O=system:masters/CN=kube-apiserver-kubelet-client
        # ... and of extension API servers.
        make_cert front-proxy /CN=front-proxy-client
        make_cert admin /O=system:masters/CN=admin
        make_cert controller-manager /CN=system:kube-controller-manager
        make_cert scheduler /CN=system:kube-scheduler
        make_cert kube-proxy /CN=system:kube-proxy
        for n in "${NODES[@]}"; do
            make_cert "node-$n" "/O=system:nodes/CN=system:node:node-$n" "DNS:node-$n,IP:$(node_ip "$n")"
        done

        make_kubeconfig admin 127.0.0.1 "$KUBECONFIG_FILE"
        make_kubeconfig controller-manager 127.0.0.1
        make_kubeconfig scheduler 127.0.0.1
        make_kubeconfig kube-proxy "$HOST_IP"
        for n in "${NODES[@]}"; do make_kubeconfig "node-$n" "$HOST_IP"; done
    ) || die "making certificates failed; see $LOGS/openssl.log"
}

# make_kubeconfig NAME ADDRESS [FILE]: complete in itself, so that a copy of
# the file works anywhere on this machine.
make_kubeconfig() {
    cat >"${3:-$PKI/$1.kubeconfig}" <<END
apiVersion: v1
kind: Config
clusters:
  - name: yolo-operator-cluster
    cluster:
      server: https://$2:$API_PORT
      certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")
users:
  - name: $1
    user:
      client-certificate-data: $(base64 -w0 "$PKI/$1.crt")
      client-key-data: $(base64 -w0 "$PKI/$1.key")
contexts:
  - name: yolo-operator-cluster
    context: {cluster: yolo-operator-cluster, user: $1}
current-context: yolo-operator-cluster
END
}

start_etcd() {
    start_process etcd daemons "$ETCD/etcd" --name=default --data-dir="$STATE/etcd" --unsafe-no-fsync \
        --listen-client-urls="http://127.0.0.1:$ETCD_PORT" --advertise-client-urls="http://127.0.0.1:$ETCD_PORT" \
        --listen-peer-urls="http://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-advertise-peer-urls="http://127.0.0.1:$ETCD_PEER_PORT" \
        --initial-cluster="default=http://127.0.0.1:$ETCD_PEER_PORT" \
        --quota-backend-bytes=8589934592 --log-level=warn
}

start_apiserver() {
    # shellcheck disable=SC2054 # the commas belong to the flags
    local flags=(
        --etcd-servers="http://127.0.0.1:$ETCD_PORT"
        # Pods reach it at the bridge's address, people at the loopback's.
        --bind-address=0.0.0.0 --secure-port="$API_PORT" --advertise-address="$HOST_IP"
        --service-cluster-ip-range="$SERVICE_RANGE"
        --allow-privileged --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
        --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key"
        --kubelet-preferred-address-types=InternalIP --kubelet-certificate-authority="$PKI/ca.crt"
        --kubelet-client-certificate="$PKI/apiserver-client.crt" --kubelet-client-key="$PKI/apiserver-client.key"
        --service-account-issuer=https://kubernetes.default.svc.cluster.local
        --service-account-key-file="$PKI/service-accounts.key"
        --service-account-signing-key-file="$PKI/service-accounts.key"
        --requestheader-client-ca-file="$PKI/ca.crt" --requestheader-allowed-names=front-proxy-client
        --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
        --requestheader-extra-headers-prefix=X-Remote-Extra-
        --proxy-client-cert-file="$PKI/front-proxy.crt" --proxy-client-key-file="$PKI/front-proxy.key"
        # The host has no kube-proxy: webhooks and extension API servers are
        # called at their pods' addresses.
        --enable-aggregator-routing
        # Gang scheduling in the tree: beta, off by default.
        --feature-gates=GenericWorkload=true --runtime-config=scheduling.k8s.io/v1beta1=true
    )
    write_audit_policy
    flags+=(--audit-policy-file="$STATE/audit.yaml" --audit-log-path="$AUDIT_LOG" --audit-log-mode=batch
        --audit-log-batch-max-wait=1s --audit-log-maxsize=4096)
    # Out of the way of what is measured.
    [[ ! -f $BENCH_MARK ]] || flags+=(--max-requests-inflight=2000 --max-mutating-requests-inflight=2000)
    start_process kube-apiserver daemons "$KUBERNETES/kube-apiserver" "${flags[@]}"
}

# What is noted of requests, without the objects themselves: everything that the accounts of AUDITED ask for, which
# shows the rights they use; for benchmarks every write, whoever made it.
write_audit_policy() {
    local rules="  - {level: Metadata, userGroups: [\"system:serviceaccounts:$AUDITED\"]}"
    [[ ! -f $BENCH_MARK ]] || rules="\
  - {level: None, resources: [{group: coordination.k8s.io, resources: [leases]}]}
  - {level: Metadata, verbs: [create, update, patch, delete, deletecollection]}"
    cat >"$STATE/audit.yaml" <<END
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
$rules
  - {level: None}
END
}

apiserver_ready() { kube --request-timeout=2s get --raw /readyz; }

start_controller_manager() {
    local nodes=(--node-monitor-period=2s --node-monitor-grace-period=20s)
    # As Kubernetes has it by itself: 5 s and 50 s.
    [[ -z ${NODE_LOSS_DEFAULTS:-} ]] || nodes=()
    # The gate, since it makes the claims of devices of a gang's pods, and lets go of groups that nobody needs.
    start_process kube-controller-manager daemons "$KUBERNETES/kube-controller-manager" \
        --kubeconfig="$PKI/controller-manager.kubeconfig" --use-service-account-credentials \
        --bind-address=127.0.0.1 --secure-port="$CONTROLLER_MANAGER_PORT" --leader-elect=false \
        --kube-api-qps=500 --kube-api-burst=1000 \
        --service-account-private-key-file="$PKI/service-accounts.key" --root-ca-file="$PKI/ca.crt" \
        --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
        --feature-gates=GenericWorkload=true "${nodes[@]}"
}

start_scheduler() {
    cat >"$STATE/scheduler.yaml" <<END
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: false}
clientConnection:
  kubeconfig: $PKI/scheduler.kubeconfig
  qps: 1000
  burst: 1000
END
    start_process kube-scheduler daemons "$KUBERNETES/kube-scheduler" --config="$STATE/scheduler.yaml" \
        --bind-address=127.0.0.1 --secure-port="$SCHEDULER_PORT" --feature-gates=GenericWorkload=true
}

start_coredns() {
    # Every other name does not exist: there is no network outside.
    cat >"$STATE/Corefile" <<END
cluster.local:53 in-addr.arpa:53 {
    bind $HOST_IP
    errors
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $KUBECONFIG_FILE
        pods insecure
        ttl 5
    }
    cache 5
}
.:53 {
    bind $HOST_IP
    errors
    template ANY ANY . {
        rcode NXDOMAIN
    }
}
END
    start_process coredns daemons "$COREDNS/coredns" -conf "$STATE/Corefile"
}

dns_answers() { busybox nslookup -type=a kubernetes.default.svc.cluster.local "$HOST_IP"; }

# Volumes that either node can write: both see the host's file system, and, of this folder, what is mounted below it
# later (small-volume.sh). Before the nodes are made.
make_volumes() {
    mkdir -p "$STATE/volumes"
    mount --bind "$STATE/volumes" "$STATE/volumes"
    mount --make-shared "$STATE/volumes"
}

start_storage() {
    cat >"$STATE/storage.json" <<END
{"nodePathMap": [], "sharedFileSystemPath": "$STATE/volumes"}
END
    cat >"$STATE/storage-helper.yaml" <<'END'
apiVersion: v1
kind: Pod
metadata: {name: helper-pod}
spec:
  priorityClassName: system-node-critical
  containers:
    - name: helper-pod
      image: localhost/helper:1
      imagePullPolicy: Never
END
    kube create --validate=false -f - >/dev/null <<'END'
apiVersion: v1
kind: Namespace
metadata: {name: local-path-storage}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: local-path-provisioner-service-account, namespace: local-path-storage}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: local-path-config, namespace: local-path-storage}
data:
  # Writable by any user: the kubelet changes no owner of a volume of this kind.
  setup: |
    mkdir -m 0777 -p "$VOL_DIR"
  teardown: |
    rm -rf "$VOL_DIR"
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: standard
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: rancher.io/local-path
volumeBindingMode: Immediate
reclaimPolicy: Delete
END
    start_process local-path-provisioner daemons "$LOCAL_PATH_PROVISIONER/local-path-provisioner" start \
        --kubeconfig "$KUBECONFIG_FILE" --namespace local-path-storage \
        --config "$STATE/storage.json" --helper-pod-file "$STATE/storage-helper.yaml" \
        --helper-image localhost/helper:1
}
