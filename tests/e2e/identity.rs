//! A data set in an object store that is opened with the identity of the namespace's service account.
//!
//! Clouds have a webhook that gives pods a token of their service account and says where it is exchanged for keys. A
//! policy of the API server does that here, in the words of EKS Pod Identity.

use serde_json::{Value, json};
use tests::{Job, Moto, Namespace, data, kubectl, kubectl_in, moto, until};

use crate::{dataset, seen};

/// Gives every fetch of a namespace a token, and the address where it is exchanged.
struct Identities {
    name: String,
}

/// As an expression of CEL that adds to lists which are there already.
const ADDED: &str = r#"[
  JSONPatch{op: "add", path: "/spec/volumes/-", value: Object.spec.volumes{
    name: "identity",
    projected: Object.spec.volumes.projected{sources: [Object.spec.volumes.projected.sources{
      serviceAccountToken: Object.spec.volumes.projected.sources.serviceAccountToken{
        audience: "pods.eks.amazonaws.com", expirationSeconds: 3600, path: "token"}}]}}},
  JSONPatch{op: "add", path: "/spec/containers/0/volumeMounts/-", value: Object.spec.containers.volumeMounts{
    name: "identity", mountPath: "/var/run/identity", readOnly: true}},
  JSONPatch{op: "add", path: "/spec/containers/0/env/-", value: Object.spec.containers.env{
    name: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", value: "/var/run/identity/token"}},
  JSONPatch{op: "add", path: "/spec/containers/0/env/-", value: Object.spec.containers.env{
    name: "AWS_CONTAINER_CREDENTIALS_FULL_URI", value: "{address}"}}
]"#;

impl Identities {
    fn new(namespace: &Namespace, address: &str) -> Self {
        let name = namespace.name().to_owned();
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let fetches = json!({"matchLabels": {"yolo-operator.dev/role": "fetch"}});
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"resourceRules": [rule], "objectSelector": fetches},
                    "reinvocationPolicy": "Never",
                    "mutations": [{"patchType": "JSONPatch",
                        "jsonPatch": {"expression": ADDED.replace("{address}", address)}}],
                }},
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "matchResources": {"namespaceSelector": here}}},
        ]});
        kubectl_in(&["apply", "-f", "-"], &list.to_string()).expect("a policy");
        let identities = Self { name };
        // The API server takes a moment to know it.
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "trial", "namespace": identities.name,
                "labels": {"yolo-operator.dev/role": "fetch"}},
            "spec": trial()});
        until(
            "the policy to act",
            std::time::Duration::from_secs(30),
            || {
                let made = kubectl_in(
                    &["create", "--dry-run=server", "--output=json", "-f", "-"],
                    &pod.to_string(),
                );
                let acts = made.stdout.contains("AWS_CONTAINER");
                acts.then_some(()).ok_or(made.stdout + &made.stderr)
            },
        );
        identities
    }
}

/// A pod that has something of each list.
fn trial() -> Value {
    json!({
        "securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "containers": [{
            "name": "trial",
            "image": "localhost/helper:1",
            "env": [{"name": "HOME", "value": "/tmp"}],
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        }],
    })
}

impl Drop for Identities {
    fn drop(&mut self) {
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            kubectl(&["delete", kind, &self.name, "--ignore-not-found"]);
        }
    }
}

#[test]
fn a_data_set_is_fetched_with_the_identity_of_the_service_account() {
    let namespace = Namespace::new("identity");
    data::digits(&namespace, 64, 16, 64);
    let moto = Moto::start(moto::HOST_OF_PODS);
    let digits = data::folder(&namespace, data::DATA_CLAIM).join("digits");
    dataset::upload(&moto, "datasets", &digits);
    let job = |name: &str| {
        let to = json!({"persistentVolumeClaim": {"claimName": data::RUNS_CLAIM, "subPath": name}});
        Job::new(name)
            .set("/training/epochs", 1)
            .without("/dataset/persistentVolumeClaim")
            .set(
                "/dataset/objectStorage",
                json!({"url": "s3://datasets/digits", "endpoint": moto.url(), "allowHttp": true}),
            )
            .set("/dataset/fetchTo", to)
    };
    // With neither a Secret nor an identity, what is missing is said.
    namespace
        .apply(&job("stranger").manifest())
        .expect("applying the job");
    let stranger = seen::wait(&namespace, "stranger", "what it lacks", |job| {
        job["status"]
            .to_string()
            .contains("no credentials were found")
    });
    let told = stranger["status"].to_string();
    assert!(
        told.contains("dataset.objectStorage.credentialsSecret"),
        "{told}"
    );
    namespace
        .kubectl(&["delete", "ytj", "stranger"])
        .expect("deleting the job");

    let exchange = Moto::of_identities(moto::HOST_OF_PODS);
    let _identities = Identities::new(&namespace, &exchange.url());
    namespace
        .apply(&job("known").manifest())
        .expect("applying the job");
    let done = seen::wait_complete(&namespace, "known");
    assert_eq!("Succeeded", done["status"]["fetch"]["state"]);
}
