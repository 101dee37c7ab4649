//! Breaks everything around one job, again and again, and compares its weights with those of a job that was left
//! alone: the same bytes. `make soak` runs it.

#![expect(
    clippy::print_stdout,
    reason = "what was broken and what came of it is the result"
)]

#[path = "../e2e/seen.rs"]
#[expect(dead_code, reason = "the other tests need the rest")]
mod seen;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{
    Job, Namespace, NodeCut, OPERATOR_NAMESPACE, data, kubectl, operator_node, processes, script,
};

const WORKERS: u32 = 3;
const API_SERVER: &str = "tests/cluster/api-server.sh";

/// What is broken.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RankKilled,
    RankStopped,
    AgentKilled,
    PodDeleted,
    PodDeletedByForce,
    OperatorKilled,
    ApiServerRestarted,
    NodeCutOff,
}

/// More often what happens more often.
const FAULTS: [Fault; 12] = [
    Fault::RankKilled,
    Fault::RankKilled,
    Fault::RankKilled,
    Fault::RankStopped,
    Fault::AgentKilled,
    Fault::AgentKilled,
    Fault::PodDeleted,
    Fault::PodDeleted,
    Fault::PodDeletedByForce,
    Fault::OperatorKilled,
    Fault::ApiServerRestarted,
    Fault::NodeCutOff,
];

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

fn job(name: &str, epochs: u64) -> Job {
    Job::new(name)
        .set("/workers/replicas", WORKERS)
        .set("/training/epochs", epochs)
        .set("/training/batchSize", 9)
        .set("/training/computeThreads", 1)
        .set("/training/evaluateEvery", epochs)
        .set("/training/checkpointEvery", 5)
        .set("/training/snapshotSeconds", 3)
        .set(
            "/failurePolicy",
            json!({"maxRestarts": 1000, "backoff": {"initialSeconds": 1, "maxSeconds": 5}}),
        )
}

/// The job's attempt and its step, as worker 0 tells them now; `None` while it trains no step.
fn at(namespace: &Namespace) -> Option<(Value, u64)> {
    let pods = seen::worker_names(namespace, "broken");
    let now = seen::progress(namespace, pods.first()?)?;
    let rank = &now["ranks"][0];
    let step = rank["step"].as_u64()?;
    (rank["phase"] == "Training").then(|| (now["attempt"].clone(), step))
}

/// Waits until the job does training steps, or has ended; says whether it trains.
fn trains(namespace: &Namespace) -> bool {
    let mut before = None;
    tests::until("the job to train on", Duration::from_secs(180), || {
        let ended = namespace
            .get("ytj", "broken")
            .is_some_and(|job| job["status"]["completionTime"].is_string());
        if ended {
            return Ok(false);
        }
        let now = at(namespace).ok_or("no step")?;
        match &before {
            Some((attempt, step)) if *attempt == now.0 && *step < now.1 => Ok(true),
            Some((attempt, _)) if *attempt == now.0 => Err(format!("{now:?}")),
            _ => {
                before = Some(now);
                Err("a first step".to_owned())
            }
        }
    })
}

/// Breaks something; returns what, in words, and what is mended once the job trains again.
fn break_something(
    namespace: &Namespace,
    fault: Fault,
    chosen: u32,
) -> Option<(String, Option<NodeCut>)> {
    let pods = seen::worker_names(namespace, "broken");
    let name = pods.get(chosen as usize)?;
    let pod = namespace.get("pod", name)?;
    let what = match fault {
        Fault::RankKilled | Fault::RankStopped => {
            let rank = *processes::of_rank(&pod, chosen).first()?;
            let signal = if matches!(fault, Fault::RankKilled) {
                "KILL"
            } else {
                "STOP"
            };
            processes::signal(rank, signal);
            format!("SIG{signal} to rank {chosen}")
        }
        Fault::AgentKilled => {
            processes::signal(processes::agent(&pod)?, "KILL");
            format!("SIGKILL to the agent of worker {chosen}")
        }
        Fault::PodDeleted => {
            namespace.kubectl(&["delete", "pod", name, "--wait=false"]);
            format!("the pod of worker {chosen} deleted")
        }
        Fault::PodDeletedByForce => {
            namespace.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"]);
            format!("the pod of worker {chosen} deleted without grace")
        }
        Fault::OperatorKilled => {
            kubectl(&[
                "--namespace",
                OPERATOR_NAMESPACE,
                "delete",
                "pods",
                "--selector=app.kubernetes.io/name=yolo-operator",
                "--grace-period=0",
                "--force",
            ]);
            "the operator deleted without grace".to_owned()
        }
        Fault::ApiServerRestarted => {
            script(API_SERVER, &["restart"]).expect("restarting the API server");
            "the API server restarted".to_owned()
        }
        Fault::NodeCutOff => {
            let node = pod["spec"]["nodeName"].as_str()?.to_owned();
            if node == operator_node() {
                return None;
            }
            let cut = NodeCut::of(&node);
            tests::until("other workers", Duration::from_secs(120), || {
                let pods = seen::worker_names(namespace, "broken");
                if pods.contains(name) {
                    return Err(pods.join(" "));
                }
                Ok(())
            });
            let what = format!("{node} cut off, and back once the job trained elsewhere");
            return Some((what, Some(cut)));
        }
    };
    Some((what, None))
}

#[test]
fn a_job_that_everything_happens_to_ends_with_the_bytes_of_one_left_alone() {
    let (seconds, seed) = (number("SOAK_SECONDS", 600), number("SOAK_SEED", 1));
    let epochs = number("SOAK_EPOCHS", 400);
    let namespace = Namespace::new("soak");
    data::digits(&namespace, 90, 9, 64);
    namespace
        .apply(&job("broken", epochs).manifest())
        .expect("applying the job");

    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut report = String::new();
    let start = Instant::now();
    while trains(&namespace) && start.elapsed() < Duration::from_secs(seconds) {
        let fault = FAULTS[(next(&mut random) % FAULTS.len() as u64) as usize];
        let chosen = (next(&mut random) % u64::from(WORKERS)) as u32;
        let broken = Instant::now();
        let at_second = start.elapsed().as_secs();
        let Some((what, cut)) = break_something(&namespace, fault, chosen) else {
            continue;
        };
        trains(&namespace);
        let took = broken.elapsed().as_secs_f64();
        println!("{at_second:4} s: {what}; training again after {took:.1} s");
        let _ = writeln!(report, "| {at_second} s | {what} | {took:.1} s |");
        drop(cut);
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
