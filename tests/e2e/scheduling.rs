//! Workers get nodes together, or not at all.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, data, kubectl_in, kubectl_json, until};

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

/// The budget that keeps drains off a job's workers, and the group that gets their nodes, as long as they run.
#[test]
fn a_suspended_gang_gives_up_its_group_and_its_budget_and_gets_new_ones() {
    let namespace = Namespace::new("guarded");
    data::digits(&namespace, 64, 16, 64);
    let scheduling = json!({"gang": "Kubernetes", "podDisruptionBudget": true});
    let job = Job::new("guarded")
        .set("/training/epochs", 500)
        .set("/scheduling", scheduling);
    namespace.apply(&job.manifest()).expect("applying the job");
    let kept = |kind: &str| -> Vec<String> {
        let list = namespace.list(kind, "yolo-operator.dev/job-name=guarded");
        let names = list
            .iter()
            .filter(|object| object["metadata"]["deletionTimestamp"].is_null());
        let names = names.map(|object| {
            object["metadata"]["name"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        });
        names.collect()
    };
    let suspend = |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        let patch = ["patch", "ytj", "guarded", "--type=merge", "--patch", &patch];
        namespace.kubectl(&patch).expect("patching the job");
    };
    seen::wait_training(&namespace, "guarded");
    let groups = kept("podgroups.scheduling.k8s.io");
    assert_eq!(1, groups.len(), "{groups:?}");
    assert!(groups[0].ends_with("-0"), "{groups:?}");
    assert_eq!(1, kept("poddisruptionbudgets").len());
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "guarded-worker-1-0", "namespace": namespace.name()}});
    let path = format!(
        "/api/v1/namespaces/{}/pods/guarded-worker-1-0/eviction",
        namespace.name()
    );
    let refused = kubectl_in(
        &["create", "--raw", &path, "--filename=-"],
        &eviction.to_string(),
    );
    assert!(
        !refused.success && refused.stderr.contains("disruption budget"),
        "{}",
        refused.stderr
    );
    suspend(true);
    until("the budget to go", Duration::from_secs(60), || {
        match kept("poddisruptionbudgets") {
            none if none.is_empty() => Ok(()),
            some => Err(some.join(" ")),
        }
    });
    suspend(false);
    until(
        "a group of the next workers alone",
        Duration::from_secs(90),
        || match &kept("podgroups.scheduling.k8s.io")[..] {
            [only] if only.ends_with("-1") => Ok(()),
            other => Err(other.join(" ")),
        },
    );
    assert_eq!(1, kept("poddisruptionbudgets").len());
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
    assert!(seen::worker_names(&namespace, "hot").is_empty());
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
