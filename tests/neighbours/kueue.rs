//! Queues of Kueue: who waits, who goes first, and that nothing of a run is lost by it.

use std::time::Duration;

use serde_json::{Value, json};
use tests::broken::{Drained, Tainted};
use tests::{Job, Namespace, Reinstall, data, kubectl_in, kubectl_json, until, upgrade_chart};

use crate::seen;

/// CPU that each worker asks for.
const REQUEST: &str = "100m";
/// What the queue has: two workers' worth, and not three.
const QUOTA: &str = "250m";

/// Who may run on this node, beside what the flavour says.
const NODE: &str = "node-1";
/// The taint of that node that the flavour tolerates.
const TAINT: &str = "yolo-operator.dev/test";

/// Puts up a queue named `team` in the namespace, with quota on one node only, and removes what has no namespace
/// at the end.
struct Queue {
    name: String,
}

impl Queue {
    fn new(namespace: &Namespace) -> Self {
        let name = namespace.name().to_owned();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor",
                "metadata": {"name": name},
                "spec": {
                    "nodeLabels": {"kubernetes.io/hostname": NODE},
                    "tolerations": [{"key": TAINT, "operator": "Exists"}],
                }},
            {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass",
                "metadata": {"name": name}, "value": 1000},
            {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue",
                "metadata": {"name": name},
                "spec": {
                    "namespaceSelector": {},
                    "preemption": {"withinClusterQueue": "LowerPriority"},
                    "resourceGroups": [{"coveredResources": ["cpu"], "flavors": [
                        {"name": name, "resources": [{"name": "cpu", "nominalQuota": QUOTA}]}]}],
                }},
            {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "LocalQueue",
                "metadata": {"name": "team", "namespace": name},
                "spec": {"clusterQueue": name}},
        ]});
        kubectl_in(&["apply", "-f", "-"], &list.to_string()).expect("applying a queue");
        Self { name }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for kind in ["clusterqueue", "resourceflavor", "workloadpriorityclass"] {
            let kind = format!("{kind}.kueue.x-k8s.io");
            tests::kubectl(&[
                "delete",
                &kind,
                &self.name,
                "--wait=false",
                "--ignore-not-found",
            ]);
        }
    }
}

fn job(name: &str, workers: u32) -> Job {
    Job::new(name)
        .set("/workers/replicas", workers)
        .set("/workers/resources", json!({"requests": {"cpu": REQUEST}}))
        .label("kueue.x-k8s.io/queue-name", "team")
}

fn workload(namespace: &Namespace, job: &Value) -> Option<Value> {
    let uid = &job["metadata"]["uid"].as_str()?[..8];
    let name = format!("{}-{uid}", job["metadata"]["name"].as_str()?);
    namespace.get("workloads.kueue.x-k8s.io", &name)
}

fn kueue_says<'a>(workload: &'a Value, kind: &str) -> Option<&'a str> {
    let conditions = workload["status"]["conditions"].as_array()?;
    conditions
        .iter()
        .find(|condition| condition["type"] == kind)?["status"]
        .as_str()
}

#[test]
fn jobs_wait_their_turn_and_one_that_gives_way_loses_nothing() {
    let namespace = Namespace::new("kueue");
    let _queue = Queue::new(&namespace);
    data::digits(&namespace, 64, 16, 64);
    let long = |name| {
        job(name, 2)
            .set("/training/epochs", 60)
            .set("/training/checkpointEvery", 100)
    };
    namespace
        .apply(&long("first").manifest())
        .expect("applying the first job");
    let first = seen::wait_training(&namespace, "first");
    let status = &first["status"];
    assert_eq!("team", status["admission"]["queue"], "{status}");
    let admitted = seen::condition(&first, "Admitted").expect("it is admitted");
    assert_eq!("QuotaReserved", admitted["reason"]);
    for worker in status["workers"].as_array().expect("workers") {
        assert_eq!(NODE, worker["node"], "the flavour is of one node");
    }
    until("Kueue to know that the pods run", seen::END, || {
        let found = workload(&namespace, &first).ok_or("no Workload")?;
        match kueue_says(&found, "PodsReady") {
            Some("True") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });

    // There is no room for a second one, which says so.
    namespace
        .apply(&job("second", 2).manifest())
        .expect("applying the second job");
    let second = seen::wait(&namespace, "second", "Kueue's words", |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        told.contains("insufficient")
    });
    assert_eq!("Queued", second["status"]["state"]);
    assert!(seen::worker_names(&namespace, "second").is_empty());
    assert!(second["status"]["startTime"].is_null());

    // One of higher priority takes its place: the first gives way with a checkpoint, and waits.
    let urgent = job("urgent", 2).label("kueue.x-k8s.io/priority-class", namespace.name());
    namespace
        .apply(&urgent.manifest())
        .expect("applying the urgent job");
    let gave_way = seen::wait(&namespace, "first", "it to give way", |job| {
        job["status"]["state"] == "Queued"
            && seen::worker_names(&namespace, "first").is_empty()
            && job["status"]["checkpoint"]["step"].is_u64()
    });
    let left = gave_way["status"]["checkpoint"]["step"]
        .as_u64()
        .expect("a step");
    assert!(left > 0, "{}", gave_way["status"]);
    seen::wait_complete(&namespace, "urgent");

    // It goes on where it was, at no cost, and ends with the bytes of one that was left alone.
    let first = seen::wait_complete(&namespace, "first");
    assert_eq!(0, first["status"]["restarts"], "{}", first["status"]);
    let log = namespace.kubectl(&["get", "events", "--output=jsonpath={.items[*].reason}"]);
    for reason in ["Queued", "Admitted"] {
        assert!(log.stdout.contains(reason), "no {reason} in {}", log.stdout);
    }
    seen::wait_complete(&namespace, "second");
    until("Kueue to know the end", Duration::from_secs(20), || {
        let found = workload(&namespace, &first).ok_or("no Workload")?;
        match kueue_says(&found, "Finished") {
            Some("True") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    namespace
        .apply(&long("alone").manifest())
        .expect("applying the last job");
    let alone = seen::wait_complete(&namespace, "alone");
    data::assert_same_weights(&namespace, [&first, &alone]);
}

#[test]
fn a_job_begins_with_as_many_workers_as_there_is_room_for() {
    let namespace = Namespace::new("partial");
    let _queue = Queue::new(&namespace);
    data::digits(&namespace, 64, 16, 64);
    let wide = job("wide", 4).set("/workers/minReplicas", 1);
    namespace.apply(&wide.manifest()).expect("applying the job");
    let done = seen::wait_complete(&namespace, "wide");
    let status = &done["status"];
    assert_eq!(
        (2, Some(2)),
        (
            status["totalWorkers"].as_u64().unwrap_or(0),
            status["readyWorkers"].as_u64()
        )
    );
    assert_eq!(
        4, done["spec"]["workers"]["replicas"],
        "the spec is as it was written"
    );
}

#[test]
fn a_suspended_job_gives_its_place_to_the_next() {
    let namespace = Namespace::new("suspend");
    let _queue = Queue::new(&namespace);
    data::digits(&namespace, 64, 16, 64);
    let long = job("long", 2).set("/training/epochs", 200);
    namespace.apply(&long.manifest()).expect("applying the job");
    let started = seen::wait_training(&namespace, "long");
    namespace
        .apply(&job("next", 2).manifest())
        .expect("applying the next job");
    namespace
        .kubectl(&[
            "patch",
            "ytj",
            "long",
            "--type=merge",
            "--patch",
            r#"{"spec": {"suspend": true}}"#,
        ])
        .expect("suspending the job");
    seen::wait_complete(&namespace, "next");
    assert!(
        workload(&namespace, &started).is_none(),
        "it stands in no queue"
    );
    namespace
        .kubectl(&["delete", "ytj", "long", "--wait"])
        .expect("deleting the job");
    until("nothing to be left in the queue", seen::END, || {
        let left = kubectl_json(&[
            "--namespace",
            namespace.name(),
            "get",
            "workloads.kueue.x-k8s.io",
        ]);
        let left = left.ok_or("no answer")?["items"]
            .as_array()
            .map_or(0, Vec::len);
        if left == 1 {
            Ok(())
        } else {
            Err(left.to_string())
        }
    });
}

/// Its flavour's node takes no pods for a while, longer than Kueue waits for them (`kueue.sh`).
#[test]
fn a_gang_that_does_not_start_gives_its_place_back_and_starts_where_its_flavour_says() {
    let namespace = Namespace::new("stuck");
    let _queue = Queue::new(&namespace);
    data::digits(&namespace, 64, 16, 64);
    // Only who tolerates it comes to the node at all, which no job here says.
    let _tainted = Tainted::new(NODE, TAINT);
    let closed = Drained::of(NODE, "stuck");
    namespace
        .apply(&job("stuck", 2).manifest())
        .expect("applying the job");
    let stuck = seen::wait(&namespace, "stuck", "its pods to wait", |_| {
        seen::worker_names(&namespace, "stuck").len() == 2
    });
    until("Kueue to give up on it", Duration::from_secs(60), || {
        let found = workload(&namespace, &stuck).ok_or("no Workload")?;
        match found["status"]["requeueState"]["count"].as_u64() {
            Some(1..) => Ok(()),
            _ => Err(found["status"].to_string()),
        }
    });
    drop(closed);
    let done = seen::wait_complete(&namespace, "stuck");
    let status = &done["status"];
    assert_eq!(0, status["restarts"], "{status}");
    for worker in status["workers"].as_array().expect("workers") {
        assert_eq!(NODE, worker["node"], "{status}");
    }
    let events = namespace.kubectl(&["get", "events", "--output=jsonpath={.items[*].message}"]);
    assert!(events.stdout.contains("PodsReady"), "{}", events.stdout);
}

/// As where the chart's `kueue.enabled` is turned off under running jobs.
#[test]
fn without_the_right_to_use_kueue_jobs_say_so_and_those_that_run_end() {
    let namespace = Namespace::new("rights");
    let _queue = Queue::new(&namespace);
    data::digits(&namespace, 64, 16, 64);
    namespace
        .apply(&job("runs", 2).set("/training/epochs", 90).manifest())
        .expect("applying the job that runs");
    seen::wait_training(&namespace, "runs");
    let granted = Reinstall;
    upgrade_chart("charts/yolo-operator", &["kueue.enabled=false"]).expect("helm upgrade");
    namespace
        .apply(&job("waits", 1).manifest())
        .expect("applying the job that waits");
    let waits = seen::wait(&namespace, "waits", "what the operator lacks", |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        told.contains("kueue.enabled")
    });
    assert_eq!("Queued", waits["status"]["state"]);
    namespace
        .kubectl(&["label", "ytj", "waits", "kueue.x-k8s.io/queue-name-"])
        .expect("taking the label off");
    seen::wait_complete(&namespace, "waits");
    let done = seen::wait_complete(&namespace, "runs");
    assert_eq!(0, done["status"]["restarts"], "{}", done["status"]);

    // Kueue hears of the end once it may be told, when the operator looks at the job again: that is every five minutes
    // or when something changes.
    drop(granted);
    namespace
        .kubectl(&["label", "ytj", "runs", "look=again"])
        .expect("changing it");
    until("Kueue to know of the end", seen::END, || {
        let found = workload(&namespace, &done).ok_or("no Workload")?;
        match kueue_says(&found, "Finished") {
            Some("True") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
