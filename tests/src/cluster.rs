//! Programs run against the cluster under test.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a program printed, and whether it succeeded.
#[derive(Debug)]
pub struct Output {
    /// Whether its exit code was 0.
    pub success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that had to succeed.
    #[track_caller]
    pub fn expect(self, what: &str) -> String {
        assert!(
            self.success,
            "{what} failed:\n{}\n{}",
            self.stdout, self.stderr
        );
        self.stdout
    }
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ has a parent")
        .to_owned()
}

fn run<S: AsRef<OsStr>>(program: &OsStr, arguments: &[S], input: Option<&str>) -> Output {
    assert!(
        std::env::var_os("YOLO_TEST_CLUSTER").is_some(),
        "these tests change a cluster: run them with `make test-cluster`"
    );
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}", program.display()));
    // The inputs are manifests, far smaller than a pipe's buffer, so writing first cannot dead-lock.
    let mut stdin = child.stdin.take().expect("piped above");
    stdin
        .write_all(input.unwrap_or_default().as_bytes())
        .expect("the child reads its input");
    drop(stdin);
    let output = child
        .wait_with_output()
        .expect("the child can be waited for");
    Output {
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs kubectl.
pub fn kubectl(arguments: &[&str]) -> Output {
    run("kubectl".as_ref(), arguments, None)
}

/// Runs kubectl with a manifest on its standard input.
pub fn kubectl_in(arguments: &[&str], manifest: &str) -> Output {
    run("kubectl".as_ref(), arguments, Some(manifest))
}

/// `kubectl ... -o json`, parsed; `None` when the object does not exist.
pub fn kubectl_json(arguments: &[&str]) -> Option<Value> {
    let output = kubectl(&[arguments, &["-o", "json"]].concat());
    if !output.success && output.stderr.contains("NotFound") {
        return None;
    }
    let text = output.expect(&format!("kubectl {}", arguments.join(" ")));
    Some(serde_json::from_str(&text).expect("kubectl -o json prints JSON"))
}

/// Runs helm.
pub fn helm(arguments: &[&str]) -> Output {
    run("helm".as_ref(), arguments, None)
}

/// Upgrades the installed chart to the one in this folder, with these values beside those that were given to it; its defaults
/// are the new ones. [`Reinstall`] undoes it.
pub fn upgrade_chart(chart: &str, values: &[&str]) -> Output {
    let upgrade = [
        "upgrade",
        "yolo-operator",
        chart,
        "--namespace",
        crate::OPERATOR_NAMESPACE,
        "--reset-then-reuse-values",
        "--wait",
        "--timeout=2m",
    ];
    let values: Vec<String> = values
        .iter()
        .map(|value| format!("--set={value}"))
        .collect();
    let values = values.iter().map(String::as_str);
    helm(&upgrade.into_iter().chain(values).collect::<Vec<_>>())
}

/// Runs one of the repository's scripts.
pub fn script(path: &str, arguments: &[&str]) -> Output {
    run(root().join(path).as_os_str(), arguments, None)
}

/// A series' present values, from the Prometheus that `scripts/test-cluster.sh` has started.
pub fn query(expression: &str) -> Vec<Value> {
    let url = std::env::var("YOLO_TEST_PROMETHEUS").expect("set by scripts/test-cluster.sh");
    let output = run(
        "curl".as_ref(),
        &[
            "--silent",
            "--fail-with-body",
            "--get",
            "--data-urlencode",
            &format!("query={expression}"),
            &format!("{url}/api/v1/query"),
        ],
        None,
    );
    let text = output.expect(&format!("the query {expression}"));
    let answer: Value = serde_json::from_str(&text).expect("Prometheus answers in JSON");
    answer["data"]["result"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// The operator's pods that nobody has asked to end.
pub fn operator_pods() -> Vec<Value> {
    let pods = kubectl_json(&[
        "--namespace",
        crate::OPERATOR_NAMESPACE,
        "get",
        "pods",
        "--selector=app.kubernetes.io/name=yolo-operator",
    ]);
    let pods = pods.and_then(|pods| pods["items"].as_array().cloned());
    let mut pods = pods.expect("a list");
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

/// The node that the operator runs on.
pub fn operator_node() -> String {
    let pods = operator_pods();
    let node = pods
        .first()
        .and_then(|pod| pod["spec"]["nodeName"].as_str());
    node.expect("the operator runs on a node").to_owned()
}

/// Puts the chart back as the other tests need it, also when a test fails.
pub struct Reinstall;

impl Drop for Reinstall {
    fn drop(&mut self) {
        let output = script("scripts/install.sh", &[]);
        assert!(
            output.success || std::thread::panicking(),
            "{}{}",
            output.stdout,
            output.stderr
        );
    }
}
