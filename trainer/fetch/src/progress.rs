//! How far a fetch is, in a line every few seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::info;

/// Between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what was fetched.
#[derive(Debug)]
pub struct Progress {
    bytes: AtomicU64,
    files: AtomicU64,
    total_bytes: u64,
    total_files: u64,
    begun: Instant,
}

impl Progress {
    /// Of so much.
    pub fn new(total_files: u64, total_bytes: u64) -> Self {
        Self {
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
            total_bytes,
            total_files,
            begun: Instant::now(),
        }
    }

    /// So many bytes are there, fetched now or before.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes that were counted are not there, or are counted again.
    pub fn take_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// One more file is whole.
    pub fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Says how far it is.
    pub fn say(&self) {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        info!(
            "{} of {} files, {:.1} of {:.1} MiB, after {} s",
            self.files.load(Ordering::Relaxed),
            self.total_files,
            mebibytes(self.bytes.load(Ordering::Relaxed)),
            mebibytes(self.total_bytes),
            self.begun.elapsed().as_secs()
        );
    }

    /// Says so every few seconds while something is being done.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.tick().await;
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.say(),
            }
        }
    }
}
