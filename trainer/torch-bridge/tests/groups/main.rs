//! Groups of several ranks: threads where nobody dies, processes where somebody does.

use std::thread;
use std::time::Duration;

use tch::{Kind, Tensor};
use torch_bridge::{GroupOptions, ProcessGroup, Store};

mod collectives;
mod faults;
mod reducer;
mod stores;
mod sync_norm;

const TIMEOUT: Duration = Duration::from_secs(20);

fn options(timeout: Duration) -> GroupOptions {
    GroupOptions {
        timeout,
        hostname: Some("127.0.0.1".to_owned()),
        ..GroupOptions::default()
    }
}

/// Runs `body` as each rank of `size`, one thread per rank with its own store, and returns what they return. The
/// store is a file, which needs no port.
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
