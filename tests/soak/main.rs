//! Breaks everything around one job, again and again, and compares its weights with those of a job that was left
//! alone: the same bytes. `make soak` runs it.

#![expect(
    clippy::print_stdout,
    reason = "what was broken and what came of it is the result"
)]

#[path = "../e2e/seen.rs"]
#[expect(dead_code, reason = "the other tests need the rest")]
mod seen;

mod faults;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::broken::{SmallVolume, TwoOperators};
use tests::{Job, Namespace, data};

use crate::faults::{FAULTS, Fault, VOLUME, at, break_something};

const WORKERS: u32 = 3;
/// Who trains for so long has not just been broken.
const STEADY: Duration = Duration::from_millis(1500);

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// The next number of a sequence that a seed decides (xorshift64).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// All faults in an order that the seed decides; each comes before any comes again.
fn shuffled(state: &mut u64) -> Vec<Fault> {
    let mut faults = FAULTS.to_vec();
    for left in (1..faults.len()).rev() {
        faults.swap(left, (next(state) % (left as u64 + 1)) as usize);
    }
    faults
}

fn job(name: &str, epochs: u64) -> Job {
    Job::new(name)
        .set("/workers/replicas", WORKERS)
        .set("/training/epochs", epochs)
        .set("/training/batchSize", 9)
        .set("/training/computeThreads", 1)
        .set("/training/evaluateEvery", epochs)
        .set("/training/checkpointEvery", 5)
        .set("/training/snapshotSeconds", 3)
        // What preempts them wants more than is left beside two.
        .set("/workers/resources", json!({"requests": {"cpu": "500m"}}))
        .set(
            "/failurePolicy",
            json!({"maxRestarts": 1000, "backoff": {"initialSeconds": 1, "maxSeconds": 5}}),
        )
}

/// Waits until the job does training steps for a while, or has ended; returns since when it trains. A worker that has just
/// been asked to end, or stands still, may do a step or two.
fn trains(namespace: &Namespace) -> Option<Instant> {
    let mut before: Option<(Instant, Value, u64)> = None;
    tests::until("the job to train on", Duration::from_secs(180), || {
        let ended = namespace
            .get("ytj", "broken")
            .is_some_and(|job| job["status"]["completionTime"].is_string());
        if ended {
            return Ok(None);
        }
        let (attempt, step) = at(namespace, "broken").ok_or("no step")?;
        match &before {
            Some((since, in_attempt, first)) if *in_attempt == attempt => {
                if since.elapsed() > STEADY && *first + 2 < step {
                    return Ok(Some(*since));
                }
            }
            _ => before = Some((Instant::now(), attempt.clone(), step)),
        }
        Err(format!("attempt {attempt}, step {step}"))
    })
}

#[test]
fn a_job_that_everything_happens_to_ends_with_the_bytes_of_one_left_alone() {
    let (seconds, seed) = (number("SOAK_SECONDS", 600), number("SOAK_SEED", 1));
    let epochs = number("SOAK_EPOCHS", 400);
    let _two = TwoOperators::new();
    let namespace = Namespace::new("soak");
    data::digits(&namespace, 90, 9, 64);
    let volume = SmallVolume::new(&data::folder(&namespace, data::RUNS_CLAIM), VOLUME);
    namespace
        .apply(&job("broken", epochs).manifest())
        .expect("applying the job");

    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut report = String::new();
    let mut faults = Vec::new();
    let start = Instant::now();
    while trains(&namespace).is_some() && start.elapsed() < Duration::from_secs(seconds) {
        if faults.is_empty() {
            faults = shuffled(&mut random);
        }
        let fault = faults.pop().expect("just filled");
        let chosen = (next(&mut random) % u64::from(WORKERS)) as u32;
        let broken = Instant::now();
        let at_second = start.elapsed().as_secs();
        let Some(done) = break_something(&namespace, "broken", &volume, fault, chosen) else {
            continue;
        };
        let again = trains(&namespace).unwrap_or_else(Instant::now);
        let (what, took) = (done.what, again.duration_since(broken).as_secs_f64());
        println!("{at_second:4} s: {what}; training again after {took:.1} s");
        let _ = writeln!(report, "| {at_second} s | {what} | {took:.1} s |");
        drop(done.mended_later);
    }
    let broken = seen::wait_complete(&namespace, "broken");
    let disturbed = start.elapsed().as_secs();
    namespace
        .apply(&job("alone", epochs).manifest())
        .expect("applying the job");
    let start = Instant::now();
    let alone = seen::wait_complete(&namespace, "alone");
    let undisturbed = start.elapsed().as_secs();
    data::assert_same_weights(&namespace, [&broken, &alone]);
    let status = &broken["status"];
    let end = format!(
        "seed {seed}: {} faults, {} restarts ({} counted); complete after {disturbed} s, left alone after \
         {undisturbed} s; the same bytes",
        report.lines().count(),
        status["restarts"],
        status["countedRestarts"]
    );
    println!("{end}");
    let path = tests::cluster::root().join(format!("target/soak-{seed}.md"));
    let head = "| at | fault | training again after |\n| --- | --- | --- |\n";
    std::fs::write(&path, format!("{end}\n\n{head}{report}")).expect("the report is written");
    println!("the report is in {}", path.display());
}
