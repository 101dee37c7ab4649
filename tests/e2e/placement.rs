//! Which nodes workers run on.

use serde_json::json;
use tests::{Job, Namespace, data, kubectl, kubectl_json};

use crate::seen;

/// A node that nobody else may use, until this goes.
struct Reserved(String);

impl Reserved {
    const TAINT: &str = "team=vision:NoSchedule";

    fn new(node: &str) -> Self {
        kubectl(&["taint", "nodes", node, Self::TAINT, "--overwrite"]).expect("tainting a node");
        Self(node.to_owned())
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        kubectl(&["taint", "nodes", &self.0, &format!("{}-", Self::TAINT)]);
    }
}

#[test]
fn workers_run_where_the_template_says() {
    let namespace = Namespace::new("placement");
    data::digits(&namespace, 64, 16, 64);
    let nodes = kubectl_json(&["get", "nodes"]).expect("nodes");
    let node = nodes["items"][1]["metadata"]["name"]
        .as_str()
        .expect("two nodes");
    let _reserved = Reserved::new(node);
    let kept_out = Job::new("kept-out").set("/training/epochs", 1).set(
        "/workers/template",
        json!({"nodeSelector": {"kubernetes.io/hostname": node}}),
    );
    namespace
        .apply(&kept_out.manifest())
        .expect("applying the job");
    let let_in = Job::new("let-in").set("/training/epochs", 1).set(
        "/workers/template",
        json!({
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"key": "team", "operator": "Equal", "value": "vision", "effect": "NoSchedule"}],
            "labels": {"team": "vision"},
            "annotations": {"example.com/cost-centre": "7"},
        }),
    );
    namespace
        .apply(&let_in.manifest())
        .expect("applying the job");
    seen::wait_complete(&namespace, "let-in");
    let pods = namespace.list("pods", "yolo-operator.dev/job-name=let-in,team=vision");
    assert_eq!(2, pods.len());
    for pod in &pods {
        assert_eq!(node, pod["spec"]["nodeName"]);
        assert_eq!(
            "7",
            pod["metadata"]["annotations"]["example.com/cost-centre"]
        );
    }
    let waiting = seen::wait(&namespace, "kept-out", "the wait to be explained", |job| {
        job["status"]["conditions"]
            .to_string()
            .contains("Unschedulable")
    });
    let conditions = waiting["status"]["conditions"].to_string();
    assert!(conditions.contains("untolerated taint"), "{conditions}");
}

/// Two workers never share a node then, and the operator reaches them at their nodes' addresses.
#[test]
fn workers_train_on_their_nodes_networks() {
    let namespace = Namespace::new("host-network");
    for label in [
        "yolo-operator.dev/allow-host=true",
        "pod-security.kubernetes.io/enforce=privileged",
    ] {
        kubectl(&["label", "--overwrite", "namespace", namespace.name(), label]).expect(label);
    }
    data::digits(&namespace, 64, 16, 64);
    let job = Job::new("host").set("/workers/template", json!({"hostNetwork": true}));
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_training(&namespace, "host");
    for pod in namespace.list("pods", "yolo-operator.dev/job-name=host") {
        assert_eq!(pod["status"]["hostIP"], pod["status"]["podIP"]);
    }
    let done = seen::wait_complete(&namespace, "host");
    let workers = done["status"]["workers"].as_array().expect("workers");
    assert_ne!(workers[0]["node"], workers[1]["node"]);
}
