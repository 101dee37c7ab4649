//! Where ranks meet.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::thread;
use std::time::{Duration, Instant};

use torch_bridge::{Error, ProcessGroup, ReduceOp, Store, TcpStoreOptions};

use crate::{TIMEOUT, options, sample, values, with_stores};

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

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

type GetNameInfo =
    unsafe extern "C" fn(*const c_void, u32, *mut c_char, u32, *mut c_char, u32, c_int) -> c_int;

/// What libtorch finds under this name, like any library of this process.
#[test]
fn nobody_asks_dns_who_connects() {
    let _linked = serve(1);
    // SAFETY: a null handle means the order in which libraries look for a name (RTLD_DEFAULT).
    let found = unsafe { dlsym(null_mut(), c"getnameinfo".as_ptr()) };
    assert!(!found.is_null());
    // SAFETY: the C library declares getnameinfo with these arguments.
    let name_of = unsafe { transmute::<*mut c_void, GetNameInfo>(found) };
    // A sockaddr_in: AF_INET, port 22, 127.0.0.1, which every hosts file names.
    let mut address = [0_u8; 16];
    address[..2].copy_from_slice(&2_u16.to_ne_bytes());
    address[2..8].copy_from_slice(&[0, 22, 127, 0, 0, 1]);
    let mut host = [0 as c_char; 64];
    let at = address.as_ptr().cast();
    // SAFETY: both buffers are as long as is said, and no service is asked for.
    let failed = unsafe { name_of(at, 16, host.as_mut_ptr(), 64, null_mut(), 0, 0) };
    assert_eq!(0, failed);
    // SAFETY: getnameinfo ends what it writes with a zero.
    let host = unsafe { CStr::from_ptr(host.as_ptr()) };
    assert_eq!(c"127.0.0.1", host);
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
