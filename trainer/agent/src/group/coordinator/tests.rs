mod departed;

use contract::failure_policy::FailureRule;

use super::*;

const FIRST: Attempt = Attempt {
    incarnation: 2,
    restart: 0,
};

/// Three workers; restarts in place are allowed so often.
struct Group {
    coordinator: Coordinator,
    now: Duration,
}

impl Group {
    fn of_three(restarts_left: u32) -> Self {
        Self::with(restarts_left, FailurePolicy::default())
    }

    fn with(restarts_left: u32, policy: FailurePolicy) -> Self {
        let rules = Rules {
            policy,
            restarts_left,
        };
        Self {
            coordinator: Coordinator::new(3, FIRST, rules, Duration::ZERO),
            now: Duration::ZERO,
        }
    }

    /// All three are there and run the first attempt.
    fn running(restarts_left: u32) -> Self {
        let mut group = Self::of_three(restarts_left);
        group.all(Phase::Waiting);
        group.all(Phase::Running);
        assert_eq!((OrderKind::Run, FIRST), group.order());
        group
    }

    fn says(&mut self, worker: u32, phase: Phase, failure: Option<RankFailure>) {
        let standing = Standing {
            attempt: self.coordinator.order().attempt,
            phase,
            failure,
            trained: true,
            leaving: false,
            ..Standing::default()
        };
        self.coordinator.heard(self.now, worker, 0, standing);
    }

    fn all(&mut self, phase: Phase) {
        for worker in 0..3 {
            self.says(worker, phase, None);
        }
    }

    /// Time passes while these say that nothing changed.
    fn pass(&mut self, milliseconds: u64, alive: &[u32]) {
        let end = self.now + Duration::from_millis(milliseconds);
        while self.now < end {
            self.now = (self.now + Duration::from_millis(100)).min(end);
            for &worker in alive {
                let member = &self.coordinator.members[worker as usize];
                if let Some(standing) = member.standing.clone() {
                    let number = member.number;
                    self.coordinator.heard(self.now, worker, number, standing);
                }
            }
            self.coordinator.tick(self.now);
        }
    }

    /// Another pod of a worker says hello.
    fn joins(&mut self, worker: u32, number: u32, attempt: Attempt) {
        let standing = Standing {
            attempt,
            ..Standing::default()
        };
        self.coordinator.heard(self.now, worker, number, standing);
    }

    fn missing(&self) -> Vec<(u32, u32)> {
        let missing = self.coordinator.missing();
        missing
            .iter()
            .map(|gone| (gone.worker, gone.number))
            .collect()
    }

    fn order(&self) -> (OrderKind, Attempt) {
        let order = self.coordinator.order();
        (order.kind, order.attempt)
    }

    fn because(&self) -> (u32, FailureReason) {
        let because = self.coordinator.order().because.clone();
        let failure = because.expect("a failure is behind the order");
        (failure.worker, failure.reason)
    }
}

fn failure(worker: u32, reason: FailureReason) -> RankFailure {
    RankFailure {
        worker,
        rank: Some(worker),
        reason,
        exit_code: reason.exit_code(),
        message: reason.as_str().to_owned(),
    }
}

fn restart(number: u32) -> Attempt {
    Attempt {
        restart: number,
        ..FIRST
    }
}

#[test]
fn ranks_start_when_the_last_worker_is_there() {
    let mut group = Group::of_three(3);
    for worker in [1, 2] {
        group.says(worker, Phase::Waiting, None);
        assert_eq!((OrderKind::Stop, FIRST), group.order());
    }
    group.says(0, Phase::Waiting, None);
    assert_eq!((OrderKind::Run, FIRST), group.order());
}

#[test]
fn a_killed_rank_makes_all_stop_and_begin_again() {
    let mut group = Group::running(3);
    group.says(1, Phase::Running, Some(failure(1, FailureReason::Killed)));
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    group.says(1, Phase::Ended, Some(failure(1, FailureReason::Killed)));
    group.says(0, Phase::Ended, None);
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    group.says(2, Phase::Ended, Some(failure(2, FailureReason::PeerLost)));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    assert_eq!((1, FailureReason::Killed), group.because());
    group.all(Phase::Running);
    group.all(Phase::Ended);
    assert_eq!((OrderKind::Finish, restart(1)), group.order());
    assert_eq!(None, group.coordinator.order().because);
}

#[test]
fn an_echo_waits_for_its_cause_but_not_for_long() {
    let mut group = Group::running(3);
    group.says(0, Phase::Running, Some(failure(0, FailureReason::PeerLost)));
    assert_eq!(OrderKind::Run, group.order().0);
    group.pass(400, &[0, 1, 2]);
    assert_eq!(OrderKind::Run, group.order().0);
    group.pass(100, &[0, 1, 2]);
    assert_eq!(OrderKind::Stop, group.order().0);

    let mut group = Group::running(3);
    group.says(0, Phase::Running, Some(failure(0, FailureReason::PeerLost)));
    group.says(
        2,
        Phase::Running,
        Some(failure(2, FailureReason::InvalidDataset)),
    );
    assert_eq!(OrderKind::Stop, group.order().0);
    assert_eq!((2, FailureReason::InvalidDataset), group.because());
    group.all(Phase::Ended);
    assert_eq!(OrderKind::Finish, group.order().0);
    assert_eq!((2, FailureReason::InvalidDataset), group.because());
}

#[test]
fn a_worker_that_is_asked_to_stop_has_time_for_its_checkpoint() {
    let mut group = Group::running(3);
    group.says(1, Phase::Running, Some(failure(1, FailureReason::PeerLost)));
    group.says(2, Phase::Ended, Some(failure(2, FailureReason::Stopped)));
    group.pass(29_000, &[0, 1, 2]);
    assert_eq!(OrderKind::Run, group.order().0);
    group.says(0, Phase::Ended, Some(failure(0, FailureReason::Stopped)));
    group.says(1, Phase::Ended, Some(failure(1, FailureReason::PeerLost)));
    assert_eq!(OrderKind::Finish, group.order().0);
    assert_eq!((2, FailureReason::Stopped), group.because());
}

#[test]
fn restarts_end_with_the_budget_and_when_none_of_them_trains() {
    let fail = |group: &mut Group, trained: bool| {
        let attempt = group.coordinator.order().attempt;
        for worker in 0..3 {
            let standing = Standing {
                attempt,
                phase: Phase::Ended,
                failure: Some(failure(worker, FailureReason::Internal)),
                trained,
                leaving: false,
                ..Standing::default()
            };
            group.coordinator.heard(group.now, worker, 0, standing);
        }
        group.order()
    };
    let mut group = Group::running(2);
    assert_eq!((OrderKind::Run, restart(1)), fail(&mut group, true));
    assert_eq!((OrderKind::Run, restart(2)), fail(&mut group, true));
    assert_eq!((OrderKind::Finish, restart(2)), fail(&mut group, true));

    let mut group = Group::running(100);
    assert_eq!((OrderKind::Run, restart(1)), fail(&mut group, false));
    assert_eq!((OrderKind::Run, restart(2)), fail(&mut group, false));
    assert_eq!((OrderKind::Run, restart(3)), fail(&mut group, true));
    assert_eq!((OrderKind::Run, restart(4)), fail(&mut group, false));
    assert_eq!((OrderKind::Run, restart(5)), fail(&mut group, false));
    assert_eq!((OrderKind::Finish, restart(5)), fail(&mut group, false));
}

#[test]
fn a_rule_may_ask_for_other_pods_or_the_end() {
    for action in [
        FailureAction::RestartGang,
        FailureAction::RestartGangIgnoringLimit,
        FailureAction::FailJob,
    ] {
        let policy = FailurePolicy {
            rules: vec![FailureRule {
                action,
                reasons: vec!["Killed".to_owned()],
                exit_codes: Vec::new(),
                signals: vec![9],
                workers: vec![1],
            }],
            ..FailurePolicy::default()
        };
        let mut group = Group::with(3, policy);
        group.all(Phase::Waiting);
        group.all(Phase::Running);
        group.says(1, Phase::Running, Some(failure(1, FailureReason::Killed)));
        group.all(Phase::Ended);
        assert_eq!(OrderKind::Finish, group.order().0, "{action:?}");
    }
}

#[test]
fn a_silent_worker_is_lost_and_its_successor_awaited() {
    let mut group = Group::running(3);
    group.pass(9_900, &[0, 1]);
    assert_eq!(OrderKind::Run, group.order().0);
    group.pass(100, &[0, 1]);
    assert_eq!(OrderKind::Stop, group.order().0);
    assert_eq!((2, FailureReason::PeerLost), group.because());
    group.says(0, Phase::Ended, None);
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Stop, restart(1)), group.order());
    assert_eq!(vec![(2, 0)], group.missing());
    let because = group.coordinator.order().because.clone();
    assert_eq!(None, because.expect("lost").rank);
    group.pass(60_000, &[0, 1]);
    group.joins(2, 1, restart(1));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    assert_eq!((2, FailureReason::PeerLost), group.because());
    assert!(group.missing().is_empty());
}

#[test]
fn a_successor_that_does_not_come_ends_the_wait() {
    let mut group = Group::running(3);
    group.pass(10_000, &[0, 1]);
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    let limit = u64::try_from(RENDEZVOUS_TIMEOUT.as_millis()).expect("short");
    group.pass(limit - 100, &[0, 1]);
    assert_eq!(OrderKind::Stop, group.order().0);
    group.pass(100, &[0, 1]);
    assert_eq!((OrderKind::Finish, restart(1)), group.order());
    let because = group.coordinator.order().because.clone().expect("a cause");
    assert_eq!(
        (2, None, FailureReason::PeerLost),
        (because.worker, because.rank, because.reason)
    );
    assert!(
        because.message.contains("no other pod joined"),
        "{}",
        because.message
    );
    assert!(group.missing().is_empty());
}

#[test]
fn a_second_worker_that_is_lost_meanwhile_is_awaited_too() {
    let mut group = Group::running(3);
    group.pass(10_000, &[0, 1]);
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    group.pass(10_000, &[0]);
    assert_eq!(vec![(1, 0), (2, 0)], group.missing());
    group.joins(1, 1, restart(1));
    assert_eq!(vec![(2, 0)], group.missing());
    group.joins(2, 1, restart(2));
    // The operator has counted both.
    assert_eq!((OrderKind::Run, restart(2)), group.order());
}

#[test]
fn a_successor_that_is_there_first_tells_that_its_predecessor_is_gone() {
    let mut group = Group::running(3);
    group.joins(2, 1, restart(1));
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    // What the old one still says is not heard.
    group.says(2, Phase::Running, Some(failure(2, FailureReason::Killed)));
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Run, restart(1)), group.order());
}

#[test]
fn a_worker_that_is_asked_to_stop_alone_leaves_time_for_the_checkpoint_and_is_awaited() {
    let mut group = Group::running(3);
    let leaving = |phase, failure| Standing {
        attempt: FIRST,
        phase,
        failure,
        trained: true,
        leaving: true,
        ..Standing::default()
    };
    let now = group.now;
    group
        .coordinator
        .heard(now, 2, 0, leaving(Phase::Running, None));
    // Its successor comes while all agree on a step and write.
    group.joins(2, 1, restart(1));
    assert_eq!((OrderKind::Run, FIRST), group.order());
    let stopped = |worker| Some(failure(worker, FailureReason::Stopped));
    group
        .coordinator
        .heard(now, 2, 0, leaving(Phase::Ended, stopped(2)));
    group.coordinator.unlinked(now, 2, 0);
    group.says(1, Phase::Ended, stopped(1));
    group.pass(20_000, &[0, 1]);
    assert_eq!((OrderKind::Run, FIRST), group.order());
    group.says(0, Phase::Ended, stopped(0));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
}

#[test]
fn who_is_asked_to_stop_is_awaited_unless_all_are() {
    let next = (OrderKind::Stop, restart(1));
    let end = (OrderKind::Finish, FIRST);
    for (leaves, then) in [(vec![0], next), (vec![0, 2], next), (vec![0, 1, 2], end)] {
        let mut group = Group::running(3);
        for worker in 0..3 {
            let standing = Standing {
                attempt: FIRST,
                phase: Phase::Ended,
                failure: Some(failure(worker, FailureReason::Stopped)),
                trained: true,
                leaving: leaves.contains(&worker),
                ..Standing::default()
            };
            group.coordinator.heard(group.now, worker, 0, standing);
        }
        assert_eq!(then, group.order(), "{leaves:?}");
    }
}

/// Worker 0 has got another pod, and with it another coordinator, which some had left in time to know the next attempt.
#[test]
fn the_successor_of_worker_0_goes_on_where_the_group_was() {
    let mut group = Group::of_three(3);
    group.joins(0, 1, restart(1));
    group.joins(1, 0, restart(1));
    let running = |phase| Standing {
        attempt: FIRST,
        phase,
        trained: true,
        ran_in: Some(FIRST),
        ..Standing::default()
    };
    group
        .coordinator
        .heard(group.now, 2, 0, running(Phase::Running));
    assert_eq!((OrderKind::Stop, restart(1)), group.order());
    group
        .coordinator
        .heard(group.now, 2, 0, running(Phase::Ended));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
    assert_eq!(vec![Some(1), Some(0), Some(0)], group.coordinator.seats());
    assert_eq!((0, FailureReason::PeerLost), group.because());
}

#[test]
fn the_successor_of_worker_0_does_not_take_who_is_lost_for_a_fault() {
    let mut group = Group::of_three(3);
    group.joins(0, 1, restart(1));
    let known = Standing {
        attempt: FIRST,
        phase: Phase::Ended,
        ran_in: Some(FIRST),
        ..Standing::default()
    };
    group.coordinator.heard(group.now, 1, 0, known);
    group.pass(300_000, &[0, 1]);
    assert_eq!(OrderKind::Finish, group.order().0);
    assert_eq!((2, FailureReason::PeerLost), group.because());
}

/// The others are with another pod of worker 0, perhaps, whose end nobody saw.
#[test]
fn a_successor_of_worker_0_that_nobody_looks_for_is_no_fault_either() {
    for (attempt, reason) in [
        (FIRST, FailureReason::RendezvousFailed),
        (restart(1), FailureReason::PeerLost),
    ] {
        let rules = Rules {
            policy: FailurePolicy::default(),
            restarts_left: 3,
        };
        let mut group = Group {
            coordinator: Coordinator::new(3, attempt, rules, Duration::ZERO),
            now: Duration::ZERO,
        };
        group.joins(0, 1, attempt);
        group.pass(300_000, &[0]);
        assert_eq!((OrderKind::Finish, attempt), group.order());
        assert_eq!((1, reason), group.because());
    }
}

#[test]
fn the_successor_of_worker_0_asks_for_another_pod_where_a_process_does_not_end() {
    let mut group = Group::of_three(3);
    group.joins(0, 1, restart(1));
    let known = |leaving| Standing {
        attempt: FIRST,
        phase: Phase::Ended,
        ran_in: Some(FIRST),
        leaving,
        ..Standing::default()
    };
    group.coordinator.heard(group.now, 1, 0, known(true));
    group.coordinator.heard(group.now, 2, 4, known(false));
    assert_eq!(vec![(1, 0)], group.missing());
    group.joins(1, 1, restart(1));
    assert_eq!((OrderKind::Run, restart(1)), group.order());
}

/// Worker 0 stood still, or only one side noticed that the network was away.
#[test]
fn who_stopped_its_ranks_since_it_was_out_of_touch_has_not_succeeded() {
    for left in [0, 3] {
        let mut group = Group::running(left);
        let strayed = |worker| RankFailure {
            rank: None,
            ..failure(worker, FailureReason::PeerLost)
        };
        group.says(1, Phase::Ended, Some(strayed(1)));
        assert_eq!((OrderKind::Stop, FIRST), group.order());
        group.says(2, Phase::Ended, Some(strayed(2)));
        // A program has no word for a peer that is gone.
        group.says(0, Phase::Ended, Some(failure(0, FailureReason::Internal)));
        assert_eq!((OrderKind::Run, restart(1)), group.order());
        assert_eq!((1, FailureReason::PeerLost), group.because());
        assert_eq!(left, group.coordinator.rules.restarts_left);
    }
}

#[test]
fn a_coordinator_that_was_stopped_itself_does_not_blame_the_others() {
    let mut group = Group::running(3);
    group.pass(1000, &[0, 1, 2]);
    group.now += Duration::from_secs(60);
    group.coordinator.tick(group.now);
    assert_eq!(OrderKind::Run, group.order().0);
    group.pass(9_000, &[0]);
    assert_eq!(OrderKind::Run, group.order().0);
    group.pass(1_000, &[0]);
    assert_eq!(OrderKind::Stop, group.order().0);
}

#[test]
fn a_broken_connection_may_come_back() {
    let mut group = Group::running(3);
    group.coordinator.unlinked(group.now, 2, 0);
    group.pass(9_000, &[0, 1]);
    group.says(2, Phase::Running, None);
    group.pass(9_000, &[0, 1]);
    assert_eq!(OrderKind::Run, group.order().0);
    // With a failure beside it, it is soon taken for the cause.
    group.says(2, Phase::Running, None);
    group.says(0, Phase::Running, Some(failure(0, FailureReason::PeerLost)));
    group.coordinator.unlinked(group.now, 2, 0);
    group.pass(2_000, &[0, 1]);
    group.says(0, Phase::Ended, Some(failure(0, FailureReason::PeerLost)));
    group.says(1, Phase::Ended, Some(failure(1, FailureReason::PeerLost)));
    assert_eq!((OrderKind::Stop, restart(1)), group.order());
    let because = group.coordinator.order().because.clone();
    let because = because.expect("lost");
    assert_eq!((2, None), (because.worker, because.rank));
}

#[test]
fn ranks_that_survive_being_killed_take_their_worker_with_them() {
    let mut group = Group::running(3);
    group.says(1, Phase::Ended, Some(failure(1, FailureReason::Killed)));
    group.says(0, Phase::Ended, None);
    group.pass(14_900, &[0, 1, 2]);
    assert_eq!(OrderKind::Stop, group.order().0);
    group.pass(200, &[0, 1, 2]);
    assert_eq!(OrderKind::Finish, group.order().0);
}

#[test]
fn a_worker_that_had_not_begun_is_not_waited_for() {
    let mut group = Group::of_three(3);
    group.all(Phase::Waiting);
    group.says(0, Phase::Running, Some(failure(0, FailureReason::Killed)));
    group.says(1, Phase::Running, None);
    assert_eq!(OrderKind::Stop, group.order().0);
    group.says(0, Phase::Ended, Some(failure(0, FailureReason::Killed)));
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Run, restart(1)), group.order());
}

#[test]
fn who_does_not_come_is_named() {
    let mut group = Group::of_three(3);
    group.says(0, Phase::Waiting, None);
    group.says(2, Phase::Waiting, None);
    let limit = u64::try_from(RENDEZVOUS_TIMEOUT.as_millis()).expect("short");
    group.pass(TIME_TO_JOIN.as_millis() as u64 - 100, &[0, 2]);
    assert!(group.coordinator.absent(group.now).is_empty());
    group.pass(100, &[0, 2]);
    assert_eq!(vec![1], group.coordinator.absent(group.now));
    group.pass(limit - TIME_TO_JOIN.as_millis() as u64 - 100, &[0, 2]);
    assert_eq!(OrderKind::Stop, group.order().0);
    group.pass(100, &[0, 2]);
    assert_eq!(OrderKind::Finish, group.order().0);
    let because = group.coordinator.order().because.clone().expect("a cause");
    assert_eq!(
        (1, FailureReason::RendezvousFailed),
        (because.worker, because.reason)
    );
    assert!(
        because.sentence().starts_with("worker 1: it did not join"),
        "{}",
        because.message
    );
}

#[test]
fn a_coordinator_that_comes_anew_goes_beyond_what_workers_have_seen() {
    let mut group = Group::of_three(3);
    let seen = Standing {
        attempt: restart(4),
        phase: Phase::Running,
        failure: None,
        trained: true,
        leaving: false,
        ..Standing::default()
    };
    group.coordinator.heard(group.now, 1, 0, seen.clone());
    group.says(0, Phase::Waiting, None);
    group.says(2, Phase::Waiting, None);
    assert_eq!(OrderKind::Stop, group.order().0);
    assert!(group.order().1 >= restart(4), "it would not stop");
    let ended = Standing {
        phase: Phase::Ended,
        ..seen
    };
    group.coordinator.heard(group.now, 1, 0, ended);
    assert_eq!((OrderKind::Run, restart(5)), group.order());
}

#[test]
fn a_worker_that_is_leaving_gets_no_further_attempt() {
    let mut group = Group::running(3);
    let leaving = Standing {
        attempt: FIRST,
        phase: Phase::Ended,
        failure: Some(failure(2, FailureReason::IoFailed)),
        trained: true,
        leaving: true,
        ..Standing::default()
    };
    group.coordinator.heard(group.now, 2, 0, leaving);
    group.coordinator.unlinked(group.now, 2, 0);
    // It is gone, and nobody looks for it, or waits until it would be missed.
    group.pass(5_000, &[0, 1]);
    assert!(group.coordinator.deadline() > Some(group.now));
    assert_eq!((OrderKind::Stop, FIRST), group.order());
    group.says(0, Phase::Ended, None);
    group.says(1, Phase::Ended, None);
    assert_eq!((OrderKind::Finish, FIRST), group.order());
    assert_eq!((2, FailureReason::IoFailed), group.because());
}
