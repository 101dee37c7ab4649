//! Workers get nodes together, or not at all.

use serde_json::{Value, json};
use tests::{Job, Namespace, data, kubectl_json};

use crate::seen;

/// One such worker fits on each of the two nodes.
fn wide(name: &str, workers: u32) -> Job {
    Job::new(name)
        .set("/training/epochs", 2)
        .set("/training/batchSize", 6)
        .set("/workers/replicas", workers)
        .set("/workers/resources", json!({"requests": {"cpu": "1200m"}}))
        .set("/scheduling", json!({"gang": "Kubernetes"}))
}

fn nodes(namespace: &Namespace, job: &str) -> Vec<Value> {
    let pods = namespace.list("pods", &format!("yolo-operator.dev/job-name={job}"));
    let nodes = pods.iter().map(|pod| pod["spec"]["nodeName"].clone());
    nodes.filter(|node| !node.is_null()).collect()
}

#[test]
fn a_gang_that_does_not_fit_leaves_the_nodes_to_others() {
    let namespace = Namespace::new("gang");
    data::digits(&namespace, 64, 16, 64);
    namespace
        .apply(&wide("large", 3).manifest())
        .expect("applying the large job");
    let waiting = seen::wait(&namespace, "large", "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "Unschedulable")
    });
    let told = waiting["status"]["waitingOn"].as_str().unwrap_or_default();
    assert!(told.contains("no node can take the pod"), "{told}");
    assert!(
        nodes(&namespace, "large").is_empty(),
        "it holds half of what it needs"
    );
    let uid = waiting["metadata"]["uid"].as_str().expect("a uid");
    let group = format!("large-{}-0", &uid[..8]);
    let groups = [
        "--namespace",
        namespace.name(),
        "get",
        "podgroups.scheduling.k8s.io",
        &group,
    ];
    let group = kubectl_json(&groups).expect("its group");
    assert_eq!(3, group["spec"]["schedulingPolicy"]["gang"]["minCount"]);

    // Both nodes are free for one that fits, which trains on both.
    namespace
        .apply(&wide("small", 2).manifest())
        .expect("applying the small job");
    let done = seen::wait_complete(&namespace, "small");
    let workers = done["status"]["workers"].as_array().expect("workers");
    assert_ne!(workers[0]["node"], workers[1]["node"]);
    assert!(nodes(&namespace, "large").is_empty());

    // Each for itself, two of the three would have taken a node and kept it.
    let loose = wide("loose", 3).set("/scheduling", json!({"gang": "None"}));
    namespace
        .apply(&loose.manifest())
        .expect("applying the loose job");
    seen::wait(&namespace, "loose", "two nodes to be held", |_| {
        nodes(&namespace, "loose").len() == 2
    });
}

#[test]
fn a_scheduler_that_is_not_installed_is_waited_for_in_words() {
    let namespace = Namespace::new("volcano");
    data::digits(&namespace, 64, 16, 64);
    let job = Job::new("hot").set("/scheduling", json!({"gang": "Volcano"}));
    namespace.apply(&job.manifest()).expect("applying the job");
    let waiting = seen::wait(&namespace, "hot", "the wait to be explained", |job| {
        job["status"]["waitingOn"].is_string()
    });
    let told = waiting["status"]["waitingOn"].as_str().expect("seen above");
    assert!(
        told.contains("serves no PodGroup of scheduling.volcano.sh/v1beta1"),
        "{told}"
    );
    assert!(seen::active_pods(&namespace, "hot").is_empty());
}

#[test]
fn workers_behind_one_switch_share_its_label() {
    let namespace = Namespace::new("switch");
    data::digits(&namespace, 64, 16, 64);
    // Here each node is a switch of its own.
    let near = Job::new("near").set("/training/epochs", 1).set(
        "/scheduling",
        json!({"sameTopology": "kubernetes.io/hostname"}),
    );
    namespace.apply(&near.manifest()).expect("applying the job");
    let done = seen::wait_complete(&namespace, "near");
    let workers = done["status"]["workers"].as_array().expect("workers");
    assert_eq!(workers[0]["node"], workers[1]["node"]);
}
