//! This worker's ranks from attempt to attempt: does what the group orders and the supervisor says.

use std::sync::Arc;
use std::time::Duration;

use contract::attempt::Attempt;
use contract::env::RENDEZVOUS_TIMEOUT;
use contract::exit::{FailureReason, Retry};
use contract::progress::RankFailure;
use contract::protocol::AgentMessage;
use tokio::select;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout, timeout_at};
use tracing::{error, info, warn};

use crate::group::coordinator::{SILENCE, lost};
use crate::group::{Membership, Order, OrderKind, Phase, Standing};
use crate::hang::{HangWatch, LOOK};
use crate::outcome::Outcome;
use crate::place::Place;
use crate::ranks::{Launch, Ranks};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::signals::{Caught, Signals};
use crate::socket::Hub;
use crate::supervise::{Action, Event, Failure, Supervisor, Verdict, signal_name};
use crate::{error_chain, telemetry};

/// How long a worker whose ranks have ended for good waits for a coordinator that it does not reach.
const OUT_OF_TOUCH_LIMIT: Duration = Duration::from_secs(30);
/// How much longer than the coordinator a worker waits for the order to begin.
const FIRST_ORDER_GRACE: Duration = Duration::from_secs(5);

/// How long the kernel is given to end what ranks left behind, less than the coordinator gives a worker to stop; the same
/// in a pod that goes anyway; and how often that is looked at.
const LEFTOVERS_END: Duration = Duration::from_secs(10);
const LEFTOVERS_END_OF_POD: Duration = Duration::from_secs(5);
const LEFTOVERS_LOOK: Duration = Duration::from_millis(10);

/// How long a worker that was asked to end waits for the last order.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long worker 0, from when it was asked to end: the others may still write what all begin with, and without the
/// coordinator nobody grants them the time. What is left of the pod's grace is for the keeper.
const GOODBYE_OF_COORDINATOR: Duration = Duration::from_secs(20);

/// A worker and the hands it has.
pub struct Worker<'a> {
    settings: &'a Settings,
    /// In the present attempt.
    place: Place,
    /// The number under which the file of decoded images is open.
    cache: Option<i32>,
    shared: Arc<Shared>,
    hub: Arc<Hub>,
    membership: Membership,
    ranks: Ranks,
    supervisor: Supervisor,
    /// How the present attempt ended here, if it has.
    end: Option<End>,
    /// When this worker was asked to end, if it was.
    asked_at: Option<Instant>,
    /// Whether this pod can have no further attempt.
    leaving: bool,
    /// The attempt that the group ran in with this worker last: who is out of touch then was not always.
    ran_in: Option<Attempt>,
    /// Whether it stopped the ranks of the present attempt by itself, since worker 0 was not reached.
    lost_touch: bool,
}

/// How an attempt ended on this worker.
enum End {
    /// Its ranks ended by themselves.
    OfRanks(Box<Outcome>),
    /// The group stopped them, or worker 0 was lost, without which they can do nothing.
    Interrupted,
}

/// What a worker without running ranks does next.
enum Next {
    Run(Order),
    End(Box<Outcome>),
}

impl<'a> Worker<'a> {
    /// No rank runs yet.
    pub fn new(
        settings: &'a Settings,
        cache: Option<i32>,
        shared: &Arc<Shared>,
        hub: Arc<Hub>,
        membership: Membership,
    ) -> Self {
        let place = settings.place.clone();
        membership.standing.send_replace(Standing {
            attempt: place.attempt,
            ..Standing::default()
        });
        Self {
            supervisor: Supervisor::new(place.ranks(), settings.patience()),
            settings,
            place,
            cache,
            shared: Arc::clone(shared),
            hub,
            membership,
            ranks: Ranks::default(),
            end: None,
            asked_at: None,
            leaving: false,
            ran_in: None,
            lost_touch: false,
        }
    }

    /// Follows the group's orders to the end.
    pub async fn run(&mut self, signals: &mut Signals) -> Outcome {
        loop {
            match self.next(signals).await {
                Next::Run(order) => self.attempt(order, signals).await,
                Next::End(outcome) => return *outcome,
            }
        }
    }

    /// When this worker was asked to end, if it was.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// Lets the others know before this agent goes.
    pub async fn leave(&self) {
        self.membership.leave().await;
    }

    /// Waits for an order that is news to a worker whose ranks have ended, or do not run yet.
    async fn next(&mut self, signals: &mut Signals) -> Next {
        let mut alone_since = Instant::now();
        loop {
            if self.asked_at.is_some() {
                self.say_goodbye().await;
                return Next::End(self.stopped());
            }
            let order = self.membership.orders.borrow_and_update().clone();
            let ahead = order.attempt > self.place.attempt;
            // Never one before that which this pod was made for.
            let present = order.attempt == self.place.attempt;
            match order.kind {
                OrderKind::Run if ahead || (present && self.end.is_none()) => {
                    return Next::Run(order);
                }
                OrderKind::Finish => return Next::End(self.finished(order.because.as_ref())),
                OrderKind::Stop if ahead => {
                    self.place.attempt = order.attempt;
                    self.end = None;
                    self.shared.board().pause();
                    self.tell(Phase::Waiting, None);
                }
                OrderKind::Run | OrderKind::Stop => {}
            }
            let Membership {
                orders,
                out_of_touch,
                ..
            } = &mut self.membership;
            let alone = out_of_touch.borrow().is_some();
            let patience_ends = alone_since + patience(self.end.as_ref());
            select! {
                // Their senders live as long as this agent, or until the last order has come.
                _ = orders.changed() => {}
                _ = out_of_touch.changed() => if !alone {
                    alone_since = Instant::now();
                },
                caught = signals.next() => match caught {
                    // These ranks had ended before.
                    Caught::Stop => {
                        self.asked_at = Some(Instant::now());
                        self.leaving = true;
                        self.membership.standing.send_modify(|told| {
                            told.leaving = true;
                            told.asked = true;
                        });
                        self.say_goodbye().await;
                        return Next::End(self.asked_to_stop());
                    }
                    Caught::Forward(_) => {}
                    Caught::Child => { self.ranks.reap(); }
                },
                () = sleep_until(patience_ends), if alone => return Next::End(self.abandoned()),
            }
        }
    }

    /// Lets the others know how the ranks of this worker ended. Only worker 0 waits for theirs.
    async fn say_goodbye(&mut self) {
        let attempt = self.place.attempt;
        if let Some(asked_at) = self.asked_at.filter(|_| self.membership.coordinates()) {
            let over = |order: &Order| order.kind != OrderKind::Run || order.attempt != attempt;
            let until = asked_at + GOODBYE_OF_COORDINATOR;
            let _ = timeout_at(until, self.membership.orders.wait_for(over)).await;
            return;
        }
        let last = |order: &Order| order.kind == OrderKind::Finish;
        // Without an answer the closed connection says as much.
        let _ = timeout(GOODBYE, self.membership.orders.wait_for(last)).await;
    }

    /// How this worker ends on the group's last order.
    fn finished(&self, because: Option<&RankFailure>) -> Box<Outcome> {
        if let Some(End::OfRanks(outcome)) = &self.end {
            let mut outcome = outcome.clone();
            // Ranks that noticed by themselves that another one is gone do not know why. Their own failure is the cause
            // where there is no better one.
            let is_echo = outcome.result.reason.is_some_and(FailureReason::is_echo);
            let of_another = |because: &&RankFailure| {
                because.rank.is_some() && because.worker != self.place.node_rank
            };
            let cause = because.filter(of_another).filter(|_| is_echo);
            outcome.result.because = outcome.result.because.or(cause.cloned());
            return outcome;
        }
        let Some(because) = because else {
            // Every worker that took part has succeeded, also for this one, which came too late.
            info!("the job's workers have ended well without this one");
            let report = self.shared.board().report();
            return Box::new(Outcome::needless(&self.place, report));
        };
        let (reason, message) = if self.end.is_some() {
            let message = format!("its ranks were stopped, since {}", because.sentence());
            (FailureReason::PeerLost, message)
        } else {
            (because.reason, because.sentence())
        };
        let mut outcome = self.without_ranks(reason, message);
        outcome.result.because = Some(because.clone());
        outcome
    }

    /// How this worker ends after a request that its ranks heard.
    fn stopped(&self) -> Box<Outcome> {
        match &self.end {
            Some(End::OfRanks(outcome)) if outcome.exit_code != 0 => outcome.clone(),
            _ => self.asked_to_stop(),
        }
    }

    /// How this worker ends on a request while none of its ranks runs.
    fn asked_to_stop(&self) -> Box<Outcome> {
        let finished = self.membership.orders.borrow().kind == OrderKind::Finish;
        let what = match &self.end {
            Some(End::OfRanks(outcome)) if outcome.exit_code == 0 && finished => {
                return outcome.clone();
            }
            // The others go on without it, and need another pod in its place.
            Some(End::OfRanks(outcome)) if outcome.exit_code == 0 => {
                "asked to stop when its ranks had ended well, but not those of the others"
            }
            _ => "asked to stop while none of its ranks ran",
        };
        info!("{what}");
        self.without_ranks(FailureReason::Stopped, what.to_owned())
    }

    /// The coordinator is not reached, and this worker waits no longer.
    fn abandoned(&self) -> Box<Outcome> {
        if let Some(End::OfRanks(outcome)) = &self.end
            && ended_for_good(outcome)
        {
            return outcome.clone();
        }
        let trouble = self.membership.out_of_touch.borrow().clone();
        let trouble = trouble.map(|trouble| trouble.text).unwrap_or_default();
        let message = format!(
            "worker {} is out of touch with worker 0: {trouble}; look at its pod, at DNS and at network policies",
            self.place.node_rank
        );
        if self.ran_in.is_none() {
            return self.without_ranks(FailureReason::RendezvousFailed, message);
        }
        let mut outcome = self.without_ranks(FailureReason::PeerLost, message);
        let message = format!("the others lost touch with it: {trouble}");
        outcome.result.because = Some(lost(0, FailureReason::PeerLost, message));
        outcome
    }

    /// An end that no rank explains.
    fn without_ranks(&self, reason: FailureReason, message: String) -> Box<Outcome> {
        let mut outcome = Outcome::of_agent(Some(&self.place), reason, message);
        outcome.result.report = self.shared.board().report();
        Box::new(outcome)
    }

    /// Runs the ranks of one attempt from their start to the end of the last.
    async fn attempt(&mut self, order: Order, signals: &mut Signals) {
        self.place.attempt = order.attempt;
        self.end = None;
        self.ran_in = Some(order.attempt);
        self.lost_touch = false;
        telemetry::begin(order.attempt);
        if let Err(error) = self.shared.begin(order.attempt, order.because) {
            // The same series could be made before; the old ones go on.
            error!("{}", error_chain(&error));
        }
        let (sender, events) = unbounded_channel();
        self.hub.begin(order.attempt, sender.clone());
        self.ranks = Ranks::default();
        self.supervisor = Supervisor::new(self.place.ranks(), self.settings.patience());
        self.tell(Phase::Running, None);
        let verdict = self.supervise(signals, &sender, events).await;
        self.leaving |= verdict.left_behind;
        let patience = if self.leaving {
            LEFTOVERS_END_OF_POD
        } else {
            LEFTOVERS_END
        };
        let ranks = &mut self.ranks;
        let kill = || {
            // Whoever takes them in has to.
            ranks.reap();
            ranks.kill_leftovers()
        };
        // The next attempt must not meet them, at a port or in a GPU's memory: others begin it with another pod.
        self.leaving |= outlives(patience, kill).await;
        let strayed = self.lost_touch && verdict.interrupted;
        let failure = verdict
            .failure
            .as_ref()
            .map(|failure| self.explained(failure))
            .or_else(|| strayed.then(|| self.out_of_touch()));
        self.end = Some(self.end_of(verdict));
        self.tell(Phase::Ended, failure);
    }

    /// Returns how the ranks ended.
    async fn supervise(
        &mut self,
        signals: &mut Signals,
        sender: &UnboundedSender<Event>,
        mut events: UnboundedReceiver<Event>,
    ) -> Verdict {
        let mut happened = self.start_ranks(sender);
        let mut interrupted = false;
        let mut watch = HangWatch::default();
        let mut look = interval(LOOK);
        loop {
            for event in happened {
                if let Some(verdict) = self.handle(event) {
                    return verdict;
                }
            }
            let deadline = self.supervisor.deadline();
            let shared = Arc::clone(&self.shared);
            let tick = async {
                match deadline {
                    Some(at) => sleep_until(shared.instant(at).into()).await,
                    None => std::future::pending().await,
                }
            };
            happened = select! {
                // What ranks said comes before a signal that came after it: a rank that has just
                // said hello is to be asked, not signalled.
                biased;
                // The sender keeps the channel open.
                event = events.recv() => event.into_iter().collect(),
                caught = signals.next() => match caught {
                    Caught::Stop => {
                        info!("asked to stop");
                        self.asked_at.get_or_insert_with(Instant::now);
                        self.leaving = true;
                        vec![Event::StopRequested]
                    }
                    Caught::Forward(signal) => vec![Event::Forward(signal)],
                    Caught::Child => self.reap(),
                },
                () = interruption(&mut self.membership.orders, self.place.attempt), if !interrupted => {
                    interrupted = true;
                    vec![Event::Interrupt]
                }
                _ = look.tick() => {
                    let mut found = self.look_for_hangs(&mut watch);
                    if !interrupted && self.has_lost_worker_0() {
                        warn!("worker 0 is lost, and with it rank 0");
                        interrupted = true;
                        self.lost_touch = true;
                        found.push(Event::Interrupt);
                    }
                    found
                }
                () = tick => vec![Event::Tick],
            };
        }
    }

    /// Starts all ranks and returns what came of it. The supervisor hears of a failure only when all
    /// have had their turn: it may then signal those that run.
    fn start_ranks(&mut self, events: &UnboundedSender<Event>) -> Vec<Event> {
        let launch = Launch {
            command: &self.settings.args.command,
            place: &self.place,
            socket: &self.settings.args.socket,
            config: &self.settings.config_path,
            cache: self.cache,
        };
        let mut failures = Vec::new();
        for rank in self.place.ranks() {
            match self.ranks.start(rank, launch, events) {
                Ok(()) => self.shared.board().started(self.shared.now(), rank),
                Err(error) => {
                    let failure = Failure::explained(rank, error.reason(), error_chain(&error));
                    failures.push(Event::NotStarted { failure });
                }
            }
        }
        failures
    }

    /// Whether worker 0 is not reached for so long that it counts as lost.
    fn has_lost_worker_0(&self) -> bool {
        let trouble = self.membership.out_of_touch.borrow();
        trouble
            .as_ref()
            .is_some_and(|trouble| trouble.since.elapsed() >= SILENCE)
    }

    fn look_for_hangs(&self, watch: &mut HangWatch) -> Vec<Event> {
        let sightings = self.shared.board().sightings();
        let hangs = watch.look(self.shared.now(), sightings);
        let event = hangs.map(|(rank, message)| {
            let failure = Failure::explained(rank, FailureReason::Hung, message);
            Event::Hung { failure }
        });
        event.into_iter().collect()
    }

    fn reap(&mut self) -> Vec<Event> {
        let ended = self.ranks.reap();
        for &(rank, end) in &ended {
            info!("rank {rank} {end}");
            self.shared.board().exited(rank);
        }
        let events = ended.into_iter();
        events
            .map(|(rank, end)| Event::Exited { rank, end })
            .collect()
    }

    fn handle(&mut self, event: Event) -> Option<Verdict> {
        for action in self.supervisor.handle(self.shared.now(), event) {
            match action {
                Action::AskToStop { rank } => {
                    self.hub.send(rank, AgentMessage::StopAtStep { step: None });
                }
                Action::Signal { rank, signal } => {
                    info!("sending {} to rank {rank}", signal_name(signal.as_raw()));
                    self.ranks.signal(rank, signal);
                }
                Action::Finish(verdict) => return Some(verdict),
            }
        }
        let failure = self.supervisor.failure();
        let failure = failure.map(|failure| self.explained(failure));
        self.tell(Phase::Running, failure);
        None
    }

    /// Tells the group how this worker stands, if that is news.
    fn tell(&self, phase: Phase, failure: Option<RankFailure>) {
        let standing = Standing {
            attempt: self.place.attempt,
            phase,
            failure,
            leaving: self.leaving,
            asked: self.asked_at.is_some(),
            ran_in: self.ran_in,
            ..Standing::default()
        };
        self.membership.standing.send_if_modified(|told| {
            let news = *told != standing;
            *told = standing;
            news
        });
    }

    /// Why ranks were stopped that had not failed.
    fn out_of_touch(&self) -> RankFailure {
        let message = format!(
            "it was out of touch with worker 0 for {} s and stopped its ranks",
            SILENCE.as_secs()
        );
        lost(self.place.node_rank, FailureReason::PeerLost, message)
    }

    fn explained(&self, failure: &Failure) -> RankFailure {
        RankFailure {
            worker: self.place.node_rank,
            rank: Some(failure.rank),
            reason: failure.reason,
            exit_code: failure.exit_code,
            message: failure.explanation(&self.ranks.log_end(failure.rank)),
        }
    }

    fn end_of(&self, verdict: Verdict) -> End {
        if verdict.interrupted && verdict.failure.is_none() {
            return End::Interrupted;
        }
        let failed = verdict.failure.as_ref().map(|failure| failure.rank);
        let log_end = failed
            .map(|rank| self.ranks.log_end(rank))
            .unwrap_or_default();
        let report = self.shared.board().report();
        End::OfRanks(Box::new(Outcome::of_ranks(
            &self.place,
            verdict,
            &log_end,
            report,
        )))
    }
}

/// Ends what the ranks started and left behind with `kill`, which says whether there was something; whether some of it
/// does not end.
async fn outlives(patience: Duration, mut kill: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    while kill() {
        if Instant::now() >= until {
            warn!(
                "processes that the ranks started do not end within {} s of SIGKILL: they hang in the kernel, usually on a volume or a GPU driver of this node; no further attempt begins in this pod",
                patience.as_secs()
            );
            return true;
        }
        sleep(LEFTOVERS_LOOK).await;
    }
    false
}

/// Whether another attempt would end as this one did. What failed otherwise did so for worker 0, most likely.
fn ended_for_good(outcome: &Outcome) -> bool {
    let reason = outcome.result.reason;
    reason.is_none_or(|reason| reason.retry() == Retry::Never)
}

/// How long a worker that does not reach the coordinator waits for it, or for its successor.
fn patience(end: Option<&End>) -> Duration {
    match end {
        Some(End::OfRanks(outcome)) if outcome.exit_code != 0 && ended_for_good(outcome) => {
            OUT_OF_TOUCH_LIMIT
        }
        _ => RENDEZVOUS_TIMEOUT + FIRST_ORDER_GRACE,
    }
}

/// Answers once the group wants no rank of this attempt any more.
async fn interruption(orders: &mut watch::Receiver<Order>, attempt: Attempt) {
    let unwanted = |order: &Order| match order.kind {
        OrderKind::Run => order.attempt > attempt,
        OrderKind::Stop => order.attempt >= attempt,
        OrderKind::Finish => true,
    };
    if orders.wait_for(unwanted).await.is_err() {
        // Without a coordinator the ranks go on.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_end_is_told_and_what_ends_late_is_waited_for() {
        let patience = Duration::from_millis(200);
        let mut looks = 0;
        let ends_late = || {
            looks += 1;
            looks < 3
        };
        assert!(!outlives(patience, ends_late).await);
        assert_eq!(3, looks);
        let begun = Instant::now();
        assert!(outlives(patience, || true).await);
        assert!(begun.elapsed() >= patience, "{:?}", begun.elapsed());
    }
}
