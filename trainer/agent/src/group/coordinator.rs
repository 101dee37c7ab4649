//! Decides for all workers of a job: standings in, one order out.
//!
//! ```text
//!             all are there            a failure        its cause is known    all have ended
//!  Gathering ───────────────> Running ───────────> Settling ───────────> Stopping ──┐
//!      │   ^                   │  ^                                                  │
//!      │   │                   │  └──────────── next attempt ────────────────────────┤
//!      │   └───────────────────│──────────────── a worker is gone ───────────────────┤
//!      │ too late              v  all succeeded                                      │
//!  Finished <──────────────────┴──────────────── not in place ───────────────────────┘
//! ```
//!
//! A worker that is gone is awaited: its successor, a pod with a higher number, joins in its place.
//!
//! Nothing here knows a clock or a network. `now` is the time since the agent's start.

mod cause;
mod gathering;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use contract::attempt::Attempt;
use contract::env::RENDEZVOUS_TIMEOUT;
use contract::exit::FailureReason;
use contract::failure_policy::{FailureAction, FailurePolicy};
use contract::progress::{LostWorker, RankFailure};

use super::message::{Order, OrderKind, Pace, Phase, Standing};

/// How long the cause of a failure that is only an echo is awaited.
const SETTLE: Duration = Duration::from_millis(500);
/// The same when a worker was asked to stop: the ranks agree on a step, and one of them writes a checkpoint.
const SETTLE_STOPPED: Duration = Duration::from_secs(30);
/// How long the ranks of a worker may take to be killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How long a worker may say nothing, or be without a connection, until it counts as lost.
pub const SILENCE: Duration = Duration::from_secs(10);
/// The same once a rank has failed: its end and the connection's have one cause, mostly.
const SILENCE_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// A coordinator that looked at nothing for so long was stopped itself, or its machine.
const PAUSE: Duration = Duration::from_secs(5);
/// Workers of a job start within this, and find each other.
const TIME_TO_JOIN: Duration = Duration::from_secs(10);
/// Why a worker leaves that was asked to.
const ASKED: &str = "it was asked to stop";
/// Why a worker leaves that was not.
const STUCK: &str = "one of its processes does not end";
/// So many restarts in a row that ended before a training step call for other pods.
const MAX_FRUITLESS: u32 = 2;

/// What a user allows.
#[derive(Clone, Debug)]
pub struct Rules {
    /// What follows which failure.
    pub policy: FailurePolicy,
    /// How many restarts are left.
    pub restarts_left: u32,
}

/// The group as its coordinator sees it.
#[derive(Debug)]
pub struct Coordinator {
    rules: Rules,
    members: Vec<Member>,
    stage: Stage,
    order: Order,
    /// Of the present attempt, in the order in which they were heard of.
    failures: Vec<RankFailure>,
    /// Workers of the present attempt that are gone.
    lost: BTreeMap<u32, LostWorker>,
    /// Workers that left the present attempt by no fault of its ranks: out of touch, or asked to end. What fails after
    /// that fails for it: a program that is not ours has no word for a peer that is gone.
    departed: BTreeSet<u32>,
    /// Since when a worker that was asked to end has ended well while others may wait for it.
    left_well: Option<Duration>,
    looked_at: Duration,
    fruitless: u32,
    restarted_after: Option<RankFailure>,
    /// Whether this coordinator has begun an attempt.
    has_begun: bool,
    /// The attempt that it was to begin with.
    founded: Attempt,
}

#[derive(Clone, Debug, Default)]
struct Member {
    /// `None` until it joins.
    standing: Option<Standing>,
    linked: bool,
    /// When it last said something.
    heard_at: Duration,
    /// Which pod of the worker it is.
    number: u32,
    /// A later pod of the worker, which takes its place when it has ended.
    successor: Option<(u32, Standing)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Gathering { until: Duration },
    Running,
    Settling { since: Duration },
    Stopping { until: Duration },
    Finished,
}

impl Coordinator {
    /// A group of so many workers that begins with `attempt`.
    pub fn new(workers: u32, attempt: Attempt, rules: Rules, now: Duration) -> Self {
        Self {
            rules,
            members: vec![Member::default(); workers as usize],
            stage: Stage::Gathering {
                until: now + RENDEZVOUS_TIMEOUT,
            },
            order: Order {
                attempt,
                kind: OrderKind::Stop,
                because: None,
            },
            failures: Vec::new(),
            lost: BTreeMap::new(),
            departed: BTreeSet::new(),
            left_well: None,
            looked_at: now,
            fruitless: 0,
            restarted_after: None,
            has_begun: false,
            founded: attempt,
        }
    }

    /// What all workers are to do now.
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Which pod of each worker takes part. Another one must start no rank: there would be two of it.
    pub fn seats(&self) -> Vec<Option<u32>> {
        let seats = self.members.iter();
        seats
            .map(|member| member.standing.as_ref().map(|_| member.number))
            .collect()
    }

    /// A pod was made when so many restarts were left: others of the job may have used up some since ours was.
    pub fn allow(&mut self, restarts_left: u32) {
        self.rules.restarts_left = self.rules.restarts_left.min(restarts_left);
    }

    /// How fast each worker goes.
    pub fn paces(&self) -> Vec<Option<Pace>> {
        let attempt = self.order.attempt;
        let standings = self.members.iter().map(|member| member.standing.as_ref());
        standings
            .map(|standing| standing.filter(|s| s.attempt == attempt)?.pace)
            .collect()
    }

    /// The workers whose successors are awaited. While ranks are still being stopped that is not decided.
    pub fn missing(&self) -> Vec<LostWorker> {
        let missing = |worker: &&LostWorker| {
            let member = self.members.get(worker.worker as usize);
            member.is_some_and(|member| member.standing.is_none())
        };
        if !matches!(self.stage, Stage::Gathering { .. }) {
            return Vec::new();
        }
        self.lost.values().filter(missing).cloned().collect()
    }

    /// The workers that have not joined, once they had time to.
    pub fn absent(&self, now: Duration) -> Vec<u32> {
        let Stage::Gathering { until } = self.stage else {
            return Vec::new();
        };
        if now + RENDEZVOUS_TIMEOUT < until + TIME_TO_JOIN {
            return Vec::new();
        }
        let members = (0..).zip(&self.members);
        members
            .filter(|(_, member)| member.standing.is_none())
            .map(|(worker, _)| worker)
            .collect()
    }

    /// A pod of a worker said how it stands.
    pub fn heard(&mut self, now: Duration, worker: u32, number: u32, standing: Standing) {
        let Some(member) = self.members.get_mut(worker as usize) else {
            return;
        };
        if number > member.number && member.standing.is_some() {
            let stops = member.standing.as_ref().is_some_and(|old| old.leaving);
            member.successor = Some((number, standing));
            // What was asked to stop may still be needed for the checkpoint that all begin with.
            if !stops || matches!(self.stage, Stage::Gathering { .. }) {
                self.depart(worker, "another pod took its place");
            }
        } else if number >= member.number && !(standing.leaving && self.lost.contains_key(&worker))
        {
            // One that is given up, and leaves, is there no more, though it may still speak.
            member.number = number;
            member.linked = true;
            member.heard_at = now;
            member.standing = Some(standing);
        }
        self.succeed(now);
        self.tick(now);
    }

    /// The connection of this pod of a worker ended.
    pub fn unlinked(&mut self, now: Duration, worker: u32, number: u32) {
        if let Some(member) = self.members.get_mut(worker as usize) {
            if member.number == number {
                member.linked = false;
                member.heard_at = now;
            }
            member.successor.take_if(|(later, _)| *later == number);
        }
        self.tick(now);
    }

    /// Lets successors take the places of those that are gone.
    fn succeed(&mut self, now: Duration) {
        for member in &mut self.members {
            if member.standing.is_none()
                && let Some((number, standing)) = member.successor.take()
            {
                *member = Member {
                    standing: Some(standing),
                    linked: true,
                    heard_at: now,
                    number,
                    successor: None,
                };
            }
        }
    }

    /// When [`Self::tick`] is due if nothing is heard before; `None`: never.
    pub fn deadline(&self) -> Option<Duration> {
        let stage = match self.stage {
            Stage::Finished => return None,
            Stage::Running => self.left_well.map(|since| since + SETTLE_STOPPED),
            Stage::Settling { since } => Some(since + self.settle()),
            Stage::Gathering { until } | Stage::Stopping { until } => Some(until),
        };
        let silences = self
            .members
            .iter()
            .filter(|member| self.is_awaited(member))
            .map(|member| member.heard_at + self.patience(member));
        silences.chain(stage).min()
    }

    /// Looks at everything again.
    pub fn tick(&mut self, now: Duration) {
        self.note_silence(now);
        self.succeed(now);
        self.note_failures();
        self.note_leavers(now);
        match self.stage {
            Stage::Finished => {}
            Stage::Gathering { until } => self.gather(now, until),
            Stage::Running | Stage::Settling { .. } | Stage::Stopping { .. } => {
                if self.all_ended() {
                    self.decide();
                } else {
                    self.escalate(now);
                }
            }
        }
    }

    fn begin(&mut self, attempt: Attempt) {
        self.failures.clear();
        self.lost.clear();
        self.forget_leavers();
        self.has_begun = true;
        self.stage = Stage::Running;
        self.order = Order {
            attempt,
            kind: OrderKind::Run,
            because: self.restarted_after.clone(),
        };
    }

    /// Workers that were silent for too long are lost.
    fn note_silence(&mut self, now: Duration) {
        if now > self.looked_at + PAUSE {
            for member in &mut self.members {
                member.heard_at = now;
            }
        }
        self.looked_at = now;
        let mut silent = Vec::new();
        for (worker, member) in (0..).zip(&self.members) {
            if self.is_awaited(member) && member.heard_at + self.patience(member) <= now {
                silent.push((worker, member.linked));
            }
        }
        for (worker, linked) in silent {
            let what = if linked {
                format!("it said nothing for {} s", SILENCE.as_secs())
            } else {
                "its connection ended, and it did not come back".to_owned()
            };
            self.depart(worker, &what);
        }
    }

    /// Whether its silence would mean something. Who had to leave, and has, is not missed.
    fn is_awaited(&self, member: &Member) -> bool {
        let standing = member.standing.as_ref();
        standing.is_some_and(|standing| !(standing.leaving && self.has_ended(standing)))
    }

    /// A worker is gone, and not because of its ranks.
    fn depart(&mut self, worker: u32, what: &str) {
        self.departed.insert(worker);
        self.lose(worker, what);
    }

    fn lose(&mut self, worker: u32, what: &str) {
        let Some(member) = self.members.get_mut(worker as usize) else {
            return;
        };
        member.standing = None;
        member.linked = false;
        let number = member.number;
        let message = format!("the others lost touch with it: {what}");
        let gathers = matches!(self.stage, Stage::Gathering { .. });
        // While workers gather, whoever leaves may come back, or somebody in its place; nobody asks for one before
        // they ran together.
        let first_time = self.lost.is_empty() && self.founded.restart == 0;
        if self.stage != Stage::Finished && !(gathers && first_time) {
            let gone = LostWorker {
                worker,
                number,
                message: message.clone(),
            };
            self.lost.insert(worker, gone);
        }
        if self.stage != Stage::Finished && !gathers {
            self.failures
                .push(lost(worker, FailureReason::PeerLost, message));
        }
    }

    fn note_failures(&mut self) {
        let attempt = self.order.attempt;
        for member in &self.members {
            if let Some(standing) = &member.standing
                && standing.attempt == attempt
                && let Some(failure) = &standing.failure
                && !self.failures.contains(failure)
            {
                if has_strayed(failure) {
                    self.departed.insert(failure.worker);
                }
                self.failures.push(failure.clone());
            }
        }
    }

    /// Whether every worker that is left has no rank of the present attempt any more.
    fn all_ended(&self) -> bool {
        let left = (0..)
            .zip(&self.members)
            .filter(|(worker, _)| !self.lost.contains_key(worker));
        left.map(|(_, member)| member.standing.as_ref())
            .all(|standing| standing.is_some_and(|standing| self.has_ended(standing)))
    }

    fn has_ended(&self, standing: &Standing) -> bool {
        standing.attempt == self.order.attempt
            && match standing.phase {
                Phase::Running => false,
                Phase::Ended => true,
                // It heard of the end before it began, or has yet to begin.
                Phase::Waiting => matches!(self.stage, Stage::Stopping { .. }),
            }
    }

    /// Lets failures have their consequences while ranks run.
    fn escalate(&mut self, now: Duration) {
        if self.failures.is_empty() {
            return;
        }
        if let Stage::Stopping { until } = self.stage {
            if until <= now {
                self.lose_who_does_not_stop();
            }
            return;
        }
        let since = match self.stage {
            Stage::Settling { since } => since,
            _ => self.left_well.unwrap_or(now),
        };
        let caused = self.failures.iter().any(|failure| !self.is_echo(failure));
        let strayed = self.failures.iter().any(has_strayed);
        if caused || strayed || !self.lost.is_empty() || since + self.settle() <= now {
            self.stage = Stage::Stopping {
                until: now + STOP_LIMIT,
            };
            self.order = Order {
                kind: OrderKind::Stop,
                because: self.cause(),
                ..self.order.clone()
            };
        } else {
            self.stage = Stage::Settling { since };
        }
    }

    fn lose_who_does_not_stop(&mut self) {
        let running = (0..).zip(&self.members).filter(|(_, member)| {
            let standing = member.standing.as_ref();
            standing.is_some_and(|standing| !self.has_ended(standing))
        });
        let running: Vec<u32> = running.map(|(worker, _)| worker).collect();
        for worker in running {
            let what = format!("its ranks did not end within {} s", STOP_LIMIT.as_secs());
            self.lose(worker, &what);
        }
        if self.all_ended() {
            self.decide();
        }
    }

    /// No rank is left: the next attempt, or the end.
    fn decide(&mut self) {
        let Some(cause) = self.cause() else {
            self.finish(None);
            return;
        };
        let standings = || {
            self.members
                .iter()
                .filter_map(|member| member.standing.as_ref())
        };
        let trained = standings().any(|standing| standing.trained);
        self.fruitless = if trained { 0 } else { self.fruitless + 1 };
        // Its network, or this pod's, was away for a while: nobody's fault.
        let free = has_strayed(&cause);
        let in_place = self.action(&cause) == FailureAction::RestartInPlace
            && cause.reason != FailureReason::Stopped
            && self.lost.is_empty()
            && !standings().any(|standing| standing.leaving)
            && (free || self.rules.restarts_left > 0)
            && self.fruitless <= MAX_FRUITLESS;
        if in_place {
            self.rules.restarts_left -= u32::from(!free);
            self.restarted_after = Some(cause);
            self.begin(self.order.attempt.next_restart());
        } else if self.may_wait(&cause) {
            self.wait_for_successors(cause);
        } else {
            self.finish(Some(cause));
        }
    }

    /// Whether it is enough that the workers that are gone are replaced: nothing else failed, and somebody is left to
    /// wait for them. That may be others than worker 0, which find the coordinator of its successor.
    fn may_wait(&self, cause: &RankFailure) -> bool {
        let gone = |(worker, member): (u32, &Member)| {
            let leaving = member.standing.as_ref().is_some_and(|s| s.leaving);
            leaving || self.lost.contains_key(&worker)
        };
        let members = || (0..).zip(&self.members);
        let only_gone = match cause.reason {
            FailureReason::PeerLost => cause.rank.is_none(),
            FailureReason::Stopped => true,
            _ => self.is_echo(cause),
        };
        members().any(gone)
            && !members().all(gone)
            && only_gone
            && self.action(cause) != FailureAction::FailJob
            && self.fruitless <= MAX_FRUITLESS
    }

    fn finish(&mut self, because: Option<RankFailure>) {
        self.stage = Stage::Finished;
        self.order = Order {
            kind: OrderKind::Finish,
            because,
            ..self.order.clone()
        };
    }

    fn settle(&self) -> Duration {
        let stopped = |failure: &RankFailure| failure.reason == FailureReason::Stopped;
        if self.failures.iter().any(stopped) || !self.departed.is_empty() {
            SETTLE_STOPPED
        } else {
            SETTLE
        }
    }

    fn patience(&self, member: &Member) -> Duration {
        if !member.linked && !self.failures.is_empty() {
            SILENCE_AFTER_FAILURE
        } else {
            SILENCE
        }
    }
}

/// Whether a worker tells that it stopped its ranks since it was out of touch, or is lost.
fn has_strayed(failure: &RankFailure) -> bool {
    failure.rank.is_none() && failure.reason == FailureReason::PeerLost
}

/// A failure of a whole worker.
pub fn lost(worker: u32, reason: FailureReason, message: String) -> RankFailure {
    RankFailure {
        worker,
        rank: None,
        reason,
        exit_code: reason.exit_code(),
        message,
    }
}
