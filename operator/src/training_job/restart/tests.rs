use contract::progress::RankFailure;
use contract::result::{RESULT_VERSION, WorkerResult};

use super::*;
use crate::training_job::waiting::WaitingOn;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn pod(index: u32, state: PodState) -> PodView {
    let ended = matches!(state, PodState::Failed(_));
    PodView {
        name: format!("digits-worker-{index}-0"),
        uid: index.to_string(),
        index,
        number: 0,
        incarnation: 0,
        made_for: Attempt::default(),
        active: true,
        deleting: false,
        node: None,
        ip: None,
        over: ended,
        state,
        end_seen: ended.then(|| at(100)),
    }
}

fn failed(index: u32, reason: FailureReason) -> PodView {
    pod(
        index,
        PodState::Failed(Box::new(Ended {
            exit_code: Some(reason.exit_code().into()),
            reason,
            out_of_limit: false,
            message: reason.as_str().to_owned(),
            rank: Some(index),
            result: Some(Box::new(WorkerResult {
                version: RESULT_VERSION,
                attempt: Attempt::default(),
                node_rank: index,
                reason: Some(reason),
                rank: Some(index),
                because: None,
                restarted_after: None,
                message: reason.as_str().to_owned(),
                report: None,
            })),
        })),
    )
}

fn verdict(pods: &[PodView], second: i64) -> Verdict {
    let members: Vec<_> = pods.iter().map(Member::Pod).collect();
    judge(&members, 0, &FailurePolicy::default(), at(second))
}

fn explained_by(verdict: &Verdict) -> (u32, &'static str) {
    match verdict {
        Verdict::Restart { failure: f, .. }
        | Verdict::Replace { failure: f, .. }
        | Verdict::Permanent(f)
        | Verdict::Exhausted(f) => (f.worker, f.why.as_str()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_echo_waits_for_the_cause_but_not_for_long() {
    let running = pod(1, PodState::Running);
    let pods = [failed(0, FailureReason::PeerLost), running];
    assert_eq!(Verdict::Settle(at(102)), verdict(&pods, 100));
    assert_eq!((0, "PeerLost"), explained_by(&verdict(&pods, 102)));
    let with_cause = [pods[0].clone(), failed(1, FailureReason::Killed)];
    assert_eq!((1, "Killed"), explained_by(&verdict(&with_cause, 100)));
    let all_echoes = [pods[0].clone(), failed(1, FailureReason::PeerLost)];
    assert_eq!((0, "PeerLost"), explained_by(&verdict(&all_echoes, 100)));
}

/// Worker 0 keeps what the run wrote before it tells how its rank ended.
#[test]
fn a_rank_that_the_others_name_is_awaited_and_then_blamed() {
    let reason = FailureReason::CheckpointUnreadable;
    let mut echo = failed(1, FailureReason::PeerLost);
    if let PodState::Failed(ended) = &mut echo.state
        && let Some(result) = &mut ended.result
    {
        result.because = Some(RankFailure {
            worker: 0,
            rank: Some(0),
            reason,
            exit_code: reason.exit_code(),
            message: "step 40".to_owned(),
        });
    }
    let keeps = [pod(0, PodState::Running), echo.clone()];
    assert_eq!(Verdict::Settle(at(145)), verdict(&keeps, 100));
    let late = verdict(&keeps, 145);
    assert!(matches!(late, Verdict::Permanent(_)), "{late:?}");
    assert_eq!((0, "CheckpointUnreadable"), explained_by(&late));
    let told = verdict(&[failed(0, reason), echo.clone()], 100);
    assert_eq!((0, "CheckpointUnreadable"), explained_by(&told));
    // What its own pod says explains more.
    let killed = verdict(&[failed(0, FailureReason::Killed), echo], 100);
    assert_eq!((0, "Killed"), explained_by(&killed));
}

#[test]
fn a_permanent_failure_decides_whoever_else_failed() {
    let pods = [
        failed(0, FailureReason::Killed),
        failed(1, FailureReason::PeerLost),
        failed(2, FailureReason::InvalidDataset),
        failed(3, FailureReason::InvalidDataset),
    ];
    let verdict = verdict(&pods, 100);
    assert!(matches!(verdict, Verdict::Permanent(_)));
    assert_eq!((2, "InvalidDataset"), explained_by(&verdict));
}

#[test]
fn a_deleted_pod_explains_the_stop_it_caused() {
    let mut stopped = failed(1, FailureReason::Stopped);
    stopped.deleting = true;
    let pods = [failed(0, FailureReason::PeerLost), stopped];
    assert_eq!((1, "PodDeleted"), explained_by(&verdict(&pods, 100)));
    let mut leaving = pod(1, PodState::Running);
    leaving.deleting = true;
    assert_eq!(
        (1, "PodDeleted"),
        explained_by(&verdict(&[pod(0, PodState::Running), leaving], 100))
    );
}

#[test]
fn a_pod_that_is_gone_counts_unless_it_had_succeeded() {
    let other = pod(0, PodState::Running);
    for succeeded in [true, false] {
        let gone = Member::Gone {
            index: 1,
            pod: "x",
            succeeded,
        };
        let policy = FailurePolicy::default();
        let verdict = judge(&[Member::Pod(&other), gone], 0, &policy, at(0));
        if succeeded {
            assert_eq!(Verdict::Healthy, verdict);
        } else {
            let Verdict::Replace {
                failure,
                workers,
                counted: false,
            } = verdict
            else {
                panic!("{verdict:?}");
            };
            assert_eq!(
                ("its pod x was deleted", vec![1]),
                (&*failure.message, workers)
            );
        }
    }
}

#[test]
fn a_worker_is_replaced_alone_only_where_the_others_wait_for_it() {
    let killed = |index| {
        let ended = Ended {
            exit_code: Some(137),
            reason: FailureReason::Killed,
            out_of_limit: false,
            message: String::new(),
            rank: None,
            result: None,
        };
        pod(index, PodState::Failed(Box::new(ended)))
    };
    let running = |index| pod(index, PodState::Running);
    let alone = |pods: &[PodView]| match verdict(pods, 100) {
        Verdict::Replace {
            workers, counted, ..
        } => Some((workers, counted)),
        _ => None,
    };
    assert_eq!(
        Some((vec![1], true)),
        alone(&[running(0), killed(1), running(2)])
    );
    assert_eq!(
        Some((vec![1, 2], true)),
        alone(&[running(0), killed(1), killed(2)])
    );
    assert_eq!(Some((vec![0], true)), alone(&[killed(0), running(1)]));
    let comes = || pod(0, PodState::Waiting(WaitingOn::ContainersStarting));
    assert_eq!(
        Some((vec![1], true)),
        alone(&[comes(), killed(1), running(2)])
    );
    // Nobody is there who could wait.
    assert_eq!(None, alone(&[comes(), killed(1)]));
    assert_eq!(None, alone(&[killed(0), killed(1)]));
    // Somebody else has ended, or said why it ends: the others end too.
    assert_eq!(
        None,
        alone(&[running(0), killed(1), failed(2, FailureReason::PeerLost)])
    );
    let done = pod(2, PodState::Succeeded(None));
    assert_eq!(None, alone(&[running(0), killed(1), done]));
}

#[test]
fn the_budget_ends() {
    let pods = [failed(0, FailureReason::Internal)];
    let members: Vec<_> = pods.iter().map(Member::Pod).collect();
    let after = |restarts, max_restarts| {
        let policy = FailurePolicy {
            max_restarts,
            ..FailurePolicy::default()
        };
        judge(&members, restarts, &policy, at(0))
    };
    assert!(matches!(
        after(2, 3),
        Verdict::Restart { counted: true, .. }
    ));
    assert!(matches!(after(3, 3), Verdict::Exhausted(_)));
    assert!(matches!(after(0, 0), Verdict::Exhausted(_)));
}

#[test]
fn success_of_some_is_no_failure() {
    let pods = [pod(0, PodState::Succeeded(None)), pod(1, PodState::Running)];
    assert_eq!(Verdict::Healthy, verdict(&pods, 100));
}
