//! A team's own PyTorch script under the agents: started by them, and by torchrun.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::json;
use tests::{Job, Namespace, data, processes, until};

use crate::seen;

/// The script; in the folder of the data set, so that the image is PyTorch alone.
const SCRIPT: &str = include_str!("train.py");
/// Twenty seconds and more.
const STEPS: u32 = 500;
/// Well behind a checkpoint, and well before the end.
const MIDDLE: &str = "step 105 loss";

/// An image that `pytorch.sh` made.
fn image() -> String {
    let versions = include_str!("versions.env");
    let version = versions
        .lines()
        .find_map(|line| line.strip_prefix("PYTORCH_VERSION="))
        .expect("the version of the image");
    format!("localhost/pytorch:v{version}")
}

/// A namespace with the script in its data set.
fn namespace(test: &str) -> Namespace {
    let namespace = Namespace::new(test);
    data::digits(&namespace, 8, 4, 64);
    let folder = data::folder(&namespace, data::DATA_CLAIM);
    fs::write(folder.join("digits/train.py"), SCRIPT).expect("writing the script");
    namespace
}

/// A job of two workers, each of which starts the script like this.
fn job(name: &str, program: &[&str]) -> Job {
    let (folder, steps) = (format!("/output/{name}"), STEPS.to_string());
    let arguments = ["/data/train.py", &folder, &steps];
    let command = [program, &arguments[..]].concat();
    let container = json!({
        "image": image(),
        "command": command,
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    });
    Job::new(name).set("/workers/container", container)
}

/// What rank 0 left in its folder.
fn weights(namespace: &Namespace, name: &str) -> Vec<u8> {
    let file: PathBuf = [name, "weights.pt"].iter().collect();
    let path = data::folder(namespace, data::RUNS_CLAIM).join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn log(namespace: &Namespace, pod: &str) -> String {
    let arguments = ["logs", pod, "--container=worker"];
    namespace.kubectl(&arguments).stdout
}

/// Whether this process is there and has not ended.
fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("\nState:") && !status.contains("\nState:\tZ")
}

/// The program that a process runs.
fn command(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

/// Where each attempt of the script began, by the log of rank 0.
fn begins(log: &str) -> Vec<u32> {
    let attempts = log.split("rank 0 of 2 begins at step ").skip(1);
    attempts
        .filter_map(|rest| rest.lines().next()?.parse().ok())
        .collect()
}

/// Kills what runs `victim` in worker 1, and waits for steps of the next attempt, which meets nothing of the first one.
fn kill(namespace: &Namespace, names: &[String], victim: &str) {
    let pods: Vec<_> = names
        .iter()
        .map(|name| namespace.get("pod", name).expect("it runs"))
        .collect();
    let running = || {
        let of_each = (0..).zip(&pods);
        let of_each = of_each.map(|(rank, pod)| processes::of_rank(pod, rank));
        of_each.collect::<Vec<_>>()
    };
    let first = running();
    let found = first[1].iter().find(|&&pid| command(pid).contains(victim));
    processes::signal(*found.expect("what is to be killed"), "KILL");
    let start = Instant::now();
    let first = first.concat();
    until("the next attempt", seen::END, || {
        let now = running().concat();
        let is_new = now.iter().any(|pid| !first.contains(pid));
        is_new.then_some(()).ok_or(format!("{now:?}"))
    });
    let left = first.iter().filter(|&&pid| runs(pid));
    let left: Vec<String> = left.map(|&pid| command(pid)).collect();
    assert!(left.is_empty(), "of the first attempt still run: {left:?}");
    until("its steps", seen::END, || {
        let log = log(namespace, &names[0]);
        let last = log.lines().last().unwrap_or_default().to_owned();
        let steps = begins(&log).len() == 2 && last.starts_with("step ");
        steps.then_some(()).ok_or(last)
    });
    println!(
        "{victim} killed until steps are seen: {:.1} s",
        start.elapsed().as_secs_f64()
    );
}

/// Two jobs start the script like this. In the one, what runs `victim` is killed in the middle: it goes on in its pods from
/// its checkpoint, and both end with the same bytes.
fn one_that_is_killed_ends_like_one_left_alone(test: &str, program: &[&str], victim: &str) {
    let namespace = namespace(test);
    for name in ["killed", "alone"] {
        let job = job(name, program);
        namespace.apply(&job.manifest()).expect("applying the job");
    }
    seen::wait(&namespace, "killed", "workers to run", |job| {
        seen::condition(job, "Running").is_some()
    });
    let pods = seen::worker_names(&namespace, "killed");
    until("the middle of the run", seen::END, || {
        let log = log(&namespace, &pods[0]);
        let last = log.lines().last().unwrap_or_default().to_owned();
        log.contains(MIDDLE).then_some(()).ok_or(last)
    });
    kill(&namespace, &pods, victim);

    let killed = seen::wait_complete(&namespace, "killed");
    let status = &killed["status"];
    println!("failure: {}", status["failures"][0]);
    assert_eq!(
        json!({"incarnation": 0, "restart": 1}),
        status["attempt"],
        "{status}"
    );
    assert_eq!(
        json!([1, 1]),
        json!([status["restarts"], status["countedRestarts"]])
    );
    assert_eq!(pods, seen::worker_names(&namespace, "killed"));
    let alone = seen::wait_complete(&namespace, "alone");
    assert_eq!(0, alone["status"]["restarts"], "{}", alone["status"]);
    let begins = begins(&log(&namespace, &pods[0]));
    assert!(
        matches!(begins[..], [0, from] if from >= 100),
        "it goes on from its checkpoint: {begins:?}"
    );
    assert!(
        weights(&namespace, "killed") == weights(&namespace, "alone"),
        "the weights differ"
    );
}

#[test]
fn a_script_goes_on_from_its_checkpoint_and_ends_with_the_same_weights() {
    let program = ["python"];
    one_that_is_killed_ends_like_one_left_alone("pytorch", &program, "train.py");
}

/// torchrun gives each process that it starts a session of its own, which no signal to its own group reaches.
#[test]
fn torchrun_finds_its_place_and_nothing_of_it_stays_when_it_is_killed() {
    one_that_is_killed_ends_like_one_left_alone("torchrun", &["torchrun"], "torchrun");
}

/// No node here has GPUs: the pods wait, and what their launcher would find stands in them.
#[test]
fn torchrun_starts_a_process_for_each_gpu() {
    let namespace = namespace("gpus");
    let job = job("wide", &["torchrun"])
        .set("/workers/gpusPerWorker", 2)
        .set("/workers/processesPerWorker", 1);
    namespace.apply(&job.manifest()).expect("applying the job");
    let pods = until("its pods", seen::END, || {
        let pods = seen::workers(&namespace, "wide");
        (pods.len() == 2).then_some(pods).ok_or_else(String::new)
    });
    for pod in pods {
        let worker = &pod["spec"]["containers"][0];
        assert_eq!("2", worker["resources"]["limits"]["nvidia.com/gpu"]);
        let variables = worker["env"].as_array().expect("variables");
        for (name, value) in [("NPROC_PER_NODE", "1"), ("PET_NPROC_PER_NODE", "2")] {
            let found = variables.iter().find(|found| found["name"] == name);
            assert_eq!(value, found.expect(name)["value"], "{name}");
        }
    }
}
