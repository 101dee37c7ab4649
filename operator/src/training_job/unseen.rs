//! Whether the cache of jobs has come to what was written last. A reconcile from a status that is older than the
//! operator's own last word would take that word back.

use std::time::{Duration, Instant};

/// How soon to look again. Most writes bring a reconcile as soon as the cache has them; those that change nothing but
/// numbers do not, and a worker that ends meanwhile must not wait long.
pub const AGAIN: Duration = Duration::from_millis(100);

/// How long the cache is waited for. An API server that was put back to a backup gives versions that it gave before:
/// what is waited for may be of a time that never comes.
const PATIENCE: Duration = Duration::from_secs(5);

/// A version of the job that the operator has made and that its cache may not have yet.
#[derive(Clone, Debug, Default)]
pub struct Unseen {
    /// The version, until the cache has it.
    version: Option<u64>,
    /// When the cache was first found without it. Not when it was written: a watch can break long before somebody asks.
    since: Option<Instant>,
}

impl Unseen {
    /// Notes what the API server called the job after a write, where it said so.
    pub fn wrote(&mut self, version: Option<u64>) {
        *self = Self {
            version,
            since: None,
        };
    }

    /// Whether the cache, which has this version of the job, is to be waited for.
    pub fn awaited(&mut self, cached: Option<&str>, now: Instant) -> bool {
        let Some(version) = self.version else {
            return false;
        };
        let older = cached
            .and_then(number)
            .is_some_and(|cached| cached < version);
        let since = *self.since.get_or_insert(now);
        if older && now.saturating_duration_since(since) < PATIENCE {
            return true;
        }
        *self = Self::default();
        false
    }
}

/// A version as something that can be compared; `None` where an API server calls them otherwise.
pub fn number(version: &str) -> Option<u64> {
    version.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(version: &str) -> Unseen {
        let mut unseen = Unseen::default();
        unseen.wrote(number(version));
        unseen
    }

    #[test]
    fn only_a_cache_that_is_older_is_waited_for() {
        let now = Instant::now();
        assert!(!Unseen::default().awaited(Some("1"), now), "nothing is new");
        for (cached, awaited) in [
            (Some("999"), true),
            (Some("1000"), false),
            // Somebody else wrote after the operator.
            (Some("1001"), false),
            // Not of this kind.
            (Some("a"), false),
            (None, false),
        ] {
            assert_eq!(awaited, wrote("1000").awaited(cached, now), "{cached:?}");
        }
        assert!(!wrote("b").awaited(Some("999"), now), "not comparable");
    }

    #[test]
    fn what_was_seen_is_not_waited_for_again_and_the_next_write_is() {
        let now = Instant::now();
        let mut unseen = wrote("8");
        assert!(unseen.awaited(Some("7"), now));
        assert!(!unseen.awaited(Some("8"), now));
        assert!(!unseen.awaited(Some("7"), now));
        unseen.wrote(Some(9));
        assert!(unseen.awaited(Some("8"), now));
    }

    #[test]
    fn a_version_that_never_comes_is_not_waited_for_long() {
        let begin = Instant::now();
        let mut unseen = wrote("1000000");
        // However long ago it was written.
        let mut now = begin + Duration::from_hours(1);
        let limit = now + PATIENCE;
        let mut looks = 0;
        while unseen.awaited(Some("7"), now) {
            now += AGAIN;
            looks += 1;
            assert!(now <= limit, "still waited for after {looks} looks");
        }
        assert_eq!(limit, now);
        // Nor at the next reconcile, and the past that came back is followed.
        assert!(!unseen.awaited(Some("7"), now));
        unseen.wrote(Some(9));
        assert!(unseen.awaited(Some("8"), now));
        assert!(!unseen.awaited(Some("9"), now));
    }
}
