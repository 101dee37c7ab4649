//! Finds the worker that the others wait for.
//!
//! Ranks take steps together, so a slow one has the same step time as all. What differs is how long each waits
//! for the others in collectives: the slow one hardly, the others as long as it is slower.

use contract::progress::Straggler;

use super::message::Pace;

/// Looks in a row that must find the same worker; there is one a second.
const LOOKS: u32 = 15;
/// The part of a step that the others must wait longer than it.
const SHARE: f64 = 0.15;

/// Remembers whom the last looks found.
#[derive(Debug, Default)]
pub struct StragglerWatch {
    suspect: Option<u32>,
    looks: u32,
    /// Steps of all workers at the last look.
    steps: u64,
    found: Option<Straggler>,
}

impl StragglerWatch {
    /// The worker that the others wait for, when they have for a while. `paces` has one entry for each worker, without
    /// a value for those that have done no step.
    pub fn look(&mut self, paces: &[Option<Pace>]) -> Option<Straggler> {
        let steps = paces.iter().flatten().map(|pace| pace.steps).sum();
        if steps == self.steps {
            // Nothing new is known: an evaluation, for example.
            return self.found.clone();
        }
        self.steps = steps;
        let found = slowest(paces);
        let worker = found.as_ref().map(|straggler| straggler.worker);
        if worker.is_none() || worker != self.suspect {
            self.suspect = worker;
            self.looks = 0;
        }
        self.looks = self.looks.saturating_add(1);
        self.found = found.filter(|_| self.looks >= LOOKS);
        self.found.clone()
    }
}

/// The worker that waits least, when the others wait much longer.
fn slowest(paces: &[Option<Pace>]) -> Option<Straggler> {
    let mut known: Vec<(u32, Pace)> = Vec::new();
    for (worker, pace) in (0..).zip(paces) {
        known.push((worker, (*pace)?));
    }
    known.sort_by_key(|(_, pace)| pace.waited_us);
    let ((worker, least), others) = known.split_first()?;
    // The lower of two in the middle: one worker that waits long is not the rest.
    let (_, median) = others.get(others.len().checked_sub(1)? / 2)?;
    let waited_us = median.waited_us.saturating_sub(least.waited_us);
    let share = waited_us as f64 / least.step_us.max(1) as f64;
    (share >= SHARE).then(|| Straggler {
        worker: *worker,
        rank: least.rank,
        step_seconds: least.step_us as f64 / 1e6,
        waited_seconds: waited_us as f64 / 1e6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of ranks 0, 1 and so on, which wait so many milliseconds of each second.
    fn paces(waited_ms: &[u64]) -> Vec<Option<Pace>> {
        let pace = |(rank, waited_ms): (u32, &u64)| {
            Some(Pace {
                rank,
                steps: 0,
                step_us: 1_000_000,
                waited_us: waited_ms * 1000,
            })
        };
        (0..).zip(waited_ms).map(pace).collect()
    }

    #[test]
    fn it_is_who_hardly_waits_while_the_others_do() {
        let found = slowest(&paces(&[400, 10, 380])).expect("worker 1");
        assert_eq!((1, 1), (found.worker, found.rank));
        assert!((found.waited_seconds - 0.37).abs() < 1e-9, "{found:?}");
        assert_eq!(None, slowest(&paces(&[100, 20, 90])));
        // One that waits long while the others do not is fast; nobody is slow.
        assert_eq!(None, slowest(&paces(&[400, 10, 20])));
        assert_eq!(None, slowest(&[]));
        assert_eq!(None, slowest(&paces(&[0])));
        let mut one_unknown = paces(&[0, 500, 500]);
        one_unknown.push(None);
        assert_eq!(None, slowest(&one_unknown));
    }

    #[test]
    fn it_takes_a_while_and_one_good_look_clears_it() {
        let at = |step: u64, waited_ms: &[u64]| {
            let mut paces = paces(waited_ms);
            paces
                .iter_mut()
                .flatten()
                .for_each(|pace| pace.steps = step);
            paces
        };
        let (slow, even) = ([400, 10], [40, 10]);
        let mut watch = StragglerWatch::default();
        let first = at(1, &slow);
        // Without a new step, a look tells nothing.
        for _ in 0..2 * LOOKS {
            assert_eq!(None, watch.look(&first));
        }
        for step in 2..u64::from(LOOKS) {
            assert_eq!(None, watch.look(&at(step, &slow)));
        }
        let last = at(LOOKS.into(), &slow);
        assert!(watch.look(&last).is_some());
        assert!(watch.look(&last).is_some());
        assert_eq!(None, watch.look(&at(50, &even)));
        assert_eq!(None, watch.look(&at(51, &slow)));
    }
}
