//! Workers get nodes together, or not at all.

use std::time::Duration;

use serde_json::json;
use tests::{Job, Namespace, data, kubectl_in, until};

use crate::gangs::{self, wide};
use crate::seen;

#[test]
fn a_gang_that_does_not_fit_leaves_the_nodes_to_others() {
    let namespace = Namespace::new("gang");
    let job = |name: &str, workers| wide(name, workers, &json!({"gang": "Kubernetes"}));
    let waiting = gangs::one_that_does_not_fit_leaves_the_nodes_to_others(&namespace, job);
    let told = waiting["status"]["waitingOn"].as_str().unwrap_or_default();
    assert!(told.contains("no node can take the pod"), "{told}");
    let group = namespace
        .get("podgroups.scheduling.k8s.io", &gangs::first_group(&waiting))
        .expect("its group");
    assert_eq!(3, group["spec"]["schedulingPolicy"]["gang"]["minCount"]);

    // Each for itself, two of the three would have taken a node and kept it.
    namespace
        .apply(&wide("loose", 3, &json!({"gang": "None"})).manifest())
        .expect("applying the loose job");
    seen::wait(&namespace, "loose", "two nodes to be held", |_| {
        gangs::placed(&namespace, "loose") == 2
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
    // One that is only named makes no pod wait for anything that could be looked up, and is told after a while.
    let job = Job::new("alone").set("/workers/template", json!({"schedulerName": "nobody"}));
    namespace.apply(&job.manifest()).expect("applying the job");
    let waiting = seen::wait(&namespace, "alone", "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "WaitingForScheduler")
    });
    let told = waiting["status"]["waitingOn"].as_str().expect("words");
    assert!(
        told.contains("the scheduler nobody has not looked"),
        "{told}"
    );
    let job = Job::new("queued").label("kueue.x-k8s.io/queue-name", "team");
    namespace.apply(&job.manifest()).expect("applying the job");
    let waiting = seen::wait(&namespace, "queued", "the wait to be explained", |job| {
        job["status"]["waitingOn"].is_string()
    });
    let told = waiting["status"]["waitingOn"].as_str().expect("words");
    assert!(told.contains("Kueue is not installed"), "{told}");
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
