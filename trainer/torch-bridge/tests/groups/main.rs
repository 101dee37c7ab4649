//! Groups of several ranks: threads where nobody dies, processes where somebody does.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use torch_bridge::optim::{self, FusedSgd};
use torch_bridge::{
    Compression, Error, GroupOptions, ProcessGroup, ReduceOp, Reducer, ReducerOptions, Store,
    TcpStoreOptions, verify_params,
};

const TIMEOUT: Duration = Duration::from_secs(20);

fn options(timeout: Duration) -> GroupOptions {
    GroupOptions {
        timeout,
        hostname: Some("127.0.0.1".to_owned()),
        ..GroupOptions::default()
    }
}

fn serve(world_size: usize) -> Store {
    let options = TcpStoreOptions {
        port: 0,
        is_server: true,
        world_size: Some(world_size),
        timeout: TIMEOUT,
        ..TcpStoreOptions::default()
    };
    Store::tcp(options).expect("a store on a free port")
}

fn connect(port: u16) -> Store {
    Store::tcp(TcpStoreOptions {
        port,
        timeout: TIMEOUT,
        ..TcpStoreOptions::default()
    })
    .expect("the store is served")
}

/// Runs `body` as each rank of `size`, one thread per rank with its own store, and returns what they return. The
/// store is a file, because c10d's TCP store waits for DNS (see `Store::tcp`).
fn with_stores<T: Send>(size: usize, body: impl Fn(usize, Store) -> T + Sync) -> Vec<T> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = &folder.path().join("store");
    let body = &body;
    thread::scope(|scope| {
        let ranks: Vec<_> = (0..size)
            .map(|rank| {
                scope.spawn(move || {
                    body(rank, Store::file(path, size).expect("the folder is there"))
                })
            })
            .collect();
        ranks
            .into_iter()
            .map(|rank| rank.join().expect("a rank panicked"))
            .collect()
    })
}

/// The same with a group of all ranks.
fn on_ranks<T: Send>(size: usize, body: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    with_stores(size, |rank, store| {
        body(ProcessGroup::new(&store, rank, size, options(TIMEOUT)).expect("all ranks come"))
    })
}

/// A vector that differs on each rank: rank r holds r+1, 2(r+1), 3(r+1).
fn sample(rank: usize) -> Tensor {
    Tensor::from_slice(&[1.0f32, 2.0, 3.0]) * (rank as f64 + 1.0)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1))
        .expect("a tensor of numbers")
}

#[test]
fn all_reduce_computes_what_its_name_says_of_every_kind() {
    on_ranks(3, |mut group| {
        // Over the factors 1, 2 and 3.
        let cases = [
            (ReduceOp::Sum, [6.0, 12.0, 18.0]),
            (ReduceOp::Average, [2.0, 4.0, 6.0]),
            (ReduceOp::Product, [6.0, 48.0, 162.0]),
            (ReduceOp::Min, [1.0, 2.0, 3.0]),
            (ReduceOp::Max, [3.0, 6.0, 9.0]),
        ];
        for kind in [
            Kind::Float,
            Kind::Double,
            Kind::Half,
            Kind::BFloat16,
            Kind::Int64,
            Kind::Int,
        ] {
            for (op, expected) in cases {
                if op == ReduceOp::Average && !sample(0).to_kind(kind).is_floating_point() {
                    let error = group
                        .all_reduce(&mut sample(0).to_kind(kind), op)
                        .expect_err("no mean of integers");
                    assert!(
                        matches!(error, Error::AverageOfIntegers(refused) if refused == kind),
                        "{error}"
                    );
                    continue;
                }
                let mut tensor = sample(group.rank()).to_kind(kind);
                group
                    .all_reduce(&mut tensor, op)
                    .expect("all ranks call it");
                assert_eq!(values(&tensor), expected, "{op:?} of {kind:?}");
            }
        }
    });
}

#[test]
fn all_reduce_changes_a_parameter_in_place() {
    on_ranks(2, |mut group| {
        let mut parameter = sample(group.rank()).set_requires_grad(true);
        group
            .all_reduce(&mut parameter, ReduceOp::Sum)
            .expect("all ranks call it");
        assert_eq!(values(&parameter), [3.0, 6.0, 9.0]);
        assert!(parameter.requires_grad());
    });
}

#[test]
fn coalesced_and_asynchronous_forms_give_the_same() {
    on_ranks(3, |mut group| {
        let rank = group.rank();
        let mut tensors = [sample(rank), sample(rank).view([3, 1]) * 2.0];
        group
            .all_reduce_coalesced(&mut tensors, ReduceOp::Sum)
            .expect("all ranks call it");
        assert_eq!(values(&tensors[0]), [6.0, 12.0, 18.0]);
        assert_eq!(values(&tensors[1]), [12.0, 24.0, 36.0]);
        group
            .all_reduce_coalesced(&mut [], ReduceOp::Sum)
            .expect("nothing to do");

        let works = [
            group
                .all_reduce_async(sample(rank), ReduceOp::Sum)
                .expect("started"),
            group
                .all_reduce_async(sample(rank), ReduceOp::Max)
                .expect("started"),
            group.broadcast_async(sample(rank), 2).expect("started"),
            group
                .all_gather_async(&Tensor::from(rank as i64))
                .expect("started"),
        ];
        let results = works.map(|work| work.wait().expect("all ranks call it"));
        let results: Vec<Vec<f64>> = results
            .iter()
            .map(|tensors| tensors.iter().flat_map(values).collect())
            .collect();
        assert_eq!(
            results,
            [
                [6.0, 12.0, 18.0],
                [3.0, 6.0, 9.0],
                [3.0, 6.0, 9.0],
                [0.0, 1.0, 2.0]
            ]
        );
    });
}

#[test]
fn broadcasts_copy_the_root() {
    on_ranks(3, |mut group| {
        let rank = group.rank();
        let mut tensors = [sample(rank), sample(rank) * 10.0];
        group.broadcast(&mut tensors, 1).expect("all ranks call it");
        assert_eq!(
            tensors.iter().flat_map(values).collect::<Vec<_>>(),
            [2.0, 4.0, 6.0, 20.0, 40.0, 60.0]
        );

        // A parameter, a strided view and a counter, through buffers too small for all of them.
        let view = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
        let mut tensors = [
            sample(rank).set_requires_grad(true),
            view.select(1, 0),
            Tensor::from_slice(&[rank as i64]),
        ];
        tensors[1].copy_(&sample(rank));
        group
            .broadcast_coalesced(&mut tensors, 16, 2)
            .expect("all ranks call it");
        assert_eq!(values(&tensors[0]), [3.0, 6.0, 9.0]);
        assert_eq!(values(&view), [3.0, 0.0, 6.0, 0.0, 9.0, 0.0]);
        assert_eq!(values(&tensors[2]), [2.0]);
    });
}

#[test]
fn gathering_keeps_the_order_of_ranks_and_uneven_lengths() {
    on_ranks(3, |mut group| {
        let gathered = group
            .all_gather(&sample(group.rank()))
            .expect("all ranks call it");
        assert_eq!(
            gathered.iter().map(values).collect::<Vec<_>>(),
            [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]
        );
        let texts: [&[u8]; 3] = [b"rank zero", b"", b"2"];
        assert_eq!(
            group
                .all_gather_bytes(texts[group.rank()])
                .expect("all ranks call it"),
            texts
        );
        assert_eq!(
            group.all_gather_bytes(b"").expect("all ranks call it"),
            [b""; 3]
        );
        group.barrier().expect("all ranks call it");
        group.monitored_barrier(TIMEOUT).expect("all ranks call it");
    });
}

#[test]
fn a_view_with_gaps_is_refused_before_it_is_sent() {
    on_ranks(1, |mut group| {
        let mut view = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)).select(1, 0);
        let error = group
            .all_reduce(&mut view, ReduceOp::Sum)
            .expect_err("a strided view");
        assert!(matches!(error, Error::NotDense { .. }), "{error}");
        let error = group
            .broadcast(&mut [sample(0)], 1)
            .expect_err("no such rank");
        assert!(
            matches!(error, Error::NoSuchRank { rank: 1, size: 1 }),
            "{error}"
        );
        group.barrier().expect("refusing broke nothing");
    });
}

#[test]
fn a_group_meets_over_tcp() {
    let server = serve(2);
    let port = server.port().expect("a TCP store has a port");
    thread::scope(|scope| {
        for rank in 0..2 {
            scope.spawn(move || {
                let store = connect(port);
                let mut group =
                    ProcessGroup::new(&store, rank, 2, options(TIMEOUT)).expect("both ranks come");
                let mut tensor = sample(rank);
                group
                    .all_reduce(&mut tensor, ReduceOp::Sum)
                    .expect("both ranks call it");
                assert_eq!(values(&tensor), [3.0, 6.0, 9.0]);
            });
        }
    });
}

#[test]
fn stores_hold_bytes_counters_and_prefixes_apart() -> Result<(), Error> {
    let server = serve(2);
    let client = connect(server.port().expect("a TCP store has a port"));
    server.set("key", &[0, 159, 255])?;
    assert_eq!(client.get("key")?, [0, 159, 255]);
    assert_eq!((server.add("count", 2)?, client.add("count", 3)?), (2, 5));
    assert!(client.check(&["key", "count"])?);
    assert!(!client.check(&["key", "other"])?);
    client.wait(&["key"], TIMEOUT)?;
    assert!(server.delete("key")?);
    assert!(!client.check(&["key"])?);

    let (first, second) = (
        client.prefixed("attempt-1")?,
        server.prefixed("attempt-2/nested")?,
    );
    first.set("key", b"first")?;
    second.set("key", b"second")?;
    assert_eq!(server.prefixed("attempt-1")?.get("key")?, b"first");
    assert_eq!(
        client
            .prefixed("attempt-2")?
            .prefixed("nested")?
            .get("key")?,
        b"second"
    );
    assert!(!server.check(&["key"])?);

    // A waiter on its own connection does not hold back the others.
    let waiter = client.reopen()?;
    thread::scope(|scope| {
        let waiting = scope.spawn(move || waiter.wait(&["late"], TIMEOUT));
        client.set("late", b"")?;
        waiting.join().expect("no panic")
    })
}

#[test]
fn groups_under_different_prefixes_do_not_meet() {
    with_stores(2, |rank, store| {
        let mut groups: Vec<_> = ["attempt-1", "attempt-2"]
            .iter()
            .map(|prefix| {
                let store = store.prefixed(prefix).expect("opened");
                ProcessGroup::new(&store, rank, 2, options(TIMEOUT)).expect("both ranks come")
            })
            .collect();
        // Under way at the same time, in opposite orders: only their own group can complete them.
        let order = if rank == 0 { [0, 1] } else { [1, 0] };
        let works = order.map(|index| {
            let tensor = sample(rank) * (index as f64 * 10.0 + 1.0);
            let work = groups[index].all_reduce_async(tensor, ReduceOp::Sum);
            (index, work.expect("started"))
        });
        for (index, work) in works {
            let sum = values(&work.wait().expect("both ranks call it")[0]);
            assert_eq!(sum[0], 3.0 * (index as f64 * 10.0 + 1.0));
        }
    });
}

#[test]
fn a_key_that_never_comes_times_out() {
    let store = serve(1);
    let start = Instant::now();
    let error = store
        .wait(&["never"], Duration::from_millis(300))
        .expect_err("nobody sets it");
    assert!(error.is_timeout(), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_store_that_is_not_there_times_out() {
    let options = TcpStoreOptions {
        port: 1,
        timeout: Duration::from_millis(500),
        ..TcpStoreOptions::default()
    };
    let error = Store::tcp(options).expect_err("nobody serves port 1");
    assert!(error.is_timeout() || error.is_peer_lost(), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot reach the TCP store at 127.0.0.1:1"
    );
}

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
    let (mut group, store, peer) = with_a_process("a_peer_that_exits_is_reported_as_lost_at_once");
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
        with_a_process("a_peer_that_exits_in_a_backward_pass_is_reported_as_lost");
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

/// Two layers, so that gradients arrive in an order: `y = w2 · relu(w1 · x)`, each rank with its own x.
struct Model {
    first: Tensor,
    second: Tensor,
}

impl Model {
    fn new() -> Self {
        let weights = |rows: i64, columns: i64| {
            ((Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) + 1.0) / 8.0)
                .view([rows, columns])
                .set_requires_grad(true)
        };
        Self {
            first: weights(4, 3),
            second: weights(2, 4),
        }
    }

    fn params(&self) -> Vec<Tensor> {
        vec![self.first.shallow_clone(), self.second.shallow_clone()]
    }

    fn named(&self) -> Vec<(String, Tensor)> {
        ["first", "second"]
            .map(str::to_owned)
            .into_iter()
            .zip(self.params())
            .collect()
    }

    fn loss(&self, rank: usize) -> Tensor {
        self.second
            .matmul(&self.first.matmul(&sample(rank)).relu())
            .sum(None)
    }

    /// The gradients of one rank alone.
    fn local_gradients(&self, rank: usize) -> Vec<f64> {
        let grads = Tensor::run_backward(&[self.loss(rank)], &self.params(), false, false);
        grads.iter().flat_map(values).collect()
    }

    /// The mean over ranks of `times` the gradients of each.
    fn mean_gradients(&self, size: usize, times: f64) -> Vec<f64> {
        let mut mean = vec![0.0; 20];
        for rank in 0..size {
            for (sum, gradient) in mean.iter_mut().zip(self.local_gradients(rank)) {
                *sum += gradient * times / size as f64;
            }
        }
        mean
    }

    /// One forward and backward pass as a training loop does it, averaged over ranks or not.
    fn backward(&self, reducer: &mut Reducer, rank: usize, averaged: bool) -> Result<(), Error> {
        if averaged {
            reducer.prepare_for_forward()?;
            reducer.rebuild_buckets()?;
        }
        let loss = self.loss(rank);
        if averaged {
            reducer.prepare_for_backward(&[])?;
        }
        reducer.backward(&loss)
    }

    fn gradients(&self) -> Vec<f64> {
        self.params()
            .iter()
            .flat_map(|param| values(&param.grad()))
            .collect()
    }
}

fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!(
            (actual - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{actual} is not {expected}"
        );
    }
}

#[test]
fn the_reducer_averages_gradients() {
    for (size, as_view, unused, compression) in [
        (2, false, false, Compression::None),
        (3, false, false, Compression::None),
        (3, true, false, Compression::None),
        (2, false, true, Compression::None),
        (2, true, false, Compression::Fp16),
    ] {
        let gradients = on_ranks(size, |group| {
            let rank = group.rank();
            let model = Model::new();
            let reducer_options = ReducerOptions {
                gradient_as_bucket_view: as_view,
                find_unused_parameters: unused,
                compression,
                ..ReducerOptions::default()
            };
            let mut reducer =
                Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
            let expected = model.mean_gradients(size, 1.0);
            for _ in 0..3 {
                if unused {
                    reducer.prepare_for_forward().expect("prepared");
                    let loss = model.loss(rank);
                    reducer
                        .prepare_for_backward(&[loss.shallow_clone()])
                        .expect("prepared");
                    reducer.backward(&loss).expect("all ranks step");
                } else {
                    model
                        .backward(&mut reducer, rank, true)
                        .expect("all ranks step");
                }
                if compression == Compression::None {
                    assert_close(&model.gradients(), &expected);
                } else {
                    // Eleven bits.
                    for (actual, expected) in model.gradients().iter().zip(&expected) {
                        assert!(
                            (actual - expected).abs() <= expected.abs() / 500.0,
                            "{actual} is not {expected}"
                        );
                    }
                }
                optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
                assert_eq!(model.gradients(), vec![0.0; 20]);
            }
            model
                .backward(&mut reducer, rank, !unused)
                .expect("all ranks step");
            if unused {
                Vec::new()
            } else {
                model.gradients()
            }
        });
        assert!(
            gradients.windows(2).all(|pair| pair[0] == pair[1]),
            "all ranks hold the same bytes"
        );
    }
}

#[test]
fn passes_that_are_not_prepared_accumulate_locally() {
    for as_view in [false, true] {
        on_ranks(2, |group| {
            let rank = group.rank();
            let model = Model::new();
            let reducer_options = ReducerOptions {
                gradient_as_bucket_view: as_view,
                ..ReducerOptions::default()
            };
            let mut reducer =
                Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
            for _ in 0..2 {
                model
                    .backward(&mut reducer, rank, false)
                    .expect("a pass of one rank");
                assert_close(&model.gradients(), &model.local_gradients(rank));
                model
                    .backward(&mut reducer, rank, true)
                    .expect("all ranks step");
                assert_close(&model.gradients(), &model.mean_gradients(2, 2.0));
                optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
            }
        });
    }
}

#[test]
fn buckets_are_rebuilt_once_to_their_sizes() {
    on_ranks(2, |group| {
        let rank = group.rank();
        let model = Model::new();
        // Smaller than either gradient, so that each gets a bucket of its own.
        let reducer_options = ReducerOptions {
            bucket_cap_bytes: 16,
            first_bucket_bytes: 16,
            ..ReducerOptions::default()
        };
        let mut reducer =
            Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
        let mut seen = Vec::new();
        for _ in 0..3 {
            reducer.prepare_for_forward().expect("prepared");
            seen.push((
                reducer.rebuild_buckets().expect("all ranks step"),
                reducer.bucket_count().expect("buckets"),
            ));
            let loss = model.loss(rank);
            reducer.prepare_for_backward(&[]).expect("prepared");
            reducer.backward(&loss).expect("all ranks step");
            assert_close(&model.gradients(), &model.mean_gradients(2, 1.0));
            optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
        }
        assert_eq!(seen, [(false, 1), (true, 2), (false, 2)]);
    });
}

#[test]
fn a_parameter_without_a_gradient_is_an_error_at_the_next_pass() {
    on_ranks(2, |group| {
        let model = Model::new();
        let mut named = model.named();
        named.push((
            "idle".to_owned(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true),
        ));
        let mut reducer =
            Reducer::new(&group, &named, ReducerOptions::default()).expect("same parameters");
        model
            .backward(&mut reducer, group.rank(), true)
            .expect("nothing is known yet");
        let error = model
            .backward(&mut reducer, group.rank(), true)
            .expect_err("idle got no gradient");
        let cause = error.fault().expect("a cause").to_string();
        assert!(
            cause.contains("Expected to have finished reduction"),
            "{cause}"
        );
    });
}

#[test]
fn a_frozen_parameter_is_refused() {
    on_ranks(1, |group| {
        let params = [(
            "frozen".to_owned(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)),
        )];
        let error =
            Reducer::new(&group, &params, ReducerOptions::default()).expect_err("no gradient");
        assert_eq!(
            error.fault().expect("a cause").to_string(),
            "frozen does not require a gradient"
        );
        assert!(Reducer::new(&group, &[], ReducerOptions::default()).is_err());
    });
}

#[test]
fn reducer_group_and_parameters_may_be_dropped_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        on_ranks(2, |group| {
            let rank = group.rank();
            let model = Model::new();
            let mut reducer = Reducer::new(&group, &model.named(), ReducerOptions::default())
                .expect("parameters");
            model
                .backward(&mut reducer, rank, true)
                .expect("all ranks step");
            let (mut group, mut reducer, mut model) = (Some(group), Some(reducer), Some(model));
            for what in order {
                match what {
                    0 => drop(group.take()),
                    1 => drop(reducer.take()),
                    _ => drop(model.take()),
                }
                if let (Some(model), None) = (&model, &reducer) {
                    // The hooks went with the reducer.
                    model.loss(rank).backward();
                }
            }
        });
    }
}

#[test]
fn different_parameters_are_found_on_a_rank_that_differs() {
    let outcomes = on_ranks(2, |mut group| {
        let rank = group.rank();
        let same = [sample(rank)];
        verify_params(&mut group, &same).expect("values are not compared");
        let shape = if rank == 0 { [2, 3] } else { [3, 2] };
        verify_params(
            &mut group,
            &[Tensor::zeros(shape, (Kind::Float, Device::Cpu))],
        )
        .is_err()
    });
    assert!(outcomes[1]);
}

/// The reason all of this exists: ranks that train on shares of the data stay byte-identical.
#[test]
fn three_ranks_train_to_the_same_bytes() {
    let trained = on_ranks(3, |mut group| {
        let rank = group.rank();
        let model = Model::new();
        let mut params = model.params();
        if rank != 0 {
            optim::foreach_zero(&mut params).expect("parameters");
        }
        group
            .broadcast_coalesced(&mut params, 250 << 20, 0)
            .expect("all ranks call it");
        let reducer_options = ReducerOptions {
            gradient_as_bucket_view: true,
            ..ReducerOptions::default()
        };
        let mut reducer =
            Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
        let mut buffers: Vec<Tensor> = params
            .iter()
            .map(|param| param.detach().zeros_like())
            .collect();
        for step in 0..4 {
            model
                .backward(&mut reducer, rank, true)
                .expect("all ranks step");
            let mut grads = optim::grads(&params);
            let _norm = optim::clip_grad_norm(&mut grads, 1.0).expect("gradients");
            let settings = FusedSgd {
                lr: 0.1,
                momentum: 0.9,
                weight_decay: 1e-4,
                nesterov: true,
                first_step: step == 0,
            };
            optim::fused_sgd(&mut params, &mut grads, &mut buffers, settings, None)
                .expect("lists match");
            optim::foreach_zero(&mut grads).expect("gradients");
        }
        params.iter().flat_map(values).collect::<Vec<_>>()
    });
    assert_eq!(trained[0], trained[1]);
    assert_eq!(trained[0], trained[2]);
    assert_ne!(
        trained[0],
        Model::new()
            .params()
            .iter()
            .flat_map(values)
            .collect::<Vec<_>>()
    );
}
