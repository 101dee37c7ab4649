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
