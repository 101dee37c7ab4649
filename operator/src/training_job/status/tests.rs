use super::*;

#[test]
fn a_report_without_numbers_takes_nothing_away() {
    let mut old = YoloTrainingJobStatus::default();
    let mut report = RunReport::default();
    report.progress.steps = 100;
    report.progress.step = 50;
    report.best_weights = Some("digits-1/weights".to_owned());
    report.warnings = vec!["x".repeat(1000); 30];
    old = take_over(&old, Some(report), &[]);
    assert_eq!(MAX_WARNINGS, old.warnings.len());
    assert_eq!(513, old.warnings[0].chars().count());
    let after_restart = take_over(&old, Some(RunReport::default()), &[]);
    assert_eq!(old, after_restart);
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
