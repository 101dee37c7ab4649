//! Finds workers whose clocks differ from that of worker 0.

use std::collections::BTreeMap;

/// Messages that are looked at together: one that comes late tells nothing of clocks, all of them do.
const WINDOW: u32 = 10;
/// Clocks that differ by so many milliseconds are worth a warning.
const SKEW_MS: i64 = 2000;

/// The least differences of late.
#[derive(Debug, Default)]
pub struct ClockWatch {
    workers: BTreeMap<u32, Window>,
}

#[derive(Debug)]
struct Window {
    messages: u32,
    least_ms: i64,
}

impl ClockWatch {
    /// A message of a worker came, dated so many milliseconds before our clock. After every [`WINDOW`]th, how
    /// much the clocks differ: `Some(None)` is not much.
    pub fn note(&mut self, worker: u32, behind_ms: i64) -> Option<Option<i64>> {
        let window = self.workers.entry(worker).or_insert(Window {
            messages: 0,
            least_ms: behind_ms,
        });
        window.messages += 1;
        if behind_ms.abs() < window.least_ms.abs() {
            window.least_ms = behind_ms;
        }
        if window.messages < WINDOW {
            return None;
        }
        let least = window.least_ms;
        self.workers.remove(&worker);
        Some((least.abs() >= SKEW_MS).then_some(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_messages_are_no_skew() {
        let mut watch = ClockWatch::default();
        for late in 0..9 {
            assert_eq!(None, watch.note(1, 9000 - late));
        }
        assert_eq!(Some(None), watch.note(1, 3));
        for _ in 0..9 {
            assert_eq!(None, watch.note(1, -60_100));
        }
        assert_eq!(Some(Some(-60_000)), watch.note(1, -60_000));
    }
}
