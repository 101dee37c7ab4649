//! What happens when a worker or one of its ranks fails: written by the user, judged by the operator and
//! by the agents of the job, which have it in the frozen configuration.

use serde::{Deserialize, Serialize};

use crate::exit::{FailureReason, Retry};

/// Words for what only others know of a failed worker: its pod was deleted, taken away, or used more memory than
/// its limit, or the other workers lost touch with it.
pub const POD_FAILURES: [&str; 4] = ["PodDeleted", "PodEvicted", "WorkerLost", "OOMKilled"];

/// What happens when a worker fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct FailurePolicy {
    /// How often the ranks may be started anew and the run continued from its last checkpoint, in the same
    /// pods or in new ones, not counting restarts that a rule or the default makes free.
    pub max_restarts: u32,
    /// What to do after which failure: the first rule that matches decides. Without one, failures that
    /// would only repeat themselves (a bad data set, a loss that is not finite) end the job, workers that
    /// the cluster took away (`PodDeleted`, `PodEvicted`, `WorkerLost`) are replaced without counting it, alone where
    /// that is possible, and everything else is a counted restart, in place where that is possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 16)))]
    pub rules: Vec<FailureRule>,
    /// How long to wait before a restart, when those before it brought the run no further.
    pub backoff: Backoff,
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self {
            max_restarts: 3,
            rules: Vec::new(),
            backoff: Backoff::default(),
        }
    }
}

/// A rule matches a failure that has one of each list's values; an empty list matches all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FailureRule {
    /// What to do.
    pub action: FailureAction,
    /// Words for failures; `docs/jobs.md` explains them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 32), extend("items" = serde_json::json!({"type": "string", "enum": failure_words()}))))]
    pub reasons: Vec<String>,
    /// Exit codes of the container `worker`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 64), inner(range(min = 1, max = 255)))
    )]
    pub exit_codes: Vec<i32>,
    /// Signals that ended it: 9 for SIGKILL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 64), inner(range(min = 1, max = 64)))
    )]
    pub signals: Vec<i32>,
    /// Workers that failed, by index: 0 leads the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(max = 64), inner(range(max = 1023)))
    )]
    pub workers: Vec<u32>,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum FailureAction {
    /// Start all ranks anew in the pods they are in and go on from the copy of the state in memory, or else from the
    /// last checkpoint, as one of `maxRestarts`. A pod that is gone is replaced alone. After two such restarts in a
    /// row without a training step, all workers are replaced instead.
    RestartInPlace,
    /// Replace all workers and go on from the last checkpoint, as one of `maxRestarts`.
    RestartGang,
    /// The same, not counted.
    RestartGangIgnoringLimit,
    /// End the job.
    FailJob,
}

/// The wait before a restart: none when the run came further since the one before, else `initialSeconds`, twice as
/// long each time, up to `maxSeconds`; up to a quarter less, so that jobs do not come back all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = serde_json::json!([{
    "rule": "self.initialSeconds <= self.maxSeconds",
    "messageExpression": "'{path}.initialSeconds is %s, but maxSeconds is %s: choose at most %s'.format([self.initialSeconds, self.maxSeconds, self.maxSeconds])",
}]))))]
pub struct Backoff {
    /// The first wait in seconds.
    pub initial_seconds: u32,
    /// The longest one.
    pub max_seconds: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial_seconds: 10,
            max_seconds: 300,
        }
    }
}

/// What is known of a failure.
#[derive(Clone, Copy, Debug)]
pub struct FailureFacts<'a> {
    /// Why, in a word.
    pub reason: &'a str,
    /// Whether trying again can help, when no rule knows better.
    pub retry: Retry,
    /// The container's exit code.
    pub exit_code: Option<i32>,
    /// The worker; none where another pod of the job failed.
    pub worker: Option<u32>,
}

impl FailurePolicy {
    /// Whether a worker that is gone may be replaced while the others keep their pods: no rule says anything else.
    pub fn allows_replacing_alone(&self, failure: FailureFacts) -> bool {
        let rule = self.rule(failure).map(|rule| rule.action);
        rule.is_none_or(|action| action == FailureAction::RestartInPlace)
            && self.action(failure) != FailureAction::FailJob
    }

    fn rule(&self, failure: FailureFacts) -> Option<&FailureRule> {
        self.rules.iter().find(|rule| rule.matches(failure))
    }

    /// What to do after a failure.
    pub fn action(&self, failure: FailureFacts) -> FailureAction {
        self.rule(failure).map_or_else(
            || match failure.retry {
                Retry::Never => FailureAction::FailJob,
                Retry::Free => FailureAction::RestartGangIgnoringLimit,
                Retry::Counted => FailureAction::RestartInPlace,
            },
            |rule| rule.action,
        )
    }
}

impl FailureRule {
    fn matches(&self, failure: FailureFacts) -> bool {
        let code = |code: &i32| failure.exit_code == Some(*code);
        let worker = |worker| self.workers.contains(&worker);
        let signal = |signal: &i32| failure.exit_code == Some(128 + signal);
        (self.reasons.is_empty() || self.reasons.iter().any(|word| word == failure.reason))
            && (self.exit_codes.is_empty() || self.exit_codes.iter().any(code))
            && (self.signals.is_empty() || self.signals.iter().any(signal))
            && (self.workers.is_empty() || failure.worker.is_some_and(worker))
    }
}

/// All words for failures.
pub fn failure_words() -> Vec<&'static str> {
    let of_workers = FailureReason::ALL.map(FailureReason::as_str);
    POD_FAILURES.into_iter().chain(of_workers).collect()
}

#[cfg(test)]
mod tests {
    use FailureAction::{FailJob, RestartGangIgnoringLimit, RestartInPlace};
    use serde_json::json;

    use super::*;

    fn failure(reason: &str, exit_code: i32, worker: u32) -> FailureFacts<'_> {
        FailureFacts {
            reason,
            retry: Retry::Counted,
            exit_code: Some(exit_code),
            worker: Some(worker),
        }
    }

    #[test]
    fn the_first_rule_that_matches_in_everything_decides() {
        let policy: FailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "FailJob", "reasons": ["Internal"], "exitCodes": [70, 71], "workers": [0]},
            {"action": "RestartGangIgnoringLimit", "signals": [9, 15]},
            {"action": "FailJob"},
        ]}))
        .expect("a policy");
        assert_eq!(FailJob, policy.action(failure("Internal", 70, 0)));
        assert_eq!(
            RestartGangIgnoringLimit,
            policy.action(failure("Killed", 137, 3))
        );
        assert_eq!(FailJob, policy.action(failure("Internal", 72, 1)));
        let fetch = FailureFacts {
            worker: None,
            ..failure("Internal", 70, 0)
        };
        assert_eq!(RestartInPlace, FailurePolicy::default().action(fetch));
        let first = &policy.rules[0];
        assert!(!first.matches(fetch));
        assert!(!first.matches(failure("Internal", 70, 1)));
        assert!(!first.matches(failure("Internal", 72, 0)));
        assert!(!first.matches(failure("Killed", 70, 0)));
    }

    #[test]
    fn without_a_rule_only_what_can_help_is_tried() {
        let policy = FailurePolicy::default();
        let action = |retry| {
            policy.action(FailureFacts {
                retry,
                ..failure("Killed", 137, 0)
            })
        };
        assert_eq!(FailJob, action(Retry::Never));
        assert_eq!(RestartInPlace, action(Retry::Counted));
        assert_eq!(RestartGangIgnoringLimit, action(Retry::Free));
    }
}
