//! Which failure explains the others, and who left by no fault of its ranks.

use std::time::Duration;

use contract::exit::FailureReason;
use contract::failure_policy::{FailureAction, FailureFacts};
use contract::progress::RankFailure;

use super::super::message::Phase;
use super::{ASKED, Coordinator, SETTLE_STOPPED, lost};

impl Coordinator {
    /// Notes who was asked to end. A program that ends well then leaves no failure; the others fail for it, or wait for it
    /// for ever.
    pub(super) fn note_leavers(&mut self, now: Duration) {
        let mut well = Vec::new();
        for (worker, member) in (0..).zip(&self.members) {
            let standing = member.standing.as_ref();
            let Some(standing) = standing.filter(|s| s.asked && s.attempt == self.order.attempt)
            else {
                continue;
            };
            self.departed.insert(worker);
            if standing.phase == Phase::Ended && standing.failure.is_none() {
                well.push(worker);
            }
        }
        if well.is_empty() {
            return;
        }
        let since = *self.left_well.get_or_insert(now);
        if self.failures.is_empty() && now < since + SETTLE_STOPPED {
            return;
        }
        for worker in well {
            let left = lost(worker, FailureReason::Stopped, ASKED.to_owned());
            if !self.failures.contains(&left) {
                self.failures.push(left);
            }
        }
    }

    pub(super) fn forget_leavers(&mut self) {
        self.departed.clear();
        self.left_well = None;
    }

    pub(super) fn action(&self, failure: &RankFailure) -> FailureAction {
        self.rules.policy.action(FailureFacts {
            reason: failure.reason.as_str(),
            retry: failure.reason.retry(),
            exit_code: Some(failure.exit_code.into()),
            worker: Some(failure.worker),
        })
    }

    /// The failure that explains the others: what ends the job, then what is no echo of another failure, then that of a
    /// worker that departed, then the loss of a worker, then the wish to stop, and of these the first.
    pub(super) fn cause(&self) -> Option<RankFailure> {
        let best = self.failures.iter().min_by_key(|failure| {
            let ends = self.action(failure) == FailureAction::FailJob;
            let echo = self.is_echo(failure);
            (
                failure.reason.is_echo() || !ends,
                echo,
                !self.departed.contains(&failure.worker),
                failure.rank.is_some(),
                failure.reason != FailureReason::Stopped,
            )
        });
        best.cloned()
    }

    /// Whether a failure is explained by another, or by a worker that departed.
    pub(super) fn is_echo(&self, failure: &RankFailure) -> bool {
        let ends = self.action(failure) == FailureAction::FailJob;
        failure.reason.is_echo() || (failure.rank.is_some() && !ends && !self.departed.is_empty())
    }
}
