//! A namespace for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::OPERATOR_NAMESPACE;
use crate::cluster::{Output, kubectl, kubectl_in, kubectl_json};
use serde_json::Value;

/// A namespace that is removed at the end of the test, after its state was printed if the test failed.
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new namespace named after the test, under the `restricted` pod security standard: worker pods
    /// that would need more are refused there.
    pub fn new(test: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "t-{test}-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        kubectl(&["create", "namespace", &name]).expect("creating a namespace");
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", &name, restricted]).expect("labelling the namespace");
        Self { name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        kubectl(&[&["--namespace", &self.name], arguments].concat())
    }

    /// `kubectl apply` of a manifest in this namespace.
    pub fn apply(&self, manifest: &str) -> Output {
        kubectl_in(&["--namespace", &self.name, "apply", "-f", "-"], manifest)
    }

    /// An object as JSON; `None` when it does not exist.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        kubectl_json(&["--namespace", &self.name, "get", kind, name])
    }

    /// The objects of a kind with a label, as JSON.
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        kubectl_json(&[
            "--namespace",
            &self.name,
            "get",
            kind,
            "--selector",
            selector,
        ])
        .and_then(|list| list["items"].as_array().cloned())
        .unwrap_or_default()
    }

    fn print_state(&self) {
        let look = |title: &str, output: Output| {
            println!("---- {title}\n{}{}", output.stdout, output.stderr);
        };
        look("pods", self.kubectl(&["get", "pods", "--output=wide"]));
        look("jobs", self.kubectl(&["describe", "yolotrainingjobs"]));
        look(
            "events",
            self.kubectl(&["get", "events", "--sort-by=.lastTimestamp"]),
        );
        // What failed may be the API server: nothing here may panic.
        for pod in self
            .kubectl(&["get", "pods", "--output=name"])
            .stdout
            .lines()
        {
            let logs = self.kubectl(&["logs", pod, "--all-containers", "--tail=40"]);
            look(&format!("log of {pod}"), logs);
        }
        let operator = [
            "--namespace",
            OPERATOR_NAMESPACE,
            "logs",
            "deployment/yolo-operator",
            "--tail=80",
        ];
        look("log of the operator", kubectl(&operator));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_state();
        }
        // Not awaited: the next test has a namespace of its own.
        kubectl(&[
            "delete",
            "namespace",
            &self.name,
            "--wait=false",
            "--ignore-not-found",
        ]);
    }
}
