//! Waiting for a condition, with a ceiling.

use std::time::{Duration, Instant};

/// Asks `probe` until it has an answer. After `ceiling` the test fails with what was awaited and the
/// last thing the probe saw.
///
/// `probe` returns `Ok` with the answer or `Err` with what it saw instead.
#[track_caller]
pub fn until<T>(what: &str, ceiling: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > ceiling => {
                panic!(
                    "waited {} s for {what}; last seen: {seen}",
                    ceiling.as_secs()
                )
            }
            Err(_) => pause(),
        }
    }
}

/// A moment between two looks at the cluster: each look is a process, and the cluster shares this
/// machine.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place of the harness that lets time pass"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(250));
}

/// Lets a fault last.
#[expect(
    clippy::disallowed_methods,
    reason = "how long it lasts is what is tried, not a condition that comes true"
)]
pub fn last(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}
