//! The operator is upgraded under a running job.

use std::path::Path;

use serde_json::Value;
use tests::{
    Job, Namespace, OPERATOR_NAMESPACE, Reinstall, data, kubectl_json, script, upgrade_chart,
};

use crate::{
    ends_like_one_left_alone, long_job, seen, training, trains_again, trains_with_another,
};

/// What the API server knows of jobs: the version's schema.
fn schema() -> Value {
    let name = "yolotrainingjobs.yolo-operator.dev";
    let found = kubectl_json(&["get", "crd", name]).expect("the definition of jobs");
    found["spec"]["versions"][0]["schema"].clone()
}

fn images(namespace: &Namespace) -> Vec<Value> {
    let pods = seen::workers(namespace, "run");
    let images = |pod: &Value| {
        let image = |list: &str| pod["spec"][list][0]["image"].clone();
        [image("initContainers"), image("containers")]
    };
    pods.iter().flat_map(images).collect()
}

#[test]
fn a_worker_that_is_lost_after_an_upgrade_comes_back_as_it_was() {
    let job = |name: &str| long_job(name).set("/training/epochs", 150);
    let namespace = training("upgrade", &job("run"));
    let before = images(&namespace);
    let pods = seen::worker_names(&namespace, "run");
    let reinstall = Reinstall;
    // The next version would give jobs another trainer.
    upgrade_chart("charts/yolo-operator", &["trainerImage.tag=next"]).expect("helm upgrade");
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    let took = trains_with_another(&namespace, &pods);
    println!("upgraded, and a worker lost: training again after {took:.1?}");
    assert_eq!(before, images(&namespace));
    drop(reinstall);
    ends_like_one_left_alone(&namespace, job);
}

/// Its definition, its operator and its agents are of the release before; then the operator is this one.
#[test]
fn a_job_of_the_release_before_goes_on_under_this_one() {
    let job = |name: &str| long_job(name).set("/training/epochs", 150);
    let reinstall = Reinstall;
    println!("the release before is built when it is not there: some minutes");
    let previous = script("tests/faults/previous.sh", &[]).expect("building the release before");
    let previous = Path::new(previous.trim());
    let text = |name: &str| previous.join(name).display().to_string();
    script("tests/cluster/load-image.sh", &[&text("operator.tar")]).expect("loading its image");
    let now = schema();
    upgrade_chart(&text("chart"), &["image.tag=previous"]).expect("helm upgrade");
    let before = schema();
    assert_ne!(now, before, "the release before had the same definition");
    let namespace = training("release", &job("run"));
    let begun = images(&namespace);
    let agent = "localhost/yolo-operator:previous";
    assert!(begun.iter().any(|image| image == agent), "{begun:?}");
    let pods = seen::worker_names(&namespace, "run");
    let stored = namespace.get("ytj", "run").expect("the job");

    drop(reinstall);
    assert_eq!(now, schema());
    let upgraded = namespace.get("ytj", "run").expect("the job");
    assert_eq!(stored["spec"], upgraded["spec"], "the spec is as it was");
    assert_eq!(
        pods,
        seen::worker_names(&namespace, "run"),
        "nobody was replaced"
    );
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    let took = trains_with_another(&namespace, &pods);
    println!("upgraded from the release before, worker 1 lost: training again after {took:.1?}");
    let pods = seen::worker_names(&namespace, "run");
    namespace
        .kubectl(&["delete", "pod", &pods[0], "--grace-period=0", "--force"])
        .expect("killing worker 0");
    seen::without(&namespace, "run", &pods, &pods[0]);
    let (attempt, took) = trains_again(&namespace);
    println!("worker 0 lost: training again after {took:.1?}, {attempt}");
    assert_eq!(begun, images(&namespace));
    ends_like_one_left_alone(&namespace, job);
}

/// With the chart's `watchNamespace` it has no rights elsewhere, and needs none.
#[test]
fn an_operator_of_one_namespace_runs_its_jobs_and_sees_no_others() {
    let [own, other] = ["own", "other"].map(Namespace::new);
    let reinstall = Reinstall;
    let only = format!("watchNamespace={}", own.name());
    upgrade_chart("charts/yolo-operator", &[only.as_str()]).expect("helm upgrade");
    let may = |namespace: &Namespace| {
        let account = format!("--as=system:serviceaccount:{OPERATOR_NAMESPACE}:yolo-operator");
        let asked = namespace.kubectl(&["auth", "can-i", "create", "pods", &account]);
        asked.stdout.trim() == "yes"
    };
    assert_eq!((true, false), (may(&own), may(&other)));
    for namespace in [&own, &other] {
        data::digits(namespace, 64, 16, 64);
        namespace
            .apply(&Job::new("run").manifest())
            .expect("applying the job");
    }
    seen::wait_complete(&own, "run");
    let unseen = other.get("ytj", "run").expect("the job");
    assert!(unseen["status"].is_null(), "{}", unseen["status"]);
    drop(reinstall);
    seen::wait_complete(&other, "run");
}
