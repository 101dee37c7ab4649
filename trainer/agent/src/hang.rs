//! Whether a rank that runs does anything: decided from what it says of itself.
//!
//! Pure: `now` is the time since the agent's start.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use contract::progress::Phase;

/// How often to look.
pub const LOOK: Duration = Duration::from_secs(1);
/// A rank that speaks the protocol says something every second or so; its silence for so long is no delay.
const SILENCE: Duration = Duration::from_secs(20);
/// How many of the last steps tell how long a step may take.
const STEPS: usize = 50;
/// A step is stuck when it takes so many times as long as the longest of the last ones,
const TIMES: u32 = 20;
/// but not before this time,
const LEAST: Duration = Duration::from_secs(60);
/// and in any case after that.
const MOST: Duration = Duration::from_mins(30);
/// Before anything is known of steps: the first fills caches and chooses algorithms.
const FIRST: Duration = Duration::from_mins(10);
/// An agent that did not look for so long was stopped itself, and its ranks with it.
const PAUSE: Duration = Duration::from_secs(5);

/// What a rank has said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub rank: u32,
    /// Whether its process runs and it has said something at all.
    pub speaks: bool,
    /// When it last said something.
    pub heard_at: Duration,
    /// Training steps done.
    pub step: u64,
    /// What it does.
    pub phase: Phase,
}

/// The ranks of one worker in one attempt.
#[derive(Debug, Default)]
pub struct HangWatch {
    looked_at: Option<Duration>,
    /// What was before this is no hang.
    since: Duration,
    ranks: BTreeMap<u32, Steps>,
}

#[derive(Debug)]
struct Steps {
    step: u64,
    changed_at: Duration,
    /// How long each of the last steps took.
    took: VecDeque<Duration>,
}

impl HangWatch {
    /// Looks at all ranks; names one that hangs, with what there is to say of it.
    pub fn look(
        &mut self,
        now: Duration,
        sightings: impl IntoIterator<Item = Sighting>,
    ) -> Option<(u32, String)> {
        if self.looked_at.is_some_and(|before| now > before + PAUSE) {
            self.since = now;
        }
        self.looked_at = Some(now);
        let mut hangs = None;
        for sighting in sightings {
            let found = self.judge(now, sighting);
            hangs = hangs.or(found.map(|text| (sighting.rank, text)));
        }
        hangs
    }

    fn judge(&mut self, now: Duration, sighting: Sighting) -> Option<String> {
        let Sighting { rank, step, .. } = sighting;
        if !sighting.speaks {
            self.ranks.remove(&rank);
            return None;
        }
        let silent = now.saturating_sub(sighting.heard_at.max(self.since));
        if silent >= SILENCE {
            return Some(format!(
                "rank {rank} has said nothing for {} s although its process runs: it is stopped, or hangs in the \
                 kernel, usually on a volume or a GPU driver of this node",
                silent.as_secs()
            ));
        }
        if sighting.phase != Phase::Training {
            self.ranks.remove(&rank);
            return None;
        }
        let known = self.ranks.entry(rank).or_insert(Steps {
            step,
            changed_at: now,
            took: VecDeque::new(),
        });
        if step > known.step {
            let steps = u32::try_from(step - known.step).unwrap_or(u32::MAX);
            known
                .took
                .push_back(now.saturating_sub(known.changed_at) / steps);
            if known.took.len() > STEPS {
                known.took.pop_front();
            }
            known.step = step;
            known.changed_at = now;
            return None;
        }
        // A run that goes back to its last checkpoint, after a loss that is not finite, takes those steps again.
        if step < known.step {
            known.step = step;
            known.changed_at = now;
            return None;
        }
        let longest = known.took.iter().max();
        let limit = longest.map_or(FIRST, |longest| (*longest * TIMES).clamp(LEAST, MOST));
        let stuck = now.saturating_sub(known.changed_at.max(self.since));
        (stuck >= limit).then(|| {
            let before = longest.map_or_else(String::new, |longest| {
                format!(", and the steps before took up to {:.1} s", longest.as_secs_f64())
            });
            format!(
                "rank {rank} has done no training step for {} s{before}: it waits for images, for another rank or for \
                 its device",
                stuck.as_secs()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Two ranks that say something each second and do a step in three; what is said of them.
    struct Play {
        watch: HangWatch,
        now: Duration,
        sightings: [Sighting; 2],
    }

    impl Play {
        fn new() -> Self {
            Self {
                watch: HangWatch::default(),
                now: Duration::ZERO,
                sightings: [0, 1].map(|rank| Sighting {
                    rank,
                    speaks: true,
                    heard_at: Duration::ZERO,
                    step: 100,
                    phase: Phase::Training,
                }),
            }
        }

        /// So many seconds pass; `live` says which ranks speak, and which go on.
        fn pass(&mut self, seconds: u32, live: [(bool, bool); 2]) -> Option<(u32, String)> {
            for _ in 0..seconds {
                self.now += SECOND;
                for (sighting, (speaks, works)) in self.sightings.iter_mut().zip(live) {
                    if speaks {
                        sighting.heard_at = self.now;
                    }
                    if works && self.now.as_secs().is_multiple_of(3) {
                        sighting.step += 1;
                    }
                }
                let found = self.watch.look(self.now, self.sightings);
                if found.is_some() {
                    return found;
                }
            }
            None
        }
    }

    const WELL: (bool, bool) = (true, true);

    #[test]
    fn a_silent_rank_hangs_after_twenty_seconds() {
        let mut play = Play::new();
        assert_eq!(None, play.pass(30, [WELL, WELL]));
        assert_eq!(None, play.pass(19, [WELL, (false, false)]));
        let (rank, text) = play.pass(1, [WELL, (false, false)]).expect("a hang");
        assert_eq!(1, rank);
        assert!(text.contains("said nothing for 20 s"), "{text}");
    }

    #[test]
    fn a_rank_that_speaks_and_does_nothing_hangs_by_the_measure_of_its_steps() {
        let mut play = Play::new();
        assert_eq!(None, play.pass(30, [WELL, WELL]));
        // Steps take 3 s: 60 s are 20 of them.
        assert_eq!(None, play.pass(59, [WELL, (true, false)]));
        let (rank, text) = play.pass(3, [WELL, (true, false)]).expect("a hang");
        assert_eq!(1, rank);
        assert!(text.contains("took up to 3.0 s"), "{text}");
    }

    #[test]
    fn a_run_that_goes_back_to_a_checkpoint_does_not_hang() {
        let mut play = Play::new();
        assert_eq!(None, play.pass(300, [WELL, WELL]));
        for sighting in &mut play.sightings {
            sighting.step = 100;
        }
        assert_eq!(None, play.pass(300, [WELL, WELL]));
        // It may hang all the same.
        play.sightings[1].step = 100;
        assert_eq!(None, play.pass(60, [WELL, (true, false)]));
        assert!(play.pass(3, [WELL, (true, false)]).is_some());
    }

    #[test]
    fn the_first_step_and_other_phases_take_their_time() {
        let mut play = Play::new();
        assert_eq!(None, play.pass(599, [(true, false), (true, false)]));
        assert!(play.pass(3, [(true, false), (true, false)]).is_some());
        let mut play = Play::new();
        assert_eq!(None, play.pass(30, [WELL, WELL]));
        for sighting in &mut play.sightings {
            sighting.phase = Phase::Evaluating;
        }
        assert_eq!(None, play.pass(5000, [(true, false), (true, false)]));
    }

    #[test]
    fn a_program_that_never_spoke_is_left_alone() {
        let mut play = Play::new();
        for sighting in &mut play.sightings {
            sighting.speaks = false;
        }
        assert_eq!(None, play.pass(5000, [(false, false), (false, false)]));
    }

    #[test]
    fn an_agent_that_was_stopped_itself_does_not_blame_its_ranks() {
        let mut play = Play::new();
        assert_eq!(None, play.pass(30, [WELL, WELL]));
        play.now += 100 * SECOND;
        assert_eq!(None, play.pass(19, [(false, false), (false, false)]));
        assert!(play.pass(2, [(false, false), (false, false)]).is_some());
    }
}
