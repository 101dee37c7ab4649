//! Workers that leave by no fault of their ranks, and their successors.

use super::*;

/// A worker that was asked to end says so.
fn asked(phase: Phase, failure: Option<RankFailure>) -> Standing {
    Standing {
        attempt: FIRST,
        phase,
        failure,
        trained: true,
        leaving: true,
        asked: true,
        ..Standing::default()
    }
}

#[test]
fn programs_that_have_no_word_for_a_lost_peer_fail_for_the_worker_that_was_asked_to_end() {
    let mut group = Group::running(3);
    let now = group.now;
    group
        .coordinator
        .heard(now, 2, 0, asked(Phase::Running, None));
    // Theirs notice at once, and end in their own way; that of the leaving worker saves something first.
    for worker in [0, 1] {
        let crash = Some(failure(worker, FailureReason::Internal));
        group.says(worker, Phase::Ended, crash);
    }
    group.pass(20_000, &[0, 1, 2]);
    assert_eq!((OrderKind::Run, FIRST), group.order());
    let crash = Some(failure(2, FailureReason::Internal));
    group
        .coordinator
        .heard(group.now, 2, 0, asked(Phase::Ended, crash));
    assert_eq!((OrderKind::Stop, restart(1)), group.order());
    assert_eq!(2, group.because().0);
    group.joins(2, 1, restart(1));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    // In the next attempt it is a failure again.
    group.all(Phase::Waiting);
    group.coordinator.rules.restarts_left = 0;
    let standing = Standing {
        attempt: restart(1),
        phase: Phase::Ended,
        failure: Some(failure(1, FailureReason::Internal)),
        ..Standing::default()
    };
    group.coordinator.heard(group.now, 1, 0, standing);
    for (worker, number) in [(0, 0), (2, 1)] {
        let ended = Standing {
            attempt: restart(1),
            phase: Phase::Ended,
            ..Standing::default()
        };
        group.coordinator.heard(group.now, worker, number, ended);
    }
    assert_eq!((OrderKind::Finish, restart(1)), group.order());
    assert_eq!((1, FailureReason::Internal), group.because());
}

#[test]
fn they_fail_for_a_worker_whose_agent_is_gone_too_but_bad_input_ends_the_job() {
    for (reason, order) in [
        (FailureReason::Internal, (OrderKind::Stop, restart(1))),
        (FailureReason::Killed, (OrderKind::Stop, restart(1))),
        (FailureReason::InvalidDataset, (OrderKind::Finish, FIRST)),
    ] {
        let mut group = Group::running(3);
        group.coordinator.unlinked(group.now, 2, 0);
        group.says(0, Phase::Ended, Some(failure(0, reason)));
        group.says(1, Phase::Ended, Some(failure(1, FailureReason::Internal)));
        assert_eq!((OrderKind::Stop, FIRST), group.order(), "{reason:?}");
        group.pass(2_000, &[0, 1]);
        assert_eq!(order, group.order(), "{reason:?}");
    }
}

#[test]
fn a_program_that_ends_well_when_it_is_asked_to_leaves_nobody_waiting_for_ever() {
    let mut group = Group::running(3);
    let now = group.now;
    group
        .coordinator
        .heard(now, 2, 0, asked(Phase::Ended, None));
    group.coordinator.unlinked(now, 2, 0);
    group.joins(2, 1, restart(1));
    group.pass(29_900, &[0, 1]);
    assert_eq!((OrderKind::Run, FIRST), group.order());
    group.pass(200, &[0, 1]);
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    assert_eq!((2, FailureReason::Stopped), group.because());

    // Where all end well, the run is over.
    let mut group = Group::running(3);
    let now = group.now;
    group
        .coordinator
        .heard(now, 2, 0, asked(Phase::Ended, None));
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Finish, FIRST), group.order());
    assert_eq!(None, group.coordinator.order().because);
}

#[test]
fn a_successor_takes_part_only_when_its_predecessor_has_ended() {
    let mut group = Group::running(3);
    assert_eq!(vec![Some(0); 3], group.coordinator.seats());
    let now = group.now;
    group
        .coordinator
        .heard(now, 2, 0, asked(Phase::Running, None));
    group.joins(2, 1, restart(1));
    assert_eq!(Some(0), group.coordinator.seats()[2]);
    let stopped = |worker| Some(failure(worker, FailureReason::Stopped));
    group
        .coordinator
        .heard(now, 2, 0, asked(Phase::Ended, stopped(2)));
    group.says(0, Phase::Ended, stopped(0));
    assert_eq!(Some(0), group.coordinator.seats()[2]);
    group.says(1, Phase::Ended, stopped(1));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    assert_eq!(Some(1), group.coordinator.seats()[2]);
    group.coordinator.unlinked(group.now, 1, 0);
    group.pass(10_000, &[0, 2]);
    assert_eq!(None, group.coordinator.seats()[1]);
}

#[test]
fn restarts_that_others_used_up_are_not_left() {
    let mut group = Group::running(3);
    group.coordinator.allow(0);
    group.coordinator.allow(2);
    group.says(1, Phase::Ended, Some(failure(1, FailureReason::Killed)));
    group.says(0, Phase::Ended, None);
    group.says(2, Phase::Ended, None);
    assert_eq!((OrderKind::Finish, FIRST), group.order());
}

#[test]
fn a_worker_that_is_given_up_and_still_speaks_is_awaited_all_the_same() {
    let mut group = Group::running(3);
    // Worker 2 is cut off; a process of worker 1 is left that nothing ends.
    group.pass(10_000, &[0, 1]);
    let stuck = |phase, attempt| Standing {
        attempt,
        phase,
        failure: Some(failure(1, FailureReason::Killed)),
        trained: true,
        leaving: true,
        ..Standing::default()
    };
    let now = group.now;
    group
        .coordinator
        .heard(now, 1, 0, stuck(Phase::Ended, FIRST));
    group.says(0, Phase::Ended, None);
    assert_eq!((OrderKind::Stop, restart(1)), group.order());
    group
        .coordinator
        .heard(now, 1, 0, stuck(Phase::Waiting, restart(1)));
    assert_eq!(vec![(1, 0), (2, 0)], group.missing());
    group.joins(1, 1, restart(1));
    group.joins(2, 1, restart(1));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
}
