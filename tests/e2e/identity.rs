//! A data set in an object store that is opened with the identity of the namespace's service account.
//!
//! Clouds have a webhook that gives pods a token of their service account and says where it is exchanged for keys. A
//! policy of the API server does that here, in the words of EKS Pod Identity.

use serde_json::json;
use tests::mutated::Mutated;
use tests::{Job, Moto, Namespace, data, moto};

use crate::{dataset, seen};

/// What every fetch is given: a token, and the address where it is exchanged. As an expression of CEL that adds to lists
/// which are there already.
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
    let added = ADDED.replace("{address}", &exchange.url());
    let fetches = json!({"yolo-operator.dev/role": "fetch"});
    let _identities = Mutated::new(&namespace, &fetches, &added, "AWS_CONTAINER");
    namespace
        .apply(&job("known").manifest())
        .expect("applying the job");
    let done = seen::wait_complete(&namespace, "known");
    assert_eq!("Succeeded", done["status"]["fetch"]["state"]);
}
