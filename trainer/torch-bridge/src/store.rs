//! Key-value stores through which ranks find each other.

use std::path::Path;
use std::time::Duration;

use cxx::UniquePtr;

use crate::error::{Error, Fault, StoreOperation};
use crate::ffi;

/// Where a TCP store is, and who this process is to it.
#[derive(Debug, Clone)]
pub struct TcpStoreOptions {
    /// Name or address of the server.
    pub host: String,
    /// The server's port. 0 lets a server choose one; [`Store::port`] tells which.
    pub port: u16,
    /// Whether this process serves the store (one process does; it is also a client).
    pub is_server: bool,
    /// How many clients there will be, the server among them. `None` when not known.
    pub world_size: Option<usize>,
    /// Whether opening returns only when `world_size` clients have come.
    pub wait_workers: bool,
    /// How long opening, and each later [`Store::get`], may take. Clients retry until then, so the server may
    /// start later than they do.
    pub timeout: Duration,
}

impl Default for TcpStoreOptions {
    /// A client of 127.0.0.1:29500 that waits for nobody; 5 minutes.
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 29500,
            is_server: false,
            world_size: None,
            wait_workers: false,
            timeout: Duration::from_mins(5),
        }
    }
}

/// A key-value store shared by the ranks of a job.
///
/// Values are bytes. A TCP store ends with its server; a file store lives in a file all ranks see.
///
/// ```no_run
/// # use torch_bridge::{Store, TcpStoreOptions};
/// let store = Store::tcp(TcpStoreOptions { host: "worker-0".into(), ..Default::default() })?;
/// let attempt = store.prefixed("attempt-3")?;
/// attempt.set("greeting", b"hello")?;
/// # Ok::<(), torch_bridge::Error>(())
/// ```
pub struct Store {
    pub(crate) inner: UniquePtr<ffi::Store>,
    port: Option<u16>,
}

// SAFETY: c10d's stores may be used from any thread: TCPStore and FileStore hold no thread-local state and
// guard each operation with a mutex of their own, and PrefixStore only forwards to them. A prefixed store that
// shares its connection with another on a second thread therefore only waits for that mutex.
unsafe impl Send for Store {}

impl Store {
    /// Opens a store over TCP, serving it when told to. Only the host's name is asked of DNS: that c10d wants the
    /// name of each address that connects, for its log, is kept from it (`getnameinfo` in `cpp/distributed.cpp`).
    pub fn tcp(options: TcpStoreOptions) -> Result<Self, Error> {
        let TcpStoreOptions {
            host,
            port,
            is_server,
            world_size,
            wait_workers,
            timeout,
        } = options;
        let settings = ffi::TcpSettings {
            host,
            port,
            is_server,
            world_size: world_size.unwrap_or(0),
            wait_workers,
            timeout_ms: millis(timeout),
        };
        let mut bound = port;
        match ffi::open_tcp_store(&settings, &mut bound) {
            Ok(inner) => Ok(Self {
                inner,
                port: Some(bound),
            }),
            Err(exception) => Err(Error::OpenTcpStore {
                host: settings.host,
                port,
                is_server,
                source: exception.into(),
            }),
        }
    }

    /// Opens a store in the file `path`, which all ranks must see under a file system with locks. The file is
    /// removed when the last of `world_size` ranks drops its store.
    pub fn file(path: &Path, world_size: usize) -> Result<Self, Error> {
        let failed = |source| Error::OpenFileStore {
            path: path.to_owned(),
            source,
        };
        let text = path
            .to_str()
            .ok_or_else(|| failed(Fault::Other("the path is not UTF-8".to_owned())))?;
        let inner = ffi::open_file_store(text, world_size as i32)
            .map_err(|exception| failed(exception.into()))?;
        Ok(Self { inner, port: None })
    }

    /// The same store seen through a prefix: its keys never meet those outside it. Shares this store's connection.
    pub fn prefixed(&self, prefix: &str) -> Result<Self, Error> {
        let inner = ffi::prefixed_store(&self.inner, prefix).map_err(|exception| {
            failed(StoreOperation::Prefix, vec![prefix.to_owned()], exception)
        })?;
        Ok(Self {
            inner,
            port: self.port,
        })
    }

    /// The same store over a connection of its own, for use on another thread: a call that waits on one
    /// connection holds back the others on it.
    pub fn reopen(&self) -> Result<Self, Error> {
        let inner = ffi::reopen_store(&self.inner)
            .map_err(|exception| failed(StoreOperation::Reopen, Vec::new(), exception))?;
        Ok(Self {
            inner,
            port: self.port,
        })
    }

    /// The port of a TCP store; `None` for a file store.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Sets `key`, replacing what it held.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.inner
            .set(key, value)
            .map_err(|exception| failed(StoreOperation::Set, vec![key.to_owned()], exception))
    }

    /// What `key` holds; waits for it to be set, at most the time the store was opened with (file store: 5
    /// minutes).
    pub fn get(&self, key: &str) -> Result<Vec<u8>, Error> {
        self.inner
            .get(key)
            .map_err(|exception| failed(StoreOperation::Get, vec![key.to_owned()], exception))
    }

    /// Adds to a counter that starts at 0, in one indivisible step; returns the sum. Read it back with `add(key, 0)`.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, Error> {
        self.inner
            .add(key, amount)
            .map_err(|exception| failed(StoreOperation::Add, vec![key.to_owned()], exception))
    }

    /// Whether all `keys` are set. Does not wait.
    pub fn check(&self, keys: &[&str]) -> Result<bool, Error> {
        let keys = owned(keys);
        self.inner
            .check(&keys)
            .map_err(|exception| failed(StoreOperation::Check, keys, exception))
    }

    /// Waits until all `keys` are set, at most `timeout`.
    pub fn wait(&self, keys: &[&str], timeout: Duration) -> Result<(), Error> {
        let keys = owned(keys);
        self.inner
            .wait(&keys, millis(timeout))
            .map_err(|exception| failed(StoreOperation::Wait, keys, exception))
    }

    /// Deletes `key`; returns whether it was there.
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        self.inner
            .remove(key)
            .map_err(|exception| failed(StoreOperation::Delete, vec![key.to_owned()], exception))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

fn failed(operation: StoreOperation, keys: Vec<String>, exception: cxx::Exception) -> Error {
    Error::Store {
        operation,
        keys,
        source: exception.into(),
    }
}

/// Whole milliseconds, at least 1: to c10d, 0 means to wait for ever.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
}
