//! The output volume is full, or a checkpoint is not whole.

use std::fs;
use std::time::Instant;

use serde_json::json;
use tests::broken::SmallVolume;
use tests::{Namespace, data};

use crate::{ends_like_one_left_alone, long_job, seen, training, trains_again};

#[test]
fn a_full_volume_is_named_and_a_larger_one_lets_the_run_go_on() {
    let namespace = Namespace::new("full");
    data::digits(&namespace, 64, 16, 64);
    let folder = data::folder(&namespace, data::RUNS_CLAIM);
    // Two checkpoints of yolov5n with optimiser and average need about 50 MiB.
    let small = SmallVolume::new(&folder, "60m");
    let job = |name: &str| {
        let backoff = json!({"initialSeconds": 2, "maxSeconds": 5});
        long_job(name).set("/training/checkpointEvery", 1).set(
            "/failurePolicy",
            json!({"maxRestarts": 100, "backoff": backoff}),
        )
    };
    namespace
        .apply(&job("run").manifest())
        .expect("applying the job");
    let failed = seen::wait(&namespace, "run", "the first failure", |job| {
        let failures = job["status"]["failures"].as_array();
        failures.is_some_and(|failures| !failures.is_empty())
            || seen::condition(job, "Complete").is_some()
            || seen::condition(job, "Failed").is_some()
    });
    let failure = &failed["status"]["failures"][0];
    println!("full volume: {}: {}", failure["reason"], failure["message"]);
    let message = failure["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("No space left") || message.contains("MiB left"),
        "{}",
        failed["status"]
    );
    let start = Instant::now();
    small.resize("1g");
    let (attempt, _) = trains_again(&namespace);
    println!(
        "larger volume: attempt {attempt} trains after {:.1?}",
        start.elapsed()
    );
    ends_like_one_left_alone(&namespace, job);
}

#[test]
fn a_checkpoint_that_is_not_whole_is_passed_over() {
    let job = |name: &str| long_job(name).set("/training/checkpointEvery", 2);
    let namespace = training("truncated", &job("run"));
    let before = seen::wait(&namespace, "run", "a second checkpoint", |job| {
        job["status"]["checkpoint"]["step"].as_u64().unwrap_or(0) >= 32
    });
    let pods = seen::worker_names(&namespace, "run");
    namespace
        .kubectl(&[
            "delete",
            "pod",
            &pods[0],
            &pods[1],
            "--grace-period=0",
            "--force",
            "--wait=false",
        ])
        .expect("killing both workers");
    // The newest there is; the workers are gone.
    let newest = data::checkpoint(&namespace, &before);
    let folder = newest.parent().expect("a folder of checkpoints");
    let mut steps: Vec<_> = fs::read_dir(folder)
        .expect("readable")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("model.safetensors").exists())
        .collect();
    steps.sort();
    let newest = steps.last().expect("a checkpoint");
    let model = fs::OpenOptions::new()
        .write(true)
        .open(newest.join("model.safetensors"))
        .expect("writable");
    model.set_len(1000).expect("truncated");
    println!("truncated: {}", newest.display());
    seen::replaced(&namespace, "run", &pods);
    trains_again(&namespace);
    ends_like_one_left_alone(&namespace, job);
}
