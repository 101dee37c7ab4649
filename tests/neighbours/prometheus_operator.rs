//! The Prometheus operator takes what the chart offers it: a Prometheus that it runs reads our operator and all
//! workers, keeps our labels as they are, and evaluates our alerts.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::root;
use tests::{
    Job, Namespace, OPERATOR_NAMESPACE, Reinstall, data, kubectl, kubectl_in, until, upgrade_chart,
};

use crate::seen;

/// Where `prometheus-operator.sh` installs it.
const MONITORING: &str = "monitoring";
/// What is found, scraped or evaluated every few seconds is there by then.
const SOON: Duration = Duration::from_mins(2);
/// Our chart's monitors, as Prometheus calls the targets that come of them.
const OF_THE_OPERATOR: &str = "serviceMonitor/yolo-system/yolo-operator/0";
const OF_WORKERS: &str = "podMonitor/yolo-system/yolo-operator-workers/0";

/// A Prometheus that selects what has the label `monitored-by: neighbour`, until this goes.
struct Prometheus {
    /// Its API, as a path of the API server.
    api: String,
}

impl Prometheus {
    /// Has the Prometheus operator start one, and waits until it answers.
    fn start() -> Self {
        let versions = std::fs::read_to_string(root().join("tests/cluster/versions.env"));
        let versions = versions.expect("the versions are readable");
        let mut lines = versions.lines();
        let version = lines
            .find_map(|line| line.strip_prefix("PROMETHEUS_VERSION="))
            .expect("the version of the image");
        let labelled = json!({"matchLabels": {"monitored-by": "neighbour"}});
        let object = json!({
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "Prometheus",
            "metadata": {"name": "neighbour", "namespace": MONITORING},
            "spec": {
                "image": format!("localhost/prometheus:v{version}"),
                "imagePullPolicy": "Never",
                "serviceAccountName": "prometheus",
                "evaluationInterval": "5s",
                "serviceMonitorSelector": labelled,
                "serviceMonitorNamespaceSelector": {},
                "podMonitorSelector": labelled,
                "podMonitorNamespaceSelector": {},
                "ruleSelector": labelled,
                "ruleNamespaceSelector": {},
            },
        });
        kubectl_in(&["apply", "--filename=-"], &object.to_string()).expect("a Prometheus");
        let pod = "prometheus-neighbour-0";
        let started = Self {
            api: format!("/api/v1/namespaces/{MONITORING}/pods/{pod}:9090/proxy/api/v1"),
        };
        until("its Prometheus to answer", SOON, || {
            started.ask("status/runtimeinfo").map(drop)
        });
        started
    }

    /// What it answers at a path of its API.
    fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = kubectl(&["get", "--raw", &format!("{}/{path}", self.api)]);
        if !answer.success {
            return Err(answer.stderr);
        }
        let answer: Value =
            serde_json::from_str(&answer.stdout).map_err(|error| error.to_string())?;
        Ok(answer["data"].clone())
    }

    /// The labels of the present series of a metric that say they are of this namespace.
    fn series(&self, metric: &str, namespace: &str) -> Result<Vec<Value>, String> {
        let mut found = list(&self.ask(&format!("query?query={metric}"))?["result"]);
        for one in &mut found {
            *one = one["metric"].take();
        }
        found.retain(|labels| labels["namespace"] == namespace);
        Ok(found)
    }

    /// The alerts that it has loaded.
    fn alerts(&self) -> Result<Vec<Value>, String> {
        let groups = list(&self.ask("rules?type=alert")?["groups"]);
        Ok(groups
            .iter()
            .flat_map(|group| list(&group["rules"]))
            .collect())
    }

    /// Waits until the targets that come of a monitor are these pods of a namespace, each once and each well.
    #[track_caller]
    fn wait_targets(&self, monitor: &str, namespace: &str, pods: &[String]) {
        let wanted: Vec<_> = pods.iter().map(|pod| format!("{pod} up ")).collect();
        until(&format!("the targets of {monitor}"), SOON, || {
            let mut targets = list(&self.ask("targets?state=active")?["activeTargets"]);
            targets.retain(|target| {
                target["scrapePool"] == monitor && target["labels"]["namespace"] == namespace
            });
            same(
                &told(&targets, ["/labels/pod", "/health", "/lastError"]),
                &wanted,
            )
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let here = |rest: &str| {
            let arguments = format!("--namespace {MONITORING} {rest}");
            kubectl(&arguments.split(' ').collect::<Vec<_>>())
        };
        if std::thread::panicking() {
            for what in [
                "get events --sort-by=.lastTimestamp",
                "logs deployment/prometheus-operator --tail=40",
                "logs prometheus-neighbour-0 --all-containers --tail=40",
            ] {
                let output = here(what);
                println!("---- {what}\n{}{}", output.stdout, output.stderr);
            }
        }
        here("delete prometheus neighbour --ignore-not-found");
    }
}

/// The texts at these pointers of each value, in order.
fn told<const N: usize>(values: &[Value], pointers: [&str; N]) -> Vec<String> {
    let line = |value: &Value| {
        let text = |pointer| value.pointer(pointer).and_then(Value::as_str);
        pointers
            .map(|pointer| text(pointer).unwrap_or_default())
            .join(" ")
    };
    let mut lines: Vec<_> = values.iter().map(line).collect();
    lines.sort();
    lines
}

fn same(found: &[String], wanted: &[String]) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{found:?}, not {wanted:?}"))
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Has our chart offer all that it can to the Prometheus operator, labelled as many a Prometheus asks for it. Helm has
/// the API server refuse a field that one of the kinds does not have.
fn offer() {
    let values = ["serviceMonitor", "podMonitor", "prometheusRule"].map(|part| {
        format!("metrics.{part}.enabled=true,metrics.{part}.labels.monitored-by=neighbour")
    });
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    upgrade_chart("charts/yolo-operator", &values).expect("helm upgrade");
}

/// The names of our chart's alerts, in order, by the lines that have them.
fn alerts() -> Vec<String> {
    let path = root().join("charts/yolo-operator/files/alerts/yolo-operator.yaml");
    let text = std::fs::read_to_string(path).expect("the alerts are readable");
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// The names of our operator's pods.
fn operator_pods() -> Vec<String> {
    let pods = tests::operator_pods();
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
    pods.iter().filter_map(name).collect()
}

#[test]
fn its_prometheus_finds_operator_workers_and_alerts_through_the_chart() {
    let _reinstall = Reinstall;
    offer();
    let namespace = Namespace::new("prometheus");
    data::digits(&namespace, 64, 16, 64);
    let prometheus = Prometheus::start();
    let job = Job::new("watched").set("/training/epochs", 500);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_training(&namespace, "watched");

    let operator = operator_pods();
    assert_eq!(1, operator.len(), "{operator:?}");
    let workers = seen::worker_names(&namespace, "watched");
    assert_eq!(2, workers.len(), "{workers:?}");
    prometheus.wait_targets(OF_THE_OPERATOR, OPERATOR_NAMESPACE, &operator);
    prometheus.wait_targets(OF_WORKERS, namespace.name(), &workers);

    // Each worker's own series, with the labels of the job and with those of its pod.
    let wanted: Vec<_> = (0..)
        .zip(&workers)
        .map(|(rank, pod)| format!("{rank} {pod} watched"))
        .collect();
    until("the series of both ranks", SOON, || {
        let series = prometheus.series("yolo_train_step_seconds_count", namespace.name())?;
        same(&told(&series, ["/rank", "/pod", "/training_job"]), &wanted)
    });
    // What the operator tells of a job is of the job's namespace, what it tells of itself of its own.
    for (metric, its_namespace) in [
        ("yolo_operator_job_progress_ratio", namespace.name()),
        ("yolo_operator_leader", OPERATOR_NAMESPACE),
    ] {
        until(&format!("{metric} in {its_namespace}"), SOON, || {
            let series = prometheus.series(metric, its_namespace)?;
            same(&told(&series, ["/pod"]), &operator)
        });
    }
    // A label of ours that one of a monitor's had pushed aside would be called so.
    let labels = list(&prometheus.ask("labels").expect("the names of all labels"));
    assert!(labels.contains(&json!("training_job")), "{labels:?}");
    for label in labels.iter().filter_map(Value::as_str) {
        assert!(!label.starts_with("exported_"), "{label}");
    }

    let wanted: Vec<_> = alerts()
        .iter()
        .map(|alert| format!("{alert} ok "))
        .collect();
    until("the alerts to be evaluated", SOON, || {
        same(
            &told(&prometheus.alerts()?, ["/name", "/health", "/lastError"]),
            &wanted,
        )
    });
    // It knows of a leader only through the operator's series.
    until("no want of a leader", SOON, || {
        let mut alerts = prometheus.alerts()?;
        alerts.retain(|alert| alert["name"] == "YoloOperatorWithoutLeader");
        same(&told(&alerts, ["/state"]), &["inactive".to_owned()])
    });
}
