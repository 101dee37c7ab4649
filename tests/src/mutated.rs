//! What others add to pods when they are created: a policy of the API server, in place of a webhook.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Namespace, kubectl, kubectl_in, until};

/// A policy that changes pods of one namespace, until it is dropped.
pub struct Mutated {
    name: String,
}

impl Mutated {
    /// Changes pods with these labels by an expression of CEL that gives a JSON patch. `sign` is in a pod that was
    /// changed.
    pub fn new(namespace: &Namespace, labels: &Value, patch: &str, sign: &str) -> Self {
        let name = namespace.name().to_owned();
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
        let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"resourceRules": [rule], "objectSelector": {"matchLabels": labels}},
                    "reinvocationPolicy": "Never",
                    "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
                }},
            {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "matchResources": {"namespaceSelector": here}}},
        ]});
        kubectl_in(&["apply", "-f", "-"], &list.to_string()).expect("a policy");
        let mutated = Self { name };
        // The API server takes a moment to know it.
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "trial", "namespace": mutated.name, "labels": labels},
            "spec": trial()});
        until("the policy to act", Duration::from_secs(30), || {
            let made = kubectl_in(
                &["create", "--dry-run=server", "--output=json", "-f", "-"],
                &pod.to_string(),
            );
            let acts = made.stdout.contains(sign);
            acts.then_some(()).ok_or(made.stdout + &made.stderr)
        });
        mutated
    }
}

impl Drop for Mutated {
    fn drop(&mut self) {
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            kubectl(&["delete", kind, &self.name, "--ignore-not-found"]);
        }
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
