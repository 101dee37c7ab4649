//! Scripts of events and the transcripts of actions they make.

use super::*;

const PATIENCE: Patience = Patience {
    stop: Duration::from_secs(25),
    peers: Duration::from_secs(10),
    kill: Duration::from_secs(3),
};

fn connected(rank: u32) -> Event {
    Event::Connected { rank }
}

fn said(rank: u32, reason: Option<FailureReason>) -> Event {
    let message = format!("rank {rank} said so");
    Event::Said {
        rank,
        result: RankResult { reason, message },
    }
}

/// The process is gone and left nothing to read.
fn gone(rank: u32, end: ProcessEnd) -> Vec<Event> {
    vec![
        Event::Disconnected { rank },
        Event::OutputClosed { rank },
        Event::Exited { rank, end },
    ]
}

fn exited(rank: u32, code: i32) -> Vec<Event> {
    gone(rank, ProcessEnd::Code(code))
}

fn killed(rank: u32, signal: i32) -> Vec<Event> {
    gone(rank, ProcessEnd::Signal(signal))
}

/// Runs `script` (milliseconds, events) on `ranks` ranks, then lets time pass until nothing is due,
/// and returns each action with its time.
fn play(ranks: u32, script: Vec<(u64, Vec<Event>)>) -> Vec<String> {
    let mut supervisor = Supervisor::new(0..ranks, PATIENCE);
    let mut transcript = Vec::new();
    let mut note = |now: Duration, actions: Vec<Action>| {
        for action in actions {
            let text = match action {
                Action::AskToStop { rank } => format!("ask {rank}"),
                Action::Signal { rank, signal } => {
                    format!("{} {rank}", signal_name(signal.as_raw()))
                }
                Action::Finish(verdict) => match verdict.failure {
                    None => format!("success {}", verdict.last_words)
                        .trim_end()
                        .to_owned(),
                    Some(failure) => format!(
                        "{} of rank {}, code {}",
                        failure.reason.as_str(),
                        failure.rank,
                        failure.exit_code
                    ),
                },
            };
            transcript.push(format!("{:5} {text}", now.as_millis()));
        }
    };
    for (at, events) in script {
        let at = Duration::from_millis(at);
        while let Some(deadline) = supervisor.deadline().filter(|deadline| *deadline < at) {
            note(deadline, supervisor.handle(deadline, Event::Tick));
        }
        for event in events {
            note(at, supervisor.handle(at, event));
        }
    }
    while let Some(deadline) = supervisor
        .deadline()
        .filter(|_| supervisor.stage != Stage::Finished)
    {
        note(deadline, supervisor.handle(deadline, Event::Tick));
    }
    transcript
}

#[track_caller]
fn check(ranks: u32, script: Vec<(u64, Vec<Event>)>, expected: &[&str]) {
    let transcript = play(ranks, script);
    let transcript: Vec<&str> = transcript.iter().map(|line| line.trim_start()).collect();
    assert_eq!(expected, transcript.as_slice());
}

#[test]
fn a_hanging_rank_takes_the_others_with_it_at_once() {
    let failure = Failure::explained(1, FailureReason::Hung, "rank 1 does nothing");
    let hung = || Event::Hung {
        failure: failure.clone(),
    };
    check(
        2,
        vec![
            (0, vec![connected(0), connected(1)]),
            (9000, vec![hung(), hung()]),
            (9010, killed(0, 9)),
            (9020, killed(1, 9)),
        ],
        &[
            "9000 SIGKILL 0",
            "9000 SIGKILL 1",
            "9020 Hung of rank 1, code 83",
        ],
    );
}

#[test]
fn what_the_group_stops_is_no_failure() {
    let mut supervisor = Supervisor::new(0..1, PATIENCE);
    let now = Duration::from_secs(1);
    let actions = supervisor.handle(now, Event::Interrupt);
    assert_eq!(
        vec![Action::Signal {
            rank: 0,
            signal: Signal::KILL
        }],
        actions
    );
    let mut last = Vec::new();
    for event in killed(0, 9) {
        last = supervisor.handle(now, event);
    }
    let expected = Verdict {
        failure: None,
        interrupted: true,
        left_behind: false,
        last_words: String::new(),
    };
    assert_eq!(vec![Action::Finish(expected)], last);
}

#[test]
fn all_ranks_succeed() {
    check(
        2,
        vec![(100, exited(0, 0)), (90_000, exited(1, 0))],
        &["90000 success"],
    );
}

#[test]
fn a_rank_that_ends_first_with_success_puts_no_limit_on_the_others() {
    let script = vec![
        (0, vec![connected(0), connected(1)]),
        (1000, vec![said(1, None)]),
        (1001, exited(1, 0)),
        (500_000, exited(0, 0)),
    ];
    check(2, script, &["500000 success"]);
}

#[test]
fn the_others_end_by_themselves_after_a_failure() {
    let script = vec![
        (0, vec![connected(0), connected(1)]),
        (1000, exited(1, 3)),
        (1500, vec![said(0, Some(FailureReason::PeerLost))]),
        (1600, exited(0, 76)),
    ];
    check(2, script, &["1600 Internal of rank 1, code 3"]);
}

#[test]
fn the_others_are_stopped_when_they_stay() {
    let script = vec![
        (1000, exited(1, 3)),
        (13_900, killed(0, 9)),
        (15_000, killed(2, 9)),
    ];
    check(
        3,
        script,
        &[
            "11000 SIGTERM 0",
            "11000 SIGTERM 2",
            "14000 SIGKILL 2",
            "15000 Internal of rank 1, code 3",
        ],
    );
}

#[test]
fn a_reason_counts_from_when_it_is_said() {
    let script = vec![
        (0, vec![connected(0), connected(1)]),
        (1000, vec![said(1, Some(FailureReason::NonFiniteLoss))]),
        (11_500, killed(0, 15)),
        (11_600, killed(1, 15)),
    ];
    let expected = [
        "11000 SIGTERM 0",
        "11000 SIGTERM 1",
        "11600 NonFiniteLoss of rank 1, code 80",
    ];
    check(2, script, &expected);
}

#[test]
fn a_cause_replaces_an_echo_but_not_another_cause() {
    use FailureReason::{InvalidDataset, IoFailed, PeerLost, Stopped};
    let two = |first, second| {
        vec![
            (0, vec![connected(0), connected(1)]),
            (10, vec![said(0, Some(first))]),
            (20, vec![said(1, Some(second))]),
            (30, exited(0, 1)),
            (40, exited(1, 1)),
        ]
    };
    check(
        2,
        two(PeerLost, InvalidDataset),
        &["40 InvalidDataset of rank 1, code 65"],
    );
    check(
        2,
        two(IoFailed, InvalidDataset),
        &["40 IoFailed of rank 0, code 74"],
    );
    check(
        2,
        two(IoFailed, PeerLost),
        &["40 IoFailed of rank 0, code 74"],
    );
    check(
        2,
        two(PeerLost, Stopped),
        &["40 PeerLost of rank 0, code 76"],
    );
}

/// An interrupted Python program exits with 1: that must not become the explanation.
#[test]
fn what_the_agent_provoked_is_never_the_cause() {
    let script = vec![
        (0, vec![connected(0)]),
        (10, vec![said(0, Some(FailureReason::PeerLost))]),
        (20, exited(0, 76)),
        (10_100, exited(1, 1)),
    ];
    check(
        2,
        script,
        &["10010 SIGTERM 1", "10100 PeerLost of rank 0, code 76"],
    );
}

#[test]
fn a_killed_rank_keeps_its_signal_in_the_exit_code() {
    check(
        1,
        vec![(10, killed(0, 9))],
        &["10 Killed of rank 0, code 137"],
    );
    check(
        1,
        vec![(10, killed(0, 11))],
        &["10 Killed of rank 0, code 139"],
    );
}

#[test]
fn ranks_are_asked_to_stop_where_they_listen_and_signalled_where_not() {
    let script = vec![
        (0, vec![connected(1)]),
        (1000, vec![Event::StopRequested]),
        (1100, killed(0, 15)),
        (9000, vec![said(1, Some(FailureReason::Stopped))]),
        (9100, exited(1, 143)),
    ];
    let expected = [
        "1000 SIGTERM 0",
        "1000 ask 1",
        "9100 Stopped of rank 0, code 143",
    ];
    check(2, script, &expected);
}

#[test]
fn a_rank_that_connects_late_is_asked_too() {
    let script = vec![
        (1000, vec![Event::StopRequested]),
        (1200, vec![connected(0)]),
        (2000, vec![said(0, Some(FailureReason::Stopped))]),
        (2100, exited(0, 143)),
    ];
    let expected = [
        "1000 SIGTERM 0",
        "1200 ask 0",
        "2100 Stopped of rank 0, code 143",
    ];
    check(1, script, &expected);
}

#[test]
fn a_rank_that_does_not_stop_is_killed_after_the_grace() {
    let script = vec![
        (0, vec![connected(0)]),
        (1000, vec![Event::StopRequested]),
        (29_100, killed(0, 9)),
    ];
    let expected = [
        "1000 ask 0",
        "26000 SIGTERM 0",
        "29000 SIGKILL 0",
        "29100 Stopped of rank 0, code 143",
    ];
    check(1, script, &expected);
}

#[test]
fn the_second_request_kills_at_once() {
    let script = vec![
        (0, vec![connected(0)]),
        (1000, vec![Event::StopRequested]),
        (2000, vec![Event::StopRequested]),
        (2010, killed(0, 9)),
    ];
    let expected = [
        "1000 ask 0",
        "2000 SIGKILL 0",
        "2010 Stopped of rank 0, code 143",
    ];
    check(1, script, &expected);
}

#[test]
fn a_run_that_was_just_done_when_it_was_asked_to_stop_has_succeeded() {
    let script = vec![
        (0, vec![connected(0)]),
        (1000, vec![Event::StopRequested, said(0, None)]),
        (1010, exited(0, 0)),
    ];
    check(1, script, &["1000 ask 0", "1010 success rank 0 said so"]);
}

/// Rank 1 has nothing to write and ends at once; rank 0 writes the checkpoint for 20 s.
#[test]
fn a_group_that_stops_has_time_for_its_checkpoint() {
    let script = vec![
        (0, vec![connected(0), connected(1)]),
        (1000, vec![said(1, Some(FailureReason::Stopped))]),
        (1100, exited(1, 143)),
        (21_000, vec![said(0, Some(FailureReason::Stopped))]),
        (21_100, exited(0, 143)),
    ];
    check(2, script, &["21100 Stopped of rank 1, code 143"]);
}

#[test]
fn a_failure_while_stopping_shortens_the_wait_and_is_the_cause() {
    let script = vec![
        (0, vec![connected(0), connected(1)]),
        (1000, vec![Event::StopRequested]),
        (2000, killed(1, 11)),
        (12_100, killed(0, 15)),
    ];
    let expected = [
        "1000 ask 0",
        "1000 ask 1",
        "12000 SIGTERM 0",
        "12100 Killed of rank 1, code 139",
    ];
    check(2, script, &expected);
}

#[test]
fn a_result_that_arrives_after_the_exit_still_counts() {
    let script = vec![
        (0, vec![connected(0)]),
        (
            1000,
            vec![Event::Exited {
                rank: 0,
                end: ProcessEnd::Code(65),
            }],
        ),
        (
            1050,
            vec![
                said(0, Some(FailureReason::InvalidDataset)),
                Event::Disconnected { rank: 0 },
            ],
        ),
        (1060, vec![Event::OutputClosed { rank: 0 }]),
    ];
    check(1, script, &["1060 InvalidDataset of rank 0, code 65"]);
}

/// A rank's own child keeps its socket and pipes open: nobody waits for that for ever.
#[test]
fn a_left_behind_pipe_delays_the_end_by_two_seconds() {
    let end = ProcessEnd::Code(0);
    let script = vec![(1000, vec![Event::Exited { rank: 0, end }])];
    check(1, script, &["3000 success"]);
}

#[test]
fn a_rank_that_never_connected_is_waited_for_briefly() {
    let end = ProcessEnd::Code(0);
    let script = vec![(
        1000,
        vec![
            Event::OutputClosed { rank: 0 },
            Event::Exited { rank: 0, end },
        ],
    )];
    check(1, script, &["1200 success"]);
}

#[test]
fn when_a_rank_cannot_start_the_others_are_stopped_at_once() {
    let failure = Failure::explained(1, FailureReason::InvalidConfig, "no such program");
    let script = vec![
        (0, vec![Event::NotStarted { failure }]),
        (100, killed(0, 15)),
    ];
    check(
        2,
        script,
        &["0 SIGTERM 0", "100 InvalidConfig of rank 1, code 64"],
    );
}

#[test]
fn a_process_that_even_sigkill_does_not_end_is_left_behind() {
    let script = vec![(0, vec![Event::StopRequested])];
    let expected = [
        "0 SIGTERM 0",
        "25000 SIGTERM 0",
        "28000 SIGKILL 0",
        "33000 Killed of rank 0, code 137",
    ];
    check(1, script, &expected);
}

#[test]
fn other_signals_go_to_the_ranks_that_run() {
    let script = vec![
        (10, exited(0, 0)),
        (20, vec![Event::Forward(Signal::USR1)]),
        (30, exited(1, 0)),
    ];
    check(2, script, &["20 SIGUSR1 1", "30 success"]);
}
