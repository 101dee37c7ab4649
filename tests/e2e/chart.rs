//! The chart: what it renders, and what upgrade and uninstall do to jobs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use tests::{
    Job, Namespace, OPERATOR_NAMESPACE, Reinstall, data, helm, kubectl, kubectl_in, script, until,
    upgrade_chart,
};

use crate::seen;

const CHART: &str = "charts/yolo-operator";

fn crd_exists() -> bool {
    kubectl(&["get", "crd", "yolotrainingjobs.yolo-operator.dev"]).success
}

#[test]
fn it_lints_and_renders_what_its_values_ask_for() {
    helm(&["lint", CHART, "--strict"]).expect("helm lint");
    let plain = helm(&["template", "x", CHART]).expect("helm template");
    assert!(plain.contains("kind: CustomResourceDefinition"));
    assert!(plain.contains("helm.sh/resource-policy: keep"));
    for kind in ["PodMonitor", "ConfigMap", "NetworkPolicy"] {
        assert!(!plain.contains(&format!("kind: {kind}")), "a {kind}");
    }

    let all = [
        "template",
        "x",
        CHART,
        "--set=metrics.serviceMonitor.enabled=true",
        "--set=metrics.podMonitor.enabled=true",
        "--set=metrics.prometheusRule.enabled=true",
        "--set=dashboard.enabled=true",
        "--set=crds.keep=false",
        "--set=watchNamespace=team",
    ];
    let rich = helm(&all).expect("helm template");
    for text in [
        "kind: ServiceMonitor",
        "kind: PodMonitor",
        "alert: YoloJobStalled",
        "YOLO training",
        "--namespace=team",
    ] {
        assert!(rich.contains(text), "no {text}");
    }
    assert!(!rich.contains("resource-policy"));
    assert!(
        !rich.contains("kind: ClusterRole"),
        "one namespace needs no cluster-wide role"
    );
    assert!(!rich.contains("kind: ValidatingAdmissionPolicy"));
    script(
        "tests/cluster/prometheus.sh",
        &["test-rules", "tests/alerts.yaml"],
    )
    .expect("alerts");

    for (replicas, spread) in [(1, false), (2, true)] {
        let set = format!("--set=replicas={replicas}");
        let only = "--show-only=templates/deployment.yaml";
        let deployment = helm(&["template", "x", CHART, only, &set]).expect("helm template");
        let found = deployment.contains("topologySpreadConstraints");
        assert_eq!(spread, found, "{replicas} replicas:\n{deployment}");
    }

    let both = ["--set=watchNamespace=team", "--set=flowSchema.enabled=true"];
    let refused = helm(&[&["template", "x", CHART], &both[..]].concat());
    assert!(
        !refused.success && refused.stderr.contains("flowSchema is cluster-wide"),
        "{}",
        refused.stderr
    );

    let refused = helm(&["template", "x", CHART, "--set=replica=2"]);
    assert!(
        !refused.success && refused.stderr.contains("replica"),
        "{}",
        refused.stderr
    );
}

/// What a chart makes that belongs to no namespace, as "kind name".
fn of_the_cluster(rendered: &str) -> BTreeSet<String> {
    let objects = rendered.split("\n---\n");
    let objects = objects.filter(|object| !object.contains("\n  namespace: "));
    let named = |object: &str| {
        let after = |key| object.lines().find_map(|line| line.strip_prefix(key));
        Some(format!("{} {}", after("kind: ")?, after("  name: ")?))
    };
    objects.filter_map(named).collect()
}

#[test]
fn releases_of_one_name_for_a_namespace_each_do_not_collide() {
    let release = |namespace: &str, more: &[&str]| {
        let place = ["template", "yolo-operator", CHART, "--namespace", namespace];
        let rendered = helm(&[&place, more].concat()).expect("helm template");
        of_the_cluster(&rendered)
    };
    let crd = "CustomResourceDefinition yolotrainingjobs.yolo-operator.dev".to_owned();
    let one_for = |namespace| {
        let watch = format!("--set=watchNamespace={namespace},kueue.clusterRole=true");
        let owner = release(namespace, &[&watch]);
        assert!(owner.contains(&crd), "{owner:?}");
        let other = release(namespace, &[&watch, "--set=crds.install=false"]);
        assert!(!other.contains(&crd), "{other:?}");
        assert_eq!(2, other.len(), "a role and its binding: {other:?}");
        other
    };
    let (a, b) = (one_for("a"), one_for("b"));
    let everywhere = release("a", &[]);
    assert!(everywhere.contains("ClusterRole yolo-operator-kueue"));
    for other in [&b, &everywhere] {
        assert!(a.is_disjoint(other), "{a:?} and {other:?}");
    }
}

#[test]
fn a_nodes_network_is_for_namespaces_that_may_have_it() {
    let namespace = Namespace::new("host");
    // Pods of it would be refused by Pod Security; the job is refused before.
    let job = Job::new("fabric").set("/workers/template", json!({"hostNetwork": true}));
    let refused = namespace.apply(&job.manifest());
    let words = "does not have the label yolo-operator.dev/allow-host=true";
    assert!(
        !refused.success && refused.stderr.contains(words),
        "{}",
        refused.stderr
    );
    kubectl(&[
        "label",
        "namespace",
        namespace.name(),
        "yolo-operator.dev/allow-host=true",
        "pod-security.kubernetes.io/enforce=privileged",
        "--overwrite",
    ])
    .expect("labelling the namespace");
    let allowed = job.set("/suspend", true);
    namespace
        .apply(&allowed.manifest())
        .expect("a job that may");

    // No worker gets what no job can ask for, whoever asks in the operator's name.
    namespace
        .kubectl(&["create", "serviceaccount", "other"])
        .expect("a service account");
    let pod = |spec: serde_json::Value| {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {
                "name": "p", "labels": {"app.kubernetes.io/managed-by": "yolo-operator"}},
            "spec": {"containers": [{"name": "worker", "image": "x"}]}});
        for (key, value) in spec.as_object().expect("an object") {
            pod["spec"][key] = value.clone();
        }
        let arguments = [
            "--namespace",
            namespace.name(),
            "apply",
            "--dry-run=server",
            "-f",
            "-",
        ];
        kubectl_in(&arguments, &pod.to_string())
    };
    for (spec, words) in [
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "hostPath volume",
        ),
        (
            json!({"containers": [{"name": "w", "image": "x", "securityContext": {"privileged": true}}]}),
            "privileged container",
        ),
        (json!({"hostPID": true}), "shares processes"),
        (
            json!({"serviceAccountName": "other"}),
            "another service account",
        ),
    ] {
        let refused = pod(spec);
        assert!(
            !refused.success && refused.stderr.contains(words),
            "{words}: {}",
            refused.stderr
        );
    }
    pod(json!({"hostNetwork": true})).expect("a worker that may");
}

#[test]
fn the_service_account_may_do_nothing_else() {
    let may = |verb: &str, resource: &str| {
        let account = format!("--as=system:serviceaccount:{OPERATOR_NAMESPACE}:yolo-operator");
        let answer = kubectl(&[
            "auth",
            "can-i",
            verb,
            resource,
            &account,
            "--all-namespaces",
        ]);
        answer.stdout.trim() == "yes"
    };
    for (verb, resource) in [
        ("watch", "yolotrainingjobs.yolo-operator.dev"),
        // Those that ended ttlSecondsAfterFinished ago.
        ("delete", "yolotrainingjobs.yolo-operator.dev"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "configmaps"),
        ("create", "services"),
        ("create", "secrets"),
        ("get", "persistentvolumeclaims"),
        ("create", "persistentvolumeclaims"),
    ] {
        assert!(may(verb, resource), "it needs {verb} {resource}");
    }
    for (verb, resource) in [
        ("update", "yolotrainingjobs.yolo-operator.dev"),
        ("create", "yolotrainingjobs.yolo-operator.dev"),
        ("get", "secrets"),
        ("list", "secrets"),
        ("delete", "secrets"),
        ("update", "configmaps"),
        ("delete", "services"),
        ("delete", "persistentvolumeclaims"),
        ("list", "persistentvolumeclaims"),
        ("create", "deployments.apps"),
        ("get", "nodes"),
    ] {
        assert!(!may(verb, resource), "it does not need {verb} {resource}");
    }
}

#[test]
fn jobs_go_on_through_an_upgrade_and_stay_through_an_uninstall() {
    let _reinstall = Reinstall;
    let namespace = Namespace::new("upgrade");
    data::digits(&namespace, 64, 16, 64);
    let job = Job::new("steady").set("/training/epochs", 60);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_training(&namespace, "steady");
    let pods = seen::worker_names(&namespace, "steady");

    // Other arguments make a new operator pod.
    upgrade_chart(CHART, &["log.format=text", "flowSchema.enabled=true"]).expect("helm upgrade");
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "steady"),
        "the upgrade replaced workers"
    );
    until(
        "requests of a level of their own",
        Duration::from_secs(60),
        || {
            let metrics = kubectl(&["get", "--raw", "/metrics"]).expect("the API server's metrics");
            let dispatched = "apiserver_flowcontrol_dispatched_requests_total";
            let own = [
                r#"flow_schema="yolo-operator""#,
                r#"priority_level="workload-high""#,
            ];
            let mut lines = metrics.lines().filter(|line| line.starts_with(dispatched));
            let found = lines.any(|line| own.iter().all(|label| line.contains(label)));
            found.then_some(()).ok_or("none".to_owned())
        },
    );

    helm(&[
        "uninstall",
        "yolo-operator",
        "--namespace",
        OPERATOR_NAMESPACE,
        "--wait",
    ])
    .expect("helm uninstall");
    assert!(crd_exists(), "the CRD went although it is kept by default");
    assert!(
        namespace.get("ytj", "steady").is_some(),
        "the job went with the chart"
    );
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "steady"),
        "the uninstall stopped workers"
    );

    script("scripts/install.sh", &[]).expect("installing again");
    let done = seen::wait_complete(&namespace, "steady");
    assert_eq!(0, done["status"]["restarts"], "{}", done["status"]);
}

#[test]
fn nothing_is_left_when_crds_are_not_kept() {
    let _reinstall = Reinstall;
    let namespace = Namespace::new("leftover");
    namespace
        .apply(&Job::new("gone").manifest())
        .expect("applying the job");
    upgrade_chart(CHART, &["crds.keep=false"]).expect("helm upgrade");
    helm(&[
        "uninstall",
        "yolo-operator",
        "--namespace",
        OPERATOR_NAMESPACE,
        "--wait",
    ])
    .expect("helm uninstall");
    until("the CRD to go", Duration::from_secs(60), || {
        if crd_exists() {
            Err("it is there".to_owned())
        } else {
            Ok(())
        }
    });
    let kinds = "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,\
                 deployments,configmaps,validatingadmissionpolicies,validatingadmissionpolicybindings,\
                 flowschemas";
    let left = kubectl(&[
        "get",
        kinds,
        "--all-namespaces",
        "--selector=app.kubernetes.io/instance=yolo-operator",
        "--output=name",
    ])
    .expect("looking for leftovers");
    assert_eq!("", left.trim());
    until("the job's objects to go", Duration::from_secs(60), || {
        let left = namespace.list(
            "pods,services",
            "app.kubernetes.io/managed-by=yolo-operator",
        );
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{} objects", left.len()))
        }
    });
}
