//! The network between the nodes gets worse.

use tests::broken::WorseNetwork;
use tests::{last, operator_pods, processes};

use crate::{
    ends_like_one_left_alone, long_job, seen, training, trains_again, trains_with_another,
};

#[test]
fn a_slow_network_makes_a_run_slower_and_nothing_else() {
    is_slower_and_nothing_else("slow", &["slow", "20mbit"]);
}

#[test]
fn a_lossy_network_makes_a_run_slower_and_nothing_else() {
    is_slower_and_nothing_else("lossy", &["lossy", "3"]);
}

#[test]
fn a_delayed_network_makes_a_run_slower_and_nothing_else() {
    is_slower_and_nothing_else("delayed", &["delayed", "25ms"]);
}

/// Half a minute of it costs no restart.
fn is_slower_and_nothing_else(test: &str, how: &[&str]) {
    let job = |name: &str| long_job(name).set("/training/epochs", 20);
    let namespace = training(test, &job("run"));
    let worse = WorseNetwork::new(how);
    let (attempt, _) = trains_again(&namespace);
    last(30);
    drop(worse);
    println!("{} for half a minute: attempt {attempt}", how.join(" "));
    let ended = ends_like_one_left_alone(&namespace, job);
    assert_eq!(0, ended["status"]["restarts"], "{}", ended["status"]);
}

#[test]
fn a_process_that_dies_while_no_name_is_answered_is_replaced() {
    let job = |name: &str| long_job(name).set("/training/epochs", 400);
    let namespace = training("dns", &job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[1]).expect("a pod");
    let rank = *processes::of_rank(&pod, 1).first().expect("a process");
    let worse = WorseNetwork::new(&["dns-stop"]);
    // Longer than any name is remembered.
    last(15);
    processes::signal(rank, "KILL");
    last(15);
    drop(worse);
    let (attempt, took) = trains_again(&namespace);
    println!(
        "30 s without names, a process killed in the middle: {attempt}, training again {took:.1?} after"
    );
    ends_like_one_left_alone(&namespace, job);
}

/// As where a network policy keeps the operator from the namespace of a job.
#[test]
fn a_job_that_the_operator_cannot_ask_says_so_and_trains_on() {
    let job = |name: &str| long_job(name).set("/training/epochs", 200);
    let namespace = training("silent", &job("run"));
    for pod in seen::worker_names(&namespace, "run") {
        let pod = namespace.get("pod", &pod).expect("a pod");
        processes::close_port(processes::agent(&pod).expect("an agent"), 9464);
    }
    let silent = seen::wait(&namespace, "run", "what the operator lacks", |job| {
        let told = job["status"]["waitingOn"].as_str().unwrap_or_default();
        told.contains("port 9464")
    });
    assert_eq!("Running", silent["status"]["state"]);
    let done = ends_like_one_left_alone(&namespace, job);
    assert_eq!(0, done["status"]["restarts"], "{}", done["status"]);
    assert!(done["status"]["waitingOn"].is_null());
}

/// As where one of several API servers goes without closing its connections, or a load balancer forgets them.
#[test]
fn a_pod_that_is_lost_is_replaced_although_the_operators_connections_are_dead() {
    let job = |name: &str| long_job(name).set("/training/epochs", 400);
    let namespace = training("forgotten", &job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let connections: usize = operator_pods()
        .iter()
        .map(processes::forget_connections)
        .sum();
    assert!(connections > 1, "watches and requests: {connections}");
    namespace
        .kubectl(&["delete", "pod", &pods[1], "--grace-period=0", "--force"])
        .expect("killing a worker");
    let took = trains_with_another(&namespace, &pods);
    println!("{connections} connections of the operator's dead, a pod lost: {took:.1?}");
    ends_like_one_left_alone(&namespace, job);
}
