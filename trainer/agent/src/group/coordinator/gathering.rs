//! Waits for workers: all of them at first, and successors of those that are gone.

use std::time::Duration;

use contract::attempt::Attempt;
use contract::env::RENDEZVOUS_TIMEOUT;
use contract::exit::FailureReason;
use contract::progress::{LostWorker, RankFailure};

use super::super::message::{Order, OrderKind, Phase, Standing};
use super::{ASKED, Coordinator, STUCK, Stage, lost};

impl Coordinator {
    /// Begins when all are there and run nothing, and ends the group when that takes too long.
    pub(super) fn gather(&mut self, now: Duration, until: Duration) {
        let standings = || self.members.iter().map(|member| member.standing.as_ref());
        // A coordinator that came anew begins no attempt that workers have seen already.
        let seen = standings().flatten().map(|standing| match standing.phase {
            Phase::Waiting => standing.attempt,
            Phase::Running | Phase::Ended => standing.attempt.next_restart(),
        });
        let attempt = seen.fold(self.order.attempt, Attempt::max);
        let took_over = !self.has_begun
            && standings()
                .flatten()
                .any(|standing| standing.ran_in.is_some());
        // So has one whose pod was made for a later attempt, also where the others are with another pod of worker 0.
        let ran_before = took_over || (!self.has_begun && self.founded.restart > 0);
        if took_over {
            let message = "another pod took its place".to_owned();
            self.restarted_after
                .get_or_insert(lost(0, FailureReason::PeerLost, message));
            self.lose_leavers();
        }
        let standings = || self.members.iter().map(|member| member.standing.as_ref());
        let idle = |standing: &Standing| standing.phase != Phase::Running && !standing.leaving;
        let all_idle = standings().all(|standing| standing.is_some_and(idle));
        self.order.attempt = attempt;
        if all_idle {
            self.begin(attempt);
        } else if until <= now {
            let absent = (0..).zip(&self.members).filter(|(_, member)| {
                let standing = member.standing.as_ref();
                !standing.is_some_and(idle)
            });
            let absent: Vec<u32> = absent.map(|(worker, _)| worker).collect();
            let first = absent.first().copied().unwrap_or_default();
            let others: Vec<String> = absent.iter().skip(1).map(u32::to_string).collect();
            let seconds = RENDEZVOUS_TIMEOUT.as_secs();
            let others = if others.is_empty() {
                String::new()
            } else {
                format!(" (nor did workers {})", others.join(", "))
            };
            let cause = match self.lost.get(&first) {
                Some(gone) => lost(
                    first,
                    FailureReason::PeerLost,
                    format!(
                        "{}; no other pod joined in its place within {seconds} s",
                        gone.message
                    ),
                ),
                None => lost(
                    first,
                    // Who ran together before finds each other unless a pod is lost.
                    if ran_before {
                        FailureReason::PeerLost
                    } else {
                        FailureReason::RendezvousFailed
                    },
                    format!(
                        "it did not join the others within {seconds} s{others}: look at its pod, at DNS and at network policies"
                    ),
                ),
            };
            self.finish(Some(cause));
        }
    }

    /// Gathers anew, after this cause, once those that are gone have successors.
    pub(super) fn wait_for_successors(&mut self, cause: RankFailure) {
        self.lose_leavers();
        self.failures.clear();
        self.forget_leavers();
        self.restarted_after = Some(cause.clone());
        self.stage = Stage::Gathering {
            until: self.looked_at + RENDEZVOUS_TIMEOUT,
        };
        self.order = Order {
            attempt: self.order.attempt.next_restart(),
            kind: OrderKind::Stop,
            because: Some(cause),
        };
        self.tick(self.looked_at);
    }

    /// Those whose pods can have no further attempt, and that run nothing any more.
    pub(super) fn lose_leavers(&mut self) {
        for (worker, member) in (0..).zip(&mut self.members) {
            let standing = member
                .standing
                .take_if(|s| s.leaving && s.phase != Phase::Running);
            let Some(standing) = standing else { continue };
            member.linked = false;
            let what = if standing.asked { ASKED } else { STUCK };
            let gone = LostWorker {
                worker,
                number: member.number,
                message: what.to_owned(),
            };
            self.lost.entry(worker).or_insert(gone);
        }
    }
}
