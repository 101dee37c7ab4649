//! What happens to a worker itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::mutated::Mutated;
use tests::{Job, Namespace, data, processes, until};

use crate::{
    ends_like_one_left_alone, long_job, seen, training, trains_again, trains_with_another,
};

#[test]
fn a_killed_agent_costs_its_pod_and_not_the_run() {
    let namespace = training("agent", &long_job("run"));
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[1]).expect("a pod");
    processes::signal(processes::agent(&pod).expect("an agent"), "KILL");
    let took = trains_with_another(&namespace, &pods);
    println!("agent killed: training again after {took:.1?}");
    ends_like_one_left_alone(&namespace, long_job);
}

/// Neither has a restart to spare.
#[test]
fn rules_have_all_workers_replaced_at_the_cost_of_a_restart_or_for_nothing() {
    for (action, counted) in [("RestartGang", 1), ("RestartGangIgnoringLimit", 0)] {
        let policy = json!({"maxRestarts": counted, "rules": [{"action": action, "signals": [9]}]});
        let job = |name: &str| long_job(name).set("/failurePolicy", policy.clone());
        let namespace = training("rules", &job("run"));
        let pods = seen::worker_names(&namespace, "run");
        let pod = namespace.get("pod", &pods[1]).expect("a pod");
        let rank = *processes::of_rank(&pod, 1).first().expect("a process");
        processes::signal(rank, "KILL");
        let new = seen::replaced(&namespace, "run", &pods);
        assert!(new.iter().all(|pod| !pods.contains(pod)), "{new:?}");
        let (attempt, took) = trains_again(&namespace);
        println!("{action}: training again after {took:.1?} more");
        assert_eq!(json!({"incarnation": 1, "restart": 0}), attempt);
        let ended = ends_like_one_left_alone(&namespace, job);
        let status = &ended["status"];
        assert_eq!(
            (json!(1), json!(counted)),
            (
                status["restarts"].clone(),
                status["countedRestarts"].clone()
            ),
            "{action}: {status}"
        );
    }
}

/// As a service mesh does that knows no sidecars of Kubernetes' own.
const PROXY: &str = r#"[
  JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{
    name: "proxy", image: "localhost/helper:1", imagePullPolicy: "Never", command: ["sleep", "3600"],
    securityContext: Object.spec.containers.securityContext{
      allowPrivilegeEscalation: false,
      capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}}}}
]"#;

#[test]
fn what_others_added_to_workers_neither_keeps_the_job_nor_its_pods() {
    let namespace = Namespace::new("proxy");
    data::digits(&namespace, 64, 16, 64);
    let workers = json!({"yolo-operator.dev/job-name": "run"});
    let _proxies = Mutated::new(&namespace, &workers, PROXY, "\"proxy\"");
    let job = Job::new("run").set("/training/epochs", 3);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait_complete(&namespace, "run");
    let ended = Instant::now();
    let proxies = || {
        let pods = namespace.list("pods", "yolo-operator.dev/job-name=run");
        let runs = |pod: &&Value| pod["status"]["phase"] == "Running";
        pods.iter().filter(runs).count()
    };
    assert_eq!(2, proxies(), "they outlive their workers");
    until(
        "them to be gone",
        Duration::from_secs(120),
        || match proxies() {
            0 => Ok(()),
            count => Err(format!("{count} run")),
        },
    );
    println!("proxies: gone {:.0?} after the end", ended.elapsed());
}

#[test]
fn a_worker_that_needs_too_much_memory_says_what_to_raise() {
    let greedy = long_job("run")
        .set("/training/imageSize", 640)
        .set("/training/batchSize", 32)
        .set("/workers/replicas", 1)
        .set("/workers/resources", json!({"limits": {"memory": "400Mi"}}))
        .set(
            "/failurePolicy",
            json!({"maxRestarts": 1, "backoff": {"initialSeconds": 1}}),
        );
    let namespace = Namespace::new("memory");
    data::digits(&namespace, 64, 16, 640);
    namespace
        .apply(&greedy.manifest())
        .expect("applying the job");
    let (reason, message) = seen::wait_failed(&namespace, "run");
    println!("out of memory: {reason}: {message}");
    assert_eq!("RestartLimitReached", reason);
    assert!(
        message.contains("workers.resources.limits.memory"),
        "{message}"
    );
    let job = namespace.get("ytj", "run").expect("the job");
    let failures = job["status"]["failures"].as_array().expect("failures");
    assert!(!failures.is_empty());
    for failure in failures {
        let word = failure["reason"].as_str().unwrap_or_default();
        assert!(["OOMKilled", "Killed"].contains(&word), "{failure}");
    }
}

#[test]
fn a_worker_that_the_others_wait_for_is_named() {
    let job = long_job("run").set("/training/epochs", 400);
    let namespace = training("straggler", &job);
    let pods = seen::worker_names(&namespace, "run");
    let pod = namespace.get("pod", &pods[1]).expect("a pod");
    let rank = *processes::of_rank(&pod, 1).first().expect("a process");
    let slowed = Slowed::new(rank);
    let told = seen::wait(&namespace, "run", "the straggler", |job| {
        job["status"]["straggler"]["worker"].is_u64()
    });
    let straggler = &told["status"]["straggler"];
    println!("straggler: {straggler}");
    assert_eq!(
        (1, 1),
        (
            straggler["worker"].as_u64().unwrap(),
            straggler["rank"].as_u64().unwrap()
        )
    );
    let events = namespace
        .kubectl(&["describe", "ytj", "run"])
        .expect("kubectl describe");
    assert!(events.contains("Straggler"), "{events}");
    drop(slowed);
    seen::wait(&namespace, "run", "it to be as fast as the others", |job| {
        job["status"]["straggler"].is_null()
    });
}

/// A process that is stopped for nine tenths of the time.
struct Slowed {
    /// The thread ends when this is gone.
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slowed {
    fn new(pid: u32) -> Self {
        use std::sync::mpsc::RecvTimeoutError::Timeout;
        let (stop, stopped) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            while let Err(Timeout) = stopped.recv_timeout(Duration::from_millis(10)) {
                processes::signal(pid, "STOP");
                let _ = stopped.recv_timeout(Duration::from_millis(90));
                processes::signal(pid, "CONT");
            }
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
