//! A run that a keeper beside the worker holds in an object store.

use std::fs;
use std::path::Path;

use contract::exit::FailureReason;
use contract::keep::{FINISH_FILE, KEPT_FILE, KeepFailure, Kept};
use contract::progress::{AgentProgress, CheckpointRef};
use rustix::process::Signal;

use crate::support::{Agent, Setup, agent};

/// A worker of one rank that has a keeper, which speaks through the folder.
fn kept() -> Setup {
    let setup = agent(1);
    let desk = setup.dir().to_str().expect("a path").to_owned();
    setup.env("YOLO_KEEP", &desk)
}

/// The keeper says something.
fn says(desk: &Path, kept: &Kept) {
    let new = desk.join("new.json");
    fs::write(&new, serde_json::to_string(kept).expect("plain data")).expect("written");
    fs::rename(new, desk.join(KEPT_FILE)).expect("renamed");
}

fn at_step(step: u64) -> CheckpointRef {
    let path = format!("run/checkpoints/step-{step}");
    CheckpointRef { step, path }
}

fn ready(step: u64) -> Kept {
    Kept {
        ready: true,
        checkpoint: Some(at_step(step)),
        ..Kept::default()
    }
}

fn told(agent: &Agent) -> AgentProgress {
    serde_json::from_str(&agent.get("/progress").1).expect("a document")
}

/// Tells of a checkpoint at step 20, which is nowhere else yet.
const REPORT: &str = concat!(
    r#"say={"type":"report","phase":"Training","progress":"#,
    r#"{"epoch":1,"epochs":3,"step":20,"steps":30,"percent":66.0,"trainingSeconds":1.0},"#,
    r#""checkpoint":{"step":20,"path":"run/checkpoints/step-20"}}"#
);

pub fn ranks_begin_with_the_kept_run_and_success_waits_until_it_is_kept() {
    let setup = kept();
    let desk = setup.dir().to_owned();
    let agent = setup.speaking(&["hello", REPORT, "exit=0"]);
    agent.wait_for_stderr("waiting for the run's folder");
    assert!(!agent.stdout_text().contains("connected"));
    says(&desk, &ready(10));
    agent.wait_for_stdout("connected", 1);
    agent.wait_until("the agent to ask for the rest", || {
        desk.join(FINISH_FILE).exists()
    });
    // What is not in the store yet is no checkpoint.
    assert_eq!(Some(at_step(10)), told(&agent).report.checkpoint);
    let away = Kept {
        problem: Some("s3://runs cannot be reached".to_owned()),
        ..ready(10)
    };
    says(&desk, &away);
    agent.wait_until("the trouble to be told", || {
        told(&agent)
            .warnings
            .iter()
            .any(|warning| warning.contains("s3://runs cannot be reached"))
    });
    let complete = Kept {
        complete: true,
        ..ready(20)
    };
    says(&desk, &complete);
    let ended = agent.finish();
    assert_eq!(0, ended.code, "{}", ended.stderr);
    let report = ended.result.report.expect("the rank reported");
    assert_eq!(Some(at_step(20)), report.checkpoint);
}

pub fn without_its_store_no_rank_begins_and_no_run_succeeds() {
    let failed = |ready| Kept {
        ready,
        failure: Some(KeepFailure {
            reason: FailureReason::OutputUnwritable,
            message: "s3://runs may not be read".to_owned(),
        }),
        ..Kept::default()
    };
    let setup = kept();
    let desk = setup.dir().to_owned();
    says(&desk, &failed(false));
    let ended = setup.shell("echo begun").finish();
    assert_eq!(
        (73, Some(FailureReason::OutputUnwritable)),
        (ended.code, ended.result.reason),
        "{}",
        ended.stderr
    );
    assert_eq!("s3://runs may not be read", ended.result.message);
    assert!(!ended.stdout.contains("begun"));

    let setup = kept();
    let desk = setup.dir().to_owned();
    says(&desk, &ready(10));
    let agent = setup.shell("echo begun");
    agent.wait_until("the agent to ask for the rest", || {
        desk.join(FINISH_FILE).exists()
    });
    says(&desk, &failed(true));
    let ended = agent.finish();
    assert_eq!(
        (74, Some(FailureReason::IoFailed)),
        (ended.code, ended.result.reason),
        "{}",
        ended.stderr
    );
    assert!(ended.result.message.contains("may not be read"));

    // What runs then writes for nothing.
    let setup = kept();
    let desk = setup.dir().to_owned();
    says(&desk, &ready(10));
    let agent = setup.shell("echo begun; while :; do sleep 0.05; done");
    agent.wait_for_stdout("begun", 1);
    says(&desk, &failed(true));
    let ended = agent.finish();
    assert_eq!(
        (74, Some(FailureReason::IoFailed)),
        (ended.code, ended.result.reason),
        "{}",
        ended.stderr
    );

    // A pod that is asked to go does not wait for a folder.
    let agent = kept().shell("echo begun");
    agent.wait_for_stderr("waiting for the run's folder");
    agent.signal(Signal::TERM);
    assert_eq!(143, agent.finish().code);
}
