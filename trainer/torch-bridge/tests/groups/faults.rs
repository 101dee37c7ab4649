//! Ranks that do not come, do not answer or end.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process};

use tempfile::TempDir;
use torch_bridge::{Error, ProcessGroup, ReduceOp, Reducer, ReducerOptions, Store};

use crate::reducer::Model;
use crate::{TIMEOUT, options, sample, with_stores};

/// Runs `body` on rank 0 of a group of 2 whose rank 1 connects and then does nothing until `body` is done.
fn with_a_silent_peer(timeout: Duration, body: impl Fn(&mut ProcessGroup) + Sync) {
    with_stores(2, |rank, store| {
        let mut group =
            ProcessGroup::new(&store, rank, 2, options(timeout)).expect("both ranks come");
        let test = store.prefixed("test").expect("opened");
        if rank == 0 {
            body(&mut group);
            test.set("done", b"").expect("the store is a file");
        } else {
            test.wait(&["done"], TIMEOUT).expect("rank 0 gets done");
        }
    });
}

#[test]
fn a_rank_that_does_not_come_times_out_and_leaves_the_group_unusable() {
    let timeout = Duration::from_millis(500);
    with_a_silent_peer(timeout, |group| {
        let start = Instant::now();
        let error = group
            .all_reduce(&mut sample(0), ReduceOp::Sum)
            .expect_err("rank 1 is silent");
        let waited = start.elapsed();
        assert!(error.is_timeout(), "{error:?}");
        assert!(
            waited > timeout / 2 && waited < timeout + Duration::from_secs(5),
            "{waited:?}"
        );
        let error = group.barrier().expect_err("the group is broken");
        assert!(matches!(error, Error::GroupUnusable { .. }), "{error}");
    });
}

#[test]
fn a_monitored_barrier_names_the_rank_that_is_missing() {
    with_a_silent_peer(TIMEOUT, |group| {
        let error = group
            .monitored_barrier(Duration::from_millis(300))
            .expect_err("rank 1 is silent");
        assert!(error.is_timeout(), "{error:?}");
        let cause = error.fault().expect("a cause").to_string();
        assert!(cause.contains("Ranks 1"), "{cause}");
    });
}

/// Runs the test `name` of this program once more as another process, told its `role`.
fn spawn(name: &str, role: &str) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture"])
        .env("TORCH_BRIDGE_TEST_ROLE", role)
        .stdout(Stdio::null())
        .spawn()
        .expect("this program runs")
}

/// Rank 0 in this process and rank 1 in another one that runs the test `name` too, on one file store.
/// `None` for the other process where this is rank 1.
fn with_a_process(name: &str) -> (ProcessGroup, Store, Option<(Child, TempDir)>) {
    let (rank, path, peer) = if let Ok(path) = env::var("TORCH_BRIDGE_TEST_ROLE") {
        (1, PathBuf::from(path), None)
    } else {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("store");
        let child = spawn(name, path.to_str().expect("a UTF-8 path"));
        (0, path, Some((child, folder)))
    };
    // One more than there are: the file must outlive rank 1.
    let store = Store::file(&path, 3).expect("the folder is there");
    let group = ProcessGroup::new(&store, rank, 2, options(TIMEOUT)).expect("both ranks come");
    (group, store, peer)
}

#[test]
fn a_peer_that_exits_is_reported_as_lost_at_once() {
    let (mut group, store, peer) =
        with_a_process("faults::a_peer_that_exits_is_reported_as_lost_at_once");
    group.barrier().expect("both ranks call it");
    let Some((mut peer, _folder)) = peer else {
        // Rank 1 takes part once, then ends without a word.
        process::abort();
    };
    let start = Instant::now();
    let error = group
        .all_reduce(&mut sample(0), ReduceOp::Sum)
        .expect_err("the peer has gone");
    assert!(error.is_peer_lost(), "{error:?}");
    assert!(start.elapsed() < TIMEOUT / 2, "{:?}", start.elapsed());
    peer.wait().expect("the peer ran");

    // The same store serves the next attempt.
    let attempt = store.prefixed("attempt-2").expect("the file is there");
    ProcessGroup::new(&attempt, 0, 1, options(TIMEOUT))
        .expect("one rank")
        .barrier()
        .expect("one rank");
}

#[test]
fn a_peer_that_exits_in_a_backward_pass_is_reported_as_lost() {
    let (group, _store, peer) =
        with_a_process("faults::a_peer_that_exits_in_a_backward_pass_is_reported_as_lost");
    let rank = group.rank();
    let model = Model::new();
    let mut reducer = Reducer::new(&group, &model.named(), ReducerOptions::default())
        .expect("the parameters are fine");
    model
        .backward(&mut reducer, rank, true)
        .expect("both ranks step");
    let Some((mut peer, _folder)) = peer else {
        process::abort();
    };
    let error = model
        .backward(&mut reducer, rank, true)
        .expect_err("the peer has gone");
    assert!(error.is_peer_lost(), "{error:?}");
    let error = reducer
        .prepare_for_forward()
        .expect_err("the group is broken");
    assert!(matches!(error, Error::GroupUnusable { .. }), "{error}");
    peer.wait().expect("the peer ran");
}
