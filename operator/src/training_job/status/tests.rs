use super::*;
use crate::conditions::Stated;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

#[test]
fn progress_waits_for_its_turn_and_conditions_do_not() {
    let old = YoloTrainingJobStatus {
        workers: vec![pending(0, "digits-worker-0-0")],
        ..YoloTrainingJobStatus::default()
    };
    let mut progress = old.clone();
    progress.skipped_images = 1;
    let mut workers = progress.clone();
    workers.workers[0].state = WorkerState::Running;
    let mut new_pod = workers.clone();
    new_pod.workers = vec![pending(0, "digits-worker-0-1")];
    let mut condition = workers.clone();
    let running = [Stated::new(ConditionType::Running, true, "Starting", "")];
    condition.conditions = merge(&[], &running, None, at(0));
    let pace = Pace {
        progress: SignedDuration::from_secs(10),
        workers: SignedDuration::from_secs(1),
    };
    for (new, expected, when) in [
        (&old, Urgency::None, None),
        (&progress, Urgency::Progress, Some(at(110))),
        (&workers, Urgency::Workers, Some(at(101))),
        (&new_pod, Urgency::Now, Some(at(100))),
        (&condition, Urgency::Now, Some(at(100))),
    ] {
        let urgency = urgency(&old, new);
        assert_eq!(expected, urgency);
        assert_eq!(when, due(urgency, Some(at(100)), pace));
    }
    for (jobs, when) in [(0, 101), (20, 101), (21, 102), (200, 110), (9000, 110)] {
        let due = due(Urgency::Workers, Some(at(100)), pace.shared_by(jobs));
        assert_eq!(Some(at(when)), due, "{jobs} jobs");
    }
    for (workers, when) in [(0, 101), (199, 101), (200, 102), (1000, 110), (9000, 110)] {
        let due = due(Urgency::Workers, Some(at(100)), pace.of_workers(workers));
        assert_eq!(Some(at(when)), due, "{workers} workers");
    }
    assert_eq!(Some(Timestamp::MIN), due(Urgency::Progress, None, pace));
}

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
fn the_usual_steps_of_a_start_wait_and_bad_news_does_not() {
    let status = |type_, holds, reason: Reason| {
        let stated = [Stated::new(type_, holds, reason.as_str(), "")];
        YoloTrainingJobStatus {
            conditions: merge(&[], &stated, None, at(0)),
            ..YoloTrainingJobStatus::default()
        }
    };
    let begun = status(ConditionType::Scheduled, false, Reason::CreatingPods);
    let placed = status(ConditionType::Scheduled, true, Reason::NodesFound);
    let stuck = status(ConditionType::Scheduled, false, Reason::Unschedulable);
    assert_eq!(Urgency::Workers, urgency(&begun, &placed));
    assert_eq!(Urgency::Now, urgency(&begun, &stuck));
    assert_eq!(Urgency::Now, urgency(&stuck, &placed));
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
