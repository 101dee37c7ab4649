//! Throughput, time left and percentage of a run; the clock is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// What a progress line needs.
#[derive(Clone, Debug)]
pub struct Progress {
    total: u64,
    window: usize,
    samples: VecDeque<(Duration, u64)>,
}

impl Progress {
    /// A run of `total` images whose throughput is averaged over the last `window` records (at
    /// least 1).
    pub fn new(total: u64, window: usize) -> Self {
        Self {
            total,
            window: window.max(1),
            samples: VecDeque::new(),
        }
    }

    /// Says that `done` images of the total were done at `now`, measured on any one monotonic clock.
    ///
    /// A count or a clock that goes back (a rollback, a restart) starts the average anew.
    pub fn record(&mut self, now: Duration, done: u64) {
        if self
            .samples
            .back()
            .is_some_and(|(time, count)| now < *time || done < *count)
        {
            self.samples.clear();
        }
        self.samples.push_back((now, done));
        while self.samples.len() > self.window + 1 {
            self.samples.pop_front();
        }
    }

    /// Images per second over the window; none before time has passed.
    pub fn throughput(&self) -> Option<f64> {
        let (first_time, first_done) = self.samples.front()?;
        let (last_time, last_done) = self.samples.back()?;
        let seconds = last_time.saturating_sub(*first_time).as_secs_f64();
        (seconds > 0.0).then(|| (last_done - first_done) as f64 / seconds)
    }

    /// Images done.
    pub fn done(&self) -> u64 {
        self.samples.back().map_or(0, |(_, done)| *done)
    }

    /// Time to the end at the present throughput; none while that is unknown or zero.
    pub fn eta(&self) -> Option<Duration> {
        let rate = self.throughput().filter(|rate| *rate > 0.0)?;
        let left = self.total.saturating_sub(self.done()) as f64;
        Duration::try_from_secs_f64(left / rate).ok()
    }

    /// How much is done, in 0..=100; a run of nothing is done.
    pub fn percent(&self) -> f64 {
        if self.total == 0 {
            return 100.0;
        }
        (100.0 * self.done() as f64 / self.total as f64).min(100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn average_of_the_window() {
        let mut p = Progress::new(1000, 2);
        assert_eq!((p.throughput(), p.eta(), p.percent()), (None, None, 0.0));
        p.record(seconds(0.0), 0);
        assert_eq!(p.throughput(), None);
        p.record(seconds(10.0), 100);
        assert_eq!((p.throughput(), p.eta()), (Some(10.0), Some(seconds(90.0))));
        p.record(seconds(11.0), 120);
        p.record(seconds(12.0), 140);
        assert_eq!((p.throughput(), p.eta()), (Some(20.0), Some(seconds(43.0))));
        assert_eq!((p.done(), p.percent()), (140, 14.0));
    }

    #[test]
    fn going_back_starts_anew() {
        let mut p = Progress::new(100, 5);
        p.record(seconds(0.0), 0);
        p.record(seconds(10.0), 50);
        p.record(seconds(11.0), 30);
        assert_eq!((p.throughput(), p.done()), (None, 30));
        p.record(seconds(12.0), 40);
        assert_eq!(p.throughput(), Some(10.0));
    }

    #[test]
    fn extremes_do_not_panic() {
        let mut p = Progress::new(u64::MAX, 0);
        p.record(seconds(0.0), 0);
        p.record(seconds(1e9), 1);
        assert_eq!(p.eta(), None);
        assert_eq!(Progress::new(0, 1).percent(), 100.0);
    }
}
