//! Back-off after errors, for each object on its own.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

/// The first wait.
const BASE: Duration = Duration::from_millis(500);
/// The longest wait; about once a minute is often enough to notice that a cluster works again.
const CAP: Duration = Duration::from_mins(1);

/// How long to wait after the `failures`th error in a row (from 1) of an object.
///
/// Doubles from half a second to a minute. A part is taken off by a hash of the object's uid and the
/// count, so that objects that failed together do not come back together; no randomness is needed for
/// that.
pub fn backoff(uid: &str, failures: u32) -> Duration {
    growing(uid, failures, BASE, CAP)
}

/// How long to wait the `n`th time in a row (from 1): twice as long each time, from `base` to `cap`, less a
/// part of up to a quarter that the uid and n decide.
pub fn growing(uid: &str, n: u32, base: Duration, cap: Duration) -> Duration {
    let doubled = base.saturating_mul(1 << n.saturating_sub(1).min(16));
    let full = doubled.min(cap);
    let mut hasher = DefaultHasher::new();
    (uid, n).hash(&mut hasher);
    let part = (hasher.finish() % 1024) as u32;
    full.saturating_sub(full * part / 4096)
}

/// The same in whole seconds, as waits are told, and never none of something.
pub fn growing_seconds(uid: &str, n: u32, initial: u32, max: u32) -> u32 {
    let [initial, max] = [initial, max].map(|seconds| Duration::from_secs(seconds.into()));
    growing(uid, n, initial, max).as_secs_f64().ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_differ_between_objects() {
        let mut before = Duration::ZERO;
        for failures in 1..=7 {
            let wait = backoff("a", failures);
            assert!(wait > before, "{failures}: {wait:?}");
            before = wait;
        }
        for failures in [8, 20, u32::MAX] {
            let wait = backoff("a", failures);
            assert!(wait <= CAP && wait >= CAP * 3 / 4, "{failures}: {wait:?}");
        }
        let waits: std::collections::HashSet<_> =
            (0..50).map(|n| backoff(&n.to_string(), 3)).collect();
        assert!(waits.len() > 40, "{waits:?}");
        assert_eq!(backoff("a", 3), backoff("a", 3));
    }
}
