//! The network between the nodes gets worse.

use std::time::Instant;

use tests::{processes, script};

use crate::{ends_like_one_left_alone, last, long_job, seen, training, trains_again};

const NETWORK: &str = "tests/cluster/network.sh";

/// A network that is worse for as long as this lives.
struct Worse;

impl Worse {
    fn new(arguments: &[&str]) -> Self {
        script(NETWORK, arguments).expect("making the network worse");
        Self
    }
}

impl Drop for Worse {
    fn drop(&mut self) {
        let mended = script(NETWORK, &["mend"]);
        let names = script(NETWORK, &["dns-start"]);
        assert!(
            mended.success && names.success || std::thread::panicking(),
            "{}{}",
            mended.stderr,
            names.stderr
        );
    }
}

#[test]
fn a_slow_network_makes_a_run_slower_and_nothing_else() {
    let job = |name: &str| long_job(name).set("/training/epochs", 20);
    let namespace = training("slow", &job("run"));
    let worse = Worse::new(&["slow", "20mbit"]);
    let start = Instant::now();
    let (attempt, _) = trains_again(&namespace);
    last(30);
    drop(worse);
    println!("20 Mbit/s for {:.0?}: attempt {attempt}", start.elapsed());
    let ended = ends_like_one_left_alone(&namespace, job);
    assert_eq!(0, ended["status"]["restarts"], "{}", ended["status"]);
}

#[test]
fn a_lossy_network_makes_a_run_slower_and_nothing_else() {
    let job = |name: &str| long_job(name).set("/training/epochs", 20);
    let namespace = training("lossy", &job("run"));
    let worse = Worse::new(&["lossy", "3"]);
    let (attempt, _) = trains_again(&namespace);
    last(30);
    drop(worse);
    println!("3 % of packets lost: attempt {attempt}");
    let ended = ends_like_one_left_alone(&namespace, job);
    assert_eq!(0, ended["status"]["countedRestarts"], "{}", ended["status"]);
}

#[test]
fn a_delayed_network_makes_a_run_slower_and_nothing_else() {
    let job = |name: &str| long_job(name).set("/training/epochs", 20);
    let namespace = training("delayed", &job("run"));
    let worse = Worse::new(&["delayed", "25ms"]);
    let (attempt, _) = trains_again(&namespace);
    last(30);
    drop(worse);
    println!("25 ms later each way for half a minute: attempt {attempt}");
    let ended = ends_like_one_left_alone(&namespace, job);
    assert_eq!(0, ended["status"]["restarts"], "{}", ended["status"]);
}

#[test]
fn a_process_that_dies_while_no_name_is_answered_is_replaced() {
    let job = |name: &str| long_job(name).set("/training/epochs", 100);
    let namespace = training("dns", &job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[1]).expect("a pod");
    let rank = *processes::of_rank(&pod, 1).first().expect("a process");
    let worse = Worse::new(&["dns-stop"]);
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
