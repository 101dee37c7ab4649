//! Volcano schedules our workers: together or not at all, in its queues, and one that is replaced alone too.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, data, kubectl, kubectl_in, processes, until};

use crate::seen;

/// One such worker fits on each of the two nodes.
fn wide(name: &str, workers: u32) -> Job {
    Job::new(name)
        .set("/training/epochs", 2)
        .set("/training/batchSize", 6)
        .set("/workers/replicas", workers)
        .set("/workers/resources", json!({"requests": {"cpu": "1200m"}}))
        .set("/scheduling", json!({"gang": "Volcano"}))
}

fn pods(namespace: &Namespace, job: &str) -> Vec<Value> {
    namespace.list("pods", &format!("yolo-operator.dev/job-name={job}"))
}

fn nodes(namespace: &Namespace, job: &str) -> usize {
    let pods = pods(namespace, job);
    let nodes = pods
        .iter()
        .filter(|pod| pod["spec"]["nodeName"].is_string());
    nodes.count()
}

fn step(job: &Value) -> u64 {
    job["status"]["progress"]["step"].as_u64().unwrap_or(0)
}

/// What Volcano says of the group of a job's first incarnation.
fn group(namespace: &Namespace, job: &Value) -> Value {
    let text = |field: &str| job["metadata"][field].as_str().expect("a text").to_owned();
    let name = format!("{}-{}-0", text("name"), &text("uid")[..8]);
    namespace
        .get("podgroups.scheduling.volcano.sh", &name)
        .expect("its group")
}

#[test]
fn a_gang_that_does_not_fit_leaves_the_nodes_to_others() {
    let namespace = Namespace::new("volcano");
    data::digits(&namespace, 64, 16, 64);
    namespace
        .apply(&wide("large", 3).manifest())
        .expect("applying the large job");
    let waiting = seen::wait(&namespace, "large", "the wait to be explained", |job| {
        let scheduled = seen::stated(job, "Scheduled");
        scheduled.is_some_and(|condition| condition["reason"] == "Unschedulable")
    });
    println!("waitingOn: {}", waiting["status"]["waitingOn"]);
    assert_eq!(0, nodes(&namespace, "large"), "it holds a part of it");
    assert_eq!(3, group(&namespace, &waiting)["spec"]["minMember"]);

    namespace
        .apply(&wide("small", 2).manifest())
        .expect("applying the small job");
    let done = seen::wait_complete(&namespace, "small");
    let workers = done["status"]["workers"].as_array().expect("workers");
    assert_ne!(workers[0]["node"], workers[1]["node"]);
    assert_eq!(0, nodes(&namespace, "large"));
    for pod in pods(&namespace, "small") {
        assert_eq!("volcano", pod["spec"]["schedulerName"]);
    }

    // Room that comes later is taken.
    namespace
        .kubectl(&["delete", "yolotrainingjob", "large", "--wait=true"])
        .expect("deleting the large job");
    until("its group to go", Duration::from_secs(30), || {
        let left = namespace.list("podgroups.scheduling.volcano.sh", "");
        let large = left.iter().filter(|group| {
            let name = group["metadata"]["name"].as_str().unwrap_or_default();
            name.starts_with("large-")
        });
        match large.count() {
            0 => Ok(()),
            count => Err(format!("{count} are there")),
        }
    });
}

#[test]
fn a_worker_that_is_replaced_alone_joins_its_group_again() {
    let namespace = Namespace::new("successor");
    data::digits(&namespace, 64, 16, 64);
    let job = wide("lucky", 2).set("/training/epochs", 200);
    namespace.apply(&job.manifest()).expect("applying the job");
    let before = seen::wait_training(&namespace, "lucky");
    let old = seen::worker_names(&namespace, "lucky");
    let gone = old.iter().find(|pod| pod.contains("-worker-1-"));
    let gone = gone.expect("worker 1");
    let pod = namespace.get("pod", gone).expect("its pod");
    processes::signal(processes::agent(&pod).expect("its agent"), "KILL");
    let new = seen::without(&namespace, "lucky", &old, gone);
    assert_eq!(1, new.iter().filter(|pod| old.contains(pod)).count());
    seen::wait(&namespace, "lucky", "a training step after it", |job| {
        job["status"]["restarts"] == 1 && step(job) > step(&before)
    });
}

#[test]
fn a_queue_of_volcano_bounds_what_its_jobs_take() {
    let namespace = Namespace::new("queue");
    data::digits(&namespace, 64, 16, 64);
    let queue = json!({"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue",
        "metadata": {"name": namespace.name()},
        "spec": {"weight": 1, "reclaimable": false, "capability": {"cpu": "1"}}});
    kubectl_in(&["apply", "--filename=-"], &queue.to_string()).expect("a queue");
    let queued = |name: &str, cpu: &str| {
        wide(name, 2)
            .set("/workers/resources", json!({"requests": {"cpu": cpu}}))
            .set("/scheduling/volcanoQueue", namespace.name())
            .manifest()
    };
    namespace
        .apply(&queued("greedy", "700m"))
        .expect("applying the greedy job");
    namespace
        .apply(&queued("modest", "200m"))
        .expect("applying the modest job");
    seen::wait_complete(&namespace, "modest");
    assert_eq!(0, nodes(&namespace, "greedy"));
    let greedy = namespace.get("yolotrainingjob", "greedy").expect("there");
    println!("waitingOn: {}", greedy["status"]["waitingOn"]);
    assert!(greedy["status"]["waitingOn"].is_string());
    namespace
        .kubectl(&["delete", "yolotrainingjobs", "--all"])
        .expect("deleting the jobs");
    kubectl(&["delete", "queues.scheduling.volcano.sh", namespace.name()]).expect("no queue");
}
