//! What the agent does about what happens to its ranks: events in, actions out.
//!
//! ```text
//!              a rank fails, or SIGTERM            time is up              time is up
//!   Running ─────────────────────────────> Waiting ──────────> Terminating ──────────> Killing
//!      │                                      │  SIGTERM to groups  │  SIGKILL to groups  │
//!      └──────── all ranks ended ─────────────┴─────────────────────┴─────────────────────┘
//!                                      Finish(verdict)
//! ```
//!
//! A rank has ended when its process is gone **and** what it wrote has been read, or nobody wants to
//! wait for that any longer: its last report and its reason may still lie in the socket.
//!
//! Nothing here knows a clock, a process or a socket. `now` is the time since the agent's start.

mod ending;
#[cfg(test)]
mod tests;

pub use ending::{Failure, ProcessEnd, signal_name};

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use contract::exit::FailureReason;
use contract::protocol::RankResult;
use rustix::process::Signal;

/// How long a rank that never connected is given to have its lines found in the socket's backlog.
const BACKLOG_GRACE: Duration = Duration::from_millis(200);
/// How long what an ended rank wrote is read on, when another process holds its pipes or socket open.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// How long the kernel is given to end a process after SIGKILL.
const REAP_GRACE: Duration = Duration::from_secs(5);

/// How patient the agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the request to stop until SIGTERM: a step, a checkpoint and the end of the process.
    pub stop: Duration,
    /// From the first failure until SIGTERM for the other ranks: they notice that a peer is lost.
    pub peers: Duration,
    /// From SIGTERM until SIGKILL.
    pub kill: Duration,
}

/// Something that happened. `rank` is always the global rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The rank said hello.
    Connected {
        /// Who.
        rank: u32,
    },
    /// The rank's connection ended; all it said has been taken in.
    Disconnected {
        /// Who.
        rank: u32,
    },
    /// The rank said how it ends.
    Said {
        /// Who.
        rank: u32,
        /// What it said.
        result: RankResult,
    },
    /// The rank's pipes are closed, and all it wrote has been passed on.
    OutputClosed {
        /// Who.
        rank: u32,
    },
    /// The rank's process is gone.
    Exited {
        /// Who.
        rank: u32,
        /// How.
        end: ProcessEnd,
    },
    /// The rank's process could not be started.
    NotStarted {
        /// Why.
        failure: Failure,
    },
    /// The worker is asked to end (SIGTERM, SIGINT). The second time means: at once.
    StopRequested,
    /// A rank does nothing any more.
    Hung {
        /// Who, and how that is known.
        failure: Failure,
    },
    /// The group stops this attempt: at once, and that is no rank's fault.
    Interrupt,
    /// The agent got a signal that is meant for the ranks.
    Forward(Signal),
    /// Nothing happened, but [`Supervisor::deadline`] has come.
    Tick,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the rank over its connection to finish the step, write a checkpoint and end.
    AskToStop {
        /// Whom.
        rank: u32,
    },
    /// Send a signal to the rank's process group.
    Signal {
        /// To whom.
        rank: u32,
        /// Which.
        signal: Signal,
    },
    /// Every rank has ended; this is the last action.
    Finish(Verdict),
}

/// How the worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The failure that explains it; `None` is success.
    pub failure: Option<Failure>,
    /// Whether the group stopped ranks before they had ended by themselves.
    pub interrupted: bool,
    /// Whether a process is left that SIGKILL does not end.
    pub left_behind: bool,
    /// What the first rank said at its successful end; empty when it said nothing.
    pub last_words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Never,
    Open,
    Closed,
}

#[derive(Debug)]
struct Rank {
    connection: Connection,
    output_open: bool,
    said: Option<RankResult>,
    /// The strongest signal that the agent sent of its own accord.
    signalled: Option<Signal>,
    exit: Option<(ProcessEnd, Duration)>,
    ended: bool,
}

impl Rank {
    fn is_running(&self) -> bool {
        self.exit.is_none() && !self.ended
    }

    /// Until when what it wrote may still come in; `None` while its process runs.
    fn drained_at(&self) -> Option<Duration> {
        let (_, exited) = self.exit?;
        let grace = match self.connection {
            _ if self.output_open => DRAIN_GRACE,
            Connection::Never => BACKLOG_GRACE,
            Connection::Open => DRAIN_GRACE,
            Connection::Closed => Duration::ZERO,
        };
        Some(exited + grace)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Waiting { until: Duration },
    Terminating { until: Duration },
    Killing { until: Duration },
    Finished,
}

impl Stage {
    fn until(self) -> Option<Duration> {
        match self {
            Self::Running | Self::Finished => None,
            Self::Waiting { until } | Self::Terminating { until } | Self::Killing { until } => {
                Some(until)
            }
        }
    }
}

/// The state of all ranks of one worker.
#[derive(Debug)]
pub struct Supervisor {
    patience: Patience,
    ranks: BTreeMap<u32, Rank>,
    stage: Stage,
    stop_requested: bool,
    interrupted: bool,
    left_behind: bool,
    failure: Option<Failure>,
}

impl Supervisor {
    /// Ranks that are about to be started.
    pub fn new(ranks: Range<u32>, patience: Patience) -> Self {
        let ranks = ranks.map(|rank| {
            let fresh = Rank {
                connection: Connection::Never,
                output_open: true,
                said: None,
                signalled: None,
                exit: None,
                ended: false,
            };
            (rank, fresh)
        });
        Self {
            patience,
            ranks: ranks.collect(),
            stage: Stage::Running,
            stop_requested: false,
            interrupted: false,
            left_behind: false,
            failure: None,
        }
    }

    /// When [`Event::Tick`] is due if nothing happens before; `None`: never.
    pub fn deadline(&self) -> Option<Duration> {
        let drains = self
            .ranks
            .values()
            .filter(|rank| !rank.ended)
            .filter_map(Rank::drained_at);
        drains.chain(self.stage.until()).min()
    }

    /// The failure that explains the others, as far as is known.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Takes an event in and says what to do, in this order.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.stage == Stage::Finished {
            return actions;
        }
        match event {
            Event::Connected { rank } => self.connected(rank, &mut actions),
            Event::Disconnected { rank } => {
                if let Some(rank) = self.ranks.get_mut(&rank) {
                    rank.connection = Connection::Closed;
                }
            }
            Event::Said { rank, result } => self.said(now, rank, result),
            Event::OutputClosed { rank } => {
                if let Some(rank) = self.ranks.get_mut(&rank) {
                    rank.output_open = false;
                }
            }
            Event::Exited { rank, end } => {
                if let Some(rank) = self.ranks.get_mut(&rank) {
                    rank.exit = Some((end, now));
                }
            }
            Event::NotStarted { failure } => self.not_started(now, failure),
            Event::StopRequested => self.stop_requested(now, &mut actions),
            Event::Hung { failure } => self.hung(now, failure, &mut actions),
            Event::Interrupt => {
                self.interrupted |= self.ranks.values().any(Rank::is_running);
                self.kill_running(now, &mut actions);
            }
            Event::Forward(signal) => self.signal_running(signal, &mut actions),
            Event::Tick => {}
        }
        self.end_drained_ranks(now);
        self.escalate(now, &mut actions);
        if self.ranks.values().all(|rank| rank.ended) {
            self.stage = Stage::Finished;
            actions.push(Action::Finish(self.verdict()));
        }
        actions
    }

    fn verdict(&self) -> Verdict {
        let first = self.ranks.values().next();
        let said = first.and_then(|rank| rank.said.as_ref());
        Verdict {
            failure: self.failure.clone(),
            interrupted: self.interrupted,
            left_behind: self.left_behind,
            last_words: said
                .filter(|result| result.reason.is_none())
                .map(|result| result.message.clone())
                .unwrap_or_default(),
        }
    }

    fn connected(&mut self, rank: u32, actions: &mut Vec<Action>) {
        let Some(slot) = self.ranks.get_mut(&rank) else {
            return;
        };
        slot.connection = Connection::Open;
        if self.stop_requested && slot.is_running() {
            actions.push(Action::AskToStop { rank });
        }
    }

    fn said(&mut self, now: Duration, rank: u32, result: RankResult) {
        let Some(slot) = self.ranks.get_mut(&rank) else {
            return;
        };
        let failure = ending::judge_result(rank, &result);
        slot.said = Some(result);
        if let Some(failure) = failure {
            self.note(now, failure);
        }
    }

    fn not_started(&mut self, now: Duration, failure: Failure) {
        if let Some(rank) = self.ranks.get_mut(&failure.rank) {
            rank.ended = true;
        }
        self.note(now, failure);
        // Its peers would look for a rank that never was: nothing is gained by waiting for them.
        if matches!(self.stage, Stage::Running | Stage::Waiting { .. }) {
            self.stage = Stage::Waiting { until: now };
        }
    }

    /// Ends all ranks: who hangs does not listen, and the others wait for it.
    fn hung(&mut self, now: Duration, failure: Failure, actions: &mut Vec<Action>) {
        let running = |rank| self.ranks.get(rank).is_some_and(Rank::is_running);
        if running(&failure.rank) && !matches!(self.stage, Stage::Killing { .. }) {
            self.note(now, failure);
            self.kill_running(now, actions);
        }
    }

    fn stop_requested(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if self.stop_requested {
            self.kill_running(now, actions);
            return;
        }
        self.stop_requested = true;
        for (&rank, slot) in &mut self.ranks {
            if !slot.is_running() {
                continue;
            }
            if slot.connection == Connection::Open {
                actions.push(Action::AskToStop { rank });
            } else {
                slot.signalled = Some(Signal::TERM);
                actions.push(Action::Signal {
                    rank,
                    signal: Signal::TERM,
                });
            }
        }
        self.wait_at_most(now, self.patience.stop);
    }

    fn end_drained_ranks(&mut self, now: Duration) {
        let mut failures = Vec::new();
        for (&rank, slot) in &mut self.ranks {
            let drained = slot.drained_at().is_some_and(|at| at <= now);
            if let (Some((end, _)), true, false) = (slot.exit, drained, slot.ended) {
                slot.ended = true;
                failures.extend(ending::judge(rank, end, slot.said.as_ref(), slot.signalled));
            }
        }
        for failure in failures {
            // What the group stops is no failure, and whatever a rank says of it neither.
            if !(self.interrupted && failure.reason == FailureReason::Stopped) {
                self.note(now, failure);
            }
        }
    }

    /// Remembers the first failure, unless it was an echo and this one is not; and gives the other
    /// ranks a limited time.
    fn note(&mut self, now: Duration, failure: Failure) {
        let patience = match failure.reason {
            // All ranks stop at the same step, but only one of them writes the checkpoint.
            FailureReason::Stopped => self.patience.stop,
            _ => self.patience.peers,
        };
        self.wait_at_most(now, patience);
        let explains_better = match &self.failure {
            None => true,
            Some(first) => first.reason.is_echo() && !failure.reason.is_echo(),
        };
        if explains_better {
            self.failure = Some(failure);
        }
    }

    fn wait_at_most(&mut self, now: Duration, patience: Duration) {
        let until = now + patience;
        self.stage = match self.stage {
            Stage::Running => Stage::Waiting { until },
            Stage::Waiting { until: earlier } => Stage::Waiting {
                until: until.min(earlier),
            },
            later => later,
        };
    }

    fn escalate(&mut self, now: Duration, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Waiting { until } if until <= now => {
                self.mark_running(Signal::TERM);
                self.signal_running(Signal::TERM, actions);
                self.stage = Stage::Terminating {
                    until: now + self.patience.kill,
                };
            }
            Stage::Terminating { until } if until <= now => self.kill_running(now, actions),
            Stage::Killing { until } if until <= now => self.give_up(now),
            _ => {}
        }
    }

    fn kill_running(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.mark_running(Signal::KILL);
        self.signal_running(Signal::KILL, actions);
        if !matches!(self.stage, Stage::Killing { .. }) {
            self.stage = Stage::Killing {
                until: now + REAP_GRACE,
            };
        }
    }

    fn mark_running(&mut self, signal: Signal) {
        for slot in self.ranks.values_mut().filter(|slot| slot.is_running()) {
            slot.signalled = Some(signal);
        }
    }

    fn signal_running(&self, signal: Signal, actions: &mut Vec<Action>) {
        let running = self.ranks.iter().filter(|(_, slot)| slot.is_running());
        actions.extend(running.map(|(&rank, _)| Action::Signal { rank, signal }));
    }

    /// Leaves processes behind that SIGKILL does not end.
    fn give_up(&mut self, now: Duration) {
        let stuck: Vec<u32> = self
            .ranks
            .iter()
            .filter(|(_, slot)| slot.is_running())
            .map(|(&rank, _)| rank)
            .collect();
        self.left_behind |= !stuck.is_empty();
        for rank in stuck {
            if let Some(slot) = self.ranks.get_mut(&rank) {
                slot.ended = true;
            }
            let message = format!(
                "rank {rank} did not end within {} s of SIGKILL: it hangs in the kernel, usually on \
                 a volume or a GPU driver of this node",
                REAP_GRACE.as_secs()
            );
            self.note(
                now,
                Failure::explained(rank, FailureReason::Killed, message),
            );
        }
    }
}
