use contract::attempt::Attempt;
use contract::progress::PROGRESS_VERSION;
use crds::v1alpha1::WorkerContainer;
use k8s_openapi::api::core::v1::Pod;

use super::*;
use crate::sim::fixture;
use crate::training_job::back_off::Restarts;
use crate::training_job::observe::{ServiceView, from_cache};
use crate::training_job::validate::validate;

#[test]
fn a_report_without_numbers_takes_nothing_away() {
    let mut old = YoloTrainingJobStatus::default();
    let mut report = RunReport::default();
    report.progress.steps = 100;
    report.progress.step = 50;
    report.best_weights = Some("digits-1/weights".to_owned());
    report.warnings = vec!["x".repeat(1000); 30];
    old = take_over(&old, Some(report), Some(vec!["images/7.png".to_owned()]));
    assert_eq!(vec!["images/7.png"], old.warnings);
    let after_restart = take_over(&old, Some(RunReport::default()), None);
    assert_eq!(old, after_restart);
}

#[test]
fn warnings_that_are_over_go() {
    let valid = validate(&fixture::job("digits", 2)).expect("valid");
    let job = fixture::job("digits", 2);
    let pods: [Pod; 0] = [];
    let service = ServiceView::Present;
    let mut observed = from_cache(&job, &pods, service, QueueView::Absent, None).expect("a job");
    let plan = Plan::idle(Phase::Gang, Attempt::default(), Restarts::default());
    let told = |phase, of_agent: &str, of_rank: &str| {
        let list = |text: &str| text.split_terminator(' ').map(str::to_owned).collect();
        AgentProgress {
            version: PROGRESS_VERSION,
            attempt: Attempt::default(),
            node_rank: 0,
            report: RunReport {
                phase,
                warnings: list(of_rank),
                ..RunReport::default()
            },
            ranks: Vec::new(),
            started: true,
            straggler: None,
            warnings: list(of_agent),
            lost: Vec::new(),
            absent: Vec::new(),
            slow_check: None,
            restarted_after: None,
        }
    };
    let mut heard = |told: AgentProgress, own_program: bool| {
        observed.progress = Some(told);
        let mut valid = valid.clone();
        valid.workers.container = own_program.then(WorkerContainer::default);
        let report = report(&observed, &plan);
        warnings(&valid, &observed, &plan, report.as_ref())
    };
    let both = heard(told(RunPhase::Training, "store", "image"), false);
    assert_eq!(Some(vec!["store".to_owned(), "image".to_owned()]), both);
    assert_eq!(
        Some(Vec::new()),
        heard(told(RunPhase::Training, "", ""), false)
    );
    // Nothing was looked at yet.
    assert_eq!(None, heard(told(RunPhase::Starting, "", ""), false));
    // Programs of one's own have no phase.
    assert_eq!(
        Some(Vec::new()),
        heard(told(RunPhase::Starting, "", ""), true)
    );
    // Others do not know what worker 0 warns of.
    let mut other = told(RunPhase::Training, "", "");
    other.node_rank = 1;
    assert_eq!(None, heard(other, false));
}

#[test]
fn a_failure_is_told_with_the_node_that_its_worker_was_on_then() {
    let pod = |number: u32, made_for: &str, node: &str| {
        let pod = serde_json::json!({
            "metadata": {
                "name": format!("digits-worker-1-{number}"),
                "labels": {
                    names::JOB_NAME: "digits",
                    names::WORKER_INDEX: "1",
                    names::INCARNATION: "0",
                },
                "annotations": {names::ATTEMPT: made_for},
            },
            "spec": {"nodeName": node, "containers": []},
        });
        PodView::of(&serde_json::from_value(pod).expect("a pod")).expect("a worker's")
    };
    let (first, second) = (pod(0, "0.0", "a"), pod(1, "0.1", "b"));
    let known = |name: &str, node: &str| WorkerStatus {
        node: Some(node.to_owned()),
        ..pending(1, name)
    };
    let failure = |attempt: &str| {
        let json = serde_json::json!({
            "time": "2026-01-01T00:00:00Z",
            "attempt": {"incarnation": 0, "restart": attempt.parse::<u32>().expect("a number")},
            "worker": 1, "reason": "Killed", "message": "",
        });
        serde_json::from_value::<FailureRecord>(json).expect("a record")
    };
    let both = [first.clone(), second.clone()];
    let is_first = [known(&first.name, "a")];
    let is_second = [known(&second.name, "b")];
    for (pods, known, attempt, expected) in [
        (&both[..], &is_second[..], "0", Some("a")),
        (&both[..], &is_second[..], "1", Some("b")),
        // The pod is gone, and the status knows it, or its successor, or nothing.
        (&[], &is_first[..], "0", Some("a")),
        (&both[1..], &is_first[..], "0", Some("a")),
        (&both[1..], &is_second[..], "0", None),
        (&[], &[], "0", None),
    ] {
        let found = node_of(pods, known, &failure(attempt));
        assert_eq!(expected, found.as_deref(), "{pods:?} {known:?} {attempt}");
    }
}
