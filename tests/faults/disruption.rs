//! The cluster takes pods away.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::broken::{Drained, Priority, evict};
use tests::until;

use crate::{
    ends_like_one_left_alone, long_job, seen, training, trains_again, trains_with_another,
};

#[test]
fn an_evicted_worker_costs_no_restart_and_a_budget_keeps_it() {
    let namespace = training("evict", &long_job("run"));
    let pods = seen::worker_names(&namespace, "run");
    evict(&namespace, &pods[1]).expect("evicting a worker");
    let took = trains_with_another(&namespace, &pods);
    println!("evicted: training again after {took:.1?}");
    let ended = ends_like_one_left_alone(&namespace, long_job);
    let status = &ended["status"];
    assert_eq!(
        (1, 0),
        (
            status["restarts"].as_u64().unwrap_or(9),
            status["countedRestarts"].as_u64().unwrap_or(9)
        ),
        "{status}"
    );

    let guarded = long_job("guarded").set("/scheduling", json!({"podDisruptionBudget": true}));
    namespace
        .apply(&guarded.manifest())
        .expect("applying the job");
    seen::wait_training(&namespace, "guarded");
    let pods = seen::worker_names(&namespace, "guarded");
    // The controller of budgets counts pods now and then.
    until("the budget to hold", Duration::from_secs(30), || {
        let refused = evict(&namespace, &pods[1]);
        if refused.stderr.contains("disruption budget") {
            Ok(())
        } else {
            Err(refused.stdout + &refused.stderr)
        }
    });
    seen::wait_complete(&namespace, "guarded");
}

#[test]
fn a_drained_node_sends_its_worker_elsewhere() {
    let namespace = training("drain", &long_job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[0]).expect("a pod");
    let node = pod["spec"]["nodeName"].as_str().expect("a node").to_owned();
    let start = Instant::now();
    let drained = Drained::of(&node, "run");
    seen::without(&namespace, "run", &pods, &pods[0]);
    let (attempt, _) = trains_again(&namespace);
    println!(
        "drained: attempt {attempt} trains elsewhere after {:.1?}",
        start.elapsed()
    );
    for name in seen::worker_names(&namespace, "run") {
        let pod = namespace.get("pod", &name).expect("a pod");
        assert_ne!(node, pod["spec"]["nodeName"].as_str().unwrap_or_default());
    }
    drop(drained);
    let ended = ends_like_one_left_alone(&namespace, long_job);
    assert_eq!(0, ended["status"]["countedRestarts"], "{}", ended["status"]);
}

#[test]
fn a_preempted_job_waits_and_goes_on() {
    let request = json!({"requests": {"cpu": "1200m"}});
    let modest = |name: &str| long_job(name).set("/workers/resources", request.clone());
    let namespace = training("preempt", &modest("run"));
    let class = Priority::new(&namespace);
    // Each node has room for one such worker.
    let urgent = tests::Job::new("urgent")
        .set("/workers/resources", request.clone())
        .set(
            "/workers/template",
            json!({"priorityClassName": class.name()}),
        );
    let start = Instant::now();
    namespace
        .apply(&urgent.manifest())
        .expect("applying the job");
    seen::wait_complete(&namespace, "urgent");
    println!(
        "preempted: the urgent job was complete after {:.1?}",
        start.elapsed()
    );
    let ended = ends_like_one_left_alone(&namespace, modest);
    let status = &ended["status"];
    assert_eq!(0, status["countedRestarts"], "{status}");
    assert!(status["restarts"].as_u64().unwrap_or(0) > 0, "{status}");
}
