//! How the ranks of one attempt find each other.
//!
//! Rank 0 serves a key-value store on `MASTER_ADDR:MASTER_PORT`. After a restart that name may for some
//! seconds still lead to the previous pod of worker 0, whose store may even answer. So every try of a
//! client resolves the name anew, and a client believes a store only when it holds this very attempt's
//! key; everything else lies under a prefix of the attempt.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use contract::env::RankEnv;
use torch_bridge::group::{Backend, GroupOptions};
use torch_bridge::{ProcessGroup, Store, TcpStoreOptions};

use super::Ranks;
use crate::console;

/// The key that only rank 0 of an attempt sets.
const FENCE: &str = "rank-0-is-here";
/// The key that says that all ranks are here.
const COMPLETE: &str = "all-ranks-are-here";
/// How long one try to reach the store may take.
const TRY: Duration = Duration::from_secs(5);
/// How long a client waits for this attempt's key before it believes that it met an old store.
const FENCE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a wait for other ranks says who is missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the ranks did not come together.
#[derive(Debug, thiserror::Error)]
pub enum RendezvousError {
    /// Rank 0 cannot serve the store.
    #[error("rank 0 cannot listen on port {port} (MASTER_PORT): another process may hold it")]
    Serve {
        /// The port.
        port: u16,
        /// What libtorch said.
        #[source]
        source: torch_bridge::Error,
    },
    /// Another rank cannot reach the store.
    #[error(
        "rank {rank} of attempt {attempt} did not find rank 0 at {host}:{port} within {seconds} s ({resolved}): check that worker 0 runs and that the network lets its port through",
        attempt = .place.attempt, rank = .place.rank, host = .place.master_addr, port = .place.master_port
    )]
    Reach {
        /// Who this is and whom it looked for.
        place: Box<RankEnv>,
        /// How long it tried.
        seconds: u64,
        /// What the host name led to in the last try.
        resolved: String,
        /// What the last try gave.
        #[source]
        source: LastTry,
    },
    /// Some ranks did not come.
    #[error(
        "rank {rank} met rank 0 at {host}:{port}, but {} of {} ranks did not come within {seconds} s: {missing:?}",
        missing.len(), .place.world_size,
        rank = .place.rank, host = .place.master_addr, port = .place.master_port
    )]
    Missing {
        /// Who this is.
        place: Box<RankEnv>,
        /// How long it waited.
        seconds: u64,
        /// Who is missing.
        missing: Vec<u32>,
    },
    /// The store failed while ranks gathered.
    #[error("the ranks lost touch while they gathered at {host}:{port}")]
    Gather {
        /// Rank 0's host.
        host: String,
        /// Its port.
        port: u16,
        /// What libtorch said.
        #[source]
        source: torch_bridge::Error,
    },
    /// The ranks are all there, and cannot connect to each other.
    #[error(
        "all {world} ranks are there, but rank {rank} (at {address}) cannot connect to the others: check that the network lets all ports between workers through"
    )]
    Connect {
        /// This rank.
        rank: u32,
        /// How many there are.
        world: u32,
        /// The address this rank told the others.
        address: String,
        /// What libtorch said.
        #[source]
        source: torch_bridge::Error,
    },
}

/// What the last try to reach the store gave.
#[derive(Debug, thiserror::Error)]
pub enum LastTry {
    /// The name leads nowhere.
    #[error("the name cannot be resolved")]
    Resolve(#[source] io::Error),
    /// Nobody answered.
    #[error("the store does not answer")]
    Store(#[source] torch_bridge::Error),
    /// Somebody answered, and it was not this attempt's rank 0.
    #[error("a store answers, but not that of this attempt")]
    OtherAttempt,
}

/// Time-outs of a meeting.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For all ranks to come.
    pub gathering: Duration,
    /// For each collective afterwards.
    pub collective: Duration,
}

/// Between two tries. Every loop that calls it has a deadline.
#[expect(
    clippy::disallowed_methods,
    reason = "libtorch's store has no way to wait for a host to appear"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Meets the other ranks of this attempt.
pub fn meet(place: &RankEnv, backend: Backend, limits: Limits) -> Result<Ranks, RendezvousError> {
    if place.world_size == 1 {
        return Ok(Ranks::alone());
    }
    let deadline = Instant::now() + limits.gathering;
    let (_server, store) = open(place, limits.gathering, deadline)?;
    gather(place, &store, limits.gathering, deadline)?;
    let address = own_address(place);
    let options = GroupOptions {
        backend,
        timeout: limits.collective,
        hostname: Some(address.clone()),
        ..GroupOptions::default()
    };
    let (rank, world) = (place.rank, place.world_size);
    let group =
        ProcessGroup::new(&store, rank as usize, world as usize, options).map_err(|source| {
            RendezvousError::Connect {
                rank,
                world,
                address,
                source,
            }
        })?;
    Ok(Ranks::of(group))
}

/// This attempt's part of the store, and the connection below it.
fn open(
    place: &RankEnv,
    limit: Duration,
    deadline: Instant,
) -> Result<(Store, Store), RendezvousError> {
    if place.rank == 0 {
        return serve(place, deadline);
    }
    loop {
        let (resolved, last) = match try_once(place, deadline) {
            Ok(stores) => return Ok(stores),
            Err(failed) => failed,
        };
        if Instant::now() >= deadline {
            return Err(RendezvousError::Reach {
                place: Box::new(place.clone()),
                seconds: limit.as_secs(),
                resolved,
                source: last,
            });
        }
        pause(PAUSE);
    }
}

/// Serves the store. A previous process of this worker may hold the port for a moment longer.
fn serve(place: &RankEnv, deadline: Instant) -> Result<(Store, Store), RendezvousError> {
    let options = TcpStoreOptions {
        // The server is its own client, and its own name may not be known yet.
        host: "localhost".to_owned(),
        port: place.master_port,
        is_server: true,
        timeout: TRY,
        ..TcpStoreOptions::default()
    };
    let server = loop {
        match Store::tcp(options.clone()) {
            Ok(server) => break server,
            Err(source) if Instant::now() >= deadline => {
                return Err(RendezvousError::Serve {
                    port: place.master_port,
                    source,
                });
            }
            Err(_) => pause(PAUSE),
        }
    };
    let store = server
        .prefixed(&prefix(place))
        .and_then(|store| store.set(FENCE, b"1").map(|()| store))
        .map_err(|source| lost_touch(place, source))?;
    Ok((server, store))
}

fn try_once(place: &RankEnv, deadline: Instant) -> Result<(Store, Store), (String, LastTry)> {
    let addresses =
        resolve(place).map_err(|error| ("unresolved".to_owned(), LastTry::Resolve(error)))?;
    let resolved = addresses
        .iter()
        .map(|address| address.ip().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let left = deadline.saturating_duration_since(Instant::now());
    let result = (|| {
        let server = Store::tcp(TcpStoreOptions {
            host: place.master_addr.clone(),
            port: place.master_port,
            timeout: TRY.min(left).max(Duration::from_millis(100)),
            ..TcpStoreOptions::default()
        })?;
        let store = server.prefixed(&prefix(place))?;
        Ok((server, store))
    })();
    match result {
        Err(error) => Err((resolved, LastTry::Store(error))),
        Ok((server, store)) => match store.wait(&[FENCE], FENCE_TIMEOUT.min(left)) {
            Ok(()) => Ok((server, store)),
            Err(error) if error.is_timeout() => Err((resolved, LastTry::OtherAttempt)),
            Err(error) => Err((resolved, LastTry::Store(error))),
        },
    }
}

/// Says that this rank is here and waits until all are.
fn gather(
    place: &RankEnv,
    store: &Store,
    limit: Duration,
    deadline: Instant,
) -> Result<(), RendezvousError> {
    let lost = |source| lost_touch(place, source);
    store.set(&here(place.rank), b"1").map_err(lost)?;
    let mut next_word = Instant::now() + PATIENCE;
    loop {
        let missing = missing(place, store).map_err(lost)?;
        if missing.is_empty() {
            // A rank that comes last must not leave before the others have seen it, so all wait for
            // rank 0 to have seen everybody.
            if place.rank == 0 {
                return store.set(COMPLETE, b"1").map_err(lost);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            return store.wait(&[COMPLETE], left.max(TRY)).map_err(lost);
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(RendezvousError::Missing {
                place: Box::new(place.clone()),
                seconds: limit.as_secs(),
                missing,
            });
        }
        if now >= next_word {
            next_word = now + PATIENCE;
            console::say(&format!("waiting for ranks {missing:?}"));
        }
        pause(PAUSE.min(deadline - now));
    }
}

fn missing(place: &RankEnv, store: &Store) -> Result<Vec<u32>, torch_bridge::Error> {
    let mut missing = Vec::new();
    for rank in 0..place.world_size {
        if !store.check(&[&here(rank)])? {
            missing.push(rank);
        }
    }
    Ok(missing)
}

fn lost_touch(place: &RankEnv, source: torch_bridge::Error) -> RendezvousError {
    RendezvousError::Gather {
        host: place.master_addr.clone(),
        port: place.master_port,
        source,
    }
}

fn prefix(place: &RankEnv) -> String {
    format!("attempt/{}", place.attempt)
}

fn here(rank: u32) -> String {
    format!("here/{rank}")
}

fn resolve(place: &RankEnv) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = (place.master_addr.as_str(), place.master_port)
        .to_socket_addrs()?
        .collect();
    if addresses.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(addresses)
}

/// The address under which the others reach this process: that of the interface on the way to rank 0.
/// On rank 0 itself, whose own name may not be known yet, that of its host name.
fn own_address(place: &RankEnv) -> String {
    let towards_first = resolve(place)
        .ok()
        .and_then(|found| local_address(found[0]));
    let by_name = || {
        let found = (crate::hostname().as_str(), 0).to_socket_addrs().ok()?;
        found.map(|address| address.ip()).next()
    };
    towards_first
        .or_else(by_name)
        .map_or_else(|| "localhost".to_owned(), |address| address.to_string())
}

/// The address this machine would send from. "Connecting" a UDP socket chooses a route and sends nothing.
fn local_address(target: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use contract::attempt::Attempt;

    use super::*;

    fn place(rank: u32, world: u32, port: u16, restart: u32) -> RankEnv {
        RankEnv {
            rank,
            local_rank: rank,
            world_size: world,
            local_world_size: world,
            master_addr: "127.0.0.1".to_owned(),
            master_port: port,
            attempt: Attempt {
                incarnation: 0,
                restart,
            },
        }
    }

    fn limits(seconds: u64) -> Limits {
        Limits {
            gathering: Duration::from_secs(seconds),
            collective: Duration::from_secs(30),
        }
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    }

    /// Runs one rank in a thread of its own; returns the sum of all ranks' numbers.
    fn rank(place: RankEnv) -> std::thread::JoinHandle<Vec<f64>> {
        std::thread::spawn(move || {
            let mut ranks = meet(&place, Backend::Gloo, limits(60)).expect("met");
            let sum = ranks.sum(&[f64::from(place.rank), 1.0]).expect("started");
            ranks.finish(sum).expect("summed")
        })
    }

    #[test]
    fn ranks_that_start_in_any_order_meet() {
        let port = free_port();
        let threads: Vec<_> = [2, 1, 0].map(|r| rank(place(r, 3, port, 0))).into();
        for thread in threads {
            assert_eq!(vec![3.0, 3.0], thread.join().expect("no panic"));
        }
    }

    #[test]
    fn a_store_of_an_earlier_attempt_is_not_believed() {
        let port = free_port();
        let old = serve(&place(0, 2, port, 0), Instant::now()).expect("served");
        let late = rank(place(1, 2, port, 1));
        // The client meets the old store first; then that ends, and the new rank 0 takes the port.
        std::thread::sleep(Duration::from_millis(500));
        drop(old);
        let first = rank(place(0, 2, port, 1));
        assert_eq!(vec![1.0, 2.0], first.join().expect("no panic"));
        assert_eq!(vec![1.0, 2.0], late.join().expect("no panic"));
    }

    #[test]
    fn the_missing_are_named() {
        let error = meet(&place(0, 3, free_port(), 0), Backend::Gloo, limits(1));
        let text = error.expect_err("nobody came").to_string();
        assert!(
            text.contains("2 of 3 ranks did not come") && text.contains("[1, 2]"),
            "{text}"
        );
        let port = free_port();
        let error = meet(&place(1, 2, port, 0), Backend::Gloo, limits(1)).expect_err("no rank 0");
        let text = error.to_string();
        assert!(
            text.contains(&format!("127.0.0.1:{port} within 1 s")),
            "{text}"
        );
    }
}
