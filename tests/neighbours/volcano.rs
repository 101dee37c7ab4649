//! Volcano schedules our workers: together or not at all, in its queues, and one that is replaced alone too.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Job, Namespace, data, kubectl, kubectl_in, processes, until};

use crate::{gangs, seen};

fn job(name: &str, workers: u32) -> Job {
    gangs::wide(name, workers, &json!({"gang": "Volcano"}))
}

fn step(job: &Value) -> u64 {
    job["status"]["progress"]["step"].as_u64().unwrap_or(0)
}

#[test]
fn a_gang_that_does_not_fit_leaves_the_nodes_to_others() {
    let namespace = Namespace::new("volcano");
    let waiting = gangs::one_that_does_not_fit_leaves_the_nodes_to_others(&namespace, job);
    println!("waitingOn: {}", waiting["status"]["waitingOn"]);
    let group = namespace
        .get(
            "podgroups.scheduling.volcano.sh",
            &gangs::first_group(&waiting),
        )
        .expect("its group");
    assert_eq!(3, group["spec"]["minMember"]);
    for pod in gangs::pods(&namespace, "small") {
        assert_eq!("volcano", pod["spec"]["schedulerName"]);
    }

    // A group goes with its job.
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
    let lucky = job("lucky", 2).set("/training/epochs", 200);
    namespace
        .apply(&lucky.manifest())
        .expect("applying the job");
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
        job(name, 2)
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
    let alone = job("alone", 1)
        .set("/workers/resources", json!({"requests": {"cpu": "1100m"}}))
        .set("/scheduling/volcanoQueue", namespace.name());
    namespace
        .apply(&alone.manifest())
        .expect("applying the job of one worker");
    seen::wait_complete(&namespace, "modest");
    assert_eq!(0, gangs::placed(&namespace, "greedy"));
    assert_eq!(0, gangs::placed(&namespace, "alone"), "one worker, too");
    let greedy = namespace.get("yolotrainingjob", "greedy").expect("there");
    println!("waitingOn: {}", greedy["status"]["waitingOn"]);
    assert!(greedy["status"]["waitingOn"].is_string());
    namespace
        .kubectl(&["delete", "yolotrainingjobs", "--all"])
        .expect("deleting the jobs");
    kubectl(&["delete", "queues.scheduling.volcano.sh", namespace.name()]).expect("no queue");
}
