//! The worker's final words and exit code.

use std::fs;
use std::path::Path;

use contract::exit::FailureReason;
use contract::progress::RunReport;
use contract::result::{RESULT_VERSION, WorkerResult};
use tracing::error;

use crate::place::Place;
use crate::supervise::Verdict;

/// How the worker ended, for the kubelet and for the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The termination message.
    pub result: WorkerResult,
    /// The container's exit code.
    pub exit_code: u8,
}

impl Outcome {
    /// The outcome of ranks that ran. `log_end` is the end of the failed rank's stderr.
    pub fn of_ranks(
        place: &Place,
        verdict: Verdict,
        log_end: &[String],
        report: Option<RunReport>,
    ) -> Self {
        let mut result = WorkerResult {
            version: RESULT_VERSION,
            attempt: place.attempt,
            node_rank: place.node_rank,
            reason: None,
            rank: None,
            because: None,
            restarted_after: None,
            message: verdict.last_words,
            report,
        };
        let Some(failure) = verdict.failure else {
            return Self {
                result,
                exit_code: 0,
            };
        };
        result.reason = Some(failure.reason);
        result.rank = Some(failure.rank);
        result.message = failure.explanation(log_end);
        Self {
            result,
            exit_code: failure.exit_code,
        }
    }

    /// The outcome of a worker whose ranks the others did not need.
    pub fn needless(place: &Place, report: Option<RunReport>) -> Self {
        Self {
            result: WorkerResult {
                version: RESULT_VERSION,
                attempt: place.attempt,
                node_rank: place.node_rank,
                reason: None,
                rank: None,
                because: None,
                restarted_after: None,
                message: "the others had completed the run".to_owned(),
                report,
            },
            exit_code: 0,
        }
    }

    /// The outcome of a worker that could not start its ranks. Without a place the numbers are zero.
    pub fn of_agent(place: Option<&Place>, reason: FailureReason, message: String) -> Self {
        Self {
            result: WorkerResult {
                version: RESULT_VERSION,
                attempt: place.map(|place| place.attempt).unwrap_or_default(),
                node_rank: place.map_or(0, |place| place.node_rank),
                reason: Some(reason),
                rank: None,
                because: None,
                restarted_after: None,
                message,
                report: None,
            },
            exit_code: reason.exit_code(),
        }
    }

    /// Leaves the final words where the kubelet reads them. When that fails only the log and the exit
    /// code are left to tell, so it is no reason to end otherwise.
    pub fn write(&self, path: &Path) {
        // The kubelet mounts a file there, so it is written in place rather than renamed into it.
        if let Err(source) = fs::write(path, self.result.to_termination_message()) {
            error!(
                "cannot write the termination message {}: {source}",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::tests::last_of_three;
    use crate::supervise::Failure;

    fn failed(see_log: bool) -> Verdict {
        let mut failure = Failure::explained(5, FailureReason::Internal, "rank 5 exited");
        failure.see_log = see_log;
        Verdict {
            failure: Some(failure),
            interrupted: false,
            left_behind: false,
            last_words: "not these".to_owned(),
        }
    }

    #[test]
    fn success_keeps_the_first_ranks_last_words_and_report() {
        let verdict = Verdict {
            failure: None,
            interrupted: false,
            left_behind: false,
            last_words: "100 epochs".to_owned(),
        };
        let report = Some(RunReport::default());
        let outcome = Outcome::of_ranks(&last_of_three(), verdict, &[], report.clone());
        assert_eq!(0, outcome.exit_code);
        assert_eq!("100 epochs", outcome.result.message);
        assert_eq!(
            (None, report),
            (outcome.result.reason, outcome.result.report)
        );
        assert_eq!(2, outcome.result.node_rank);
    }

    #[test]
    fn a_log_speaks_for_a_rank_that_did_not() {
        let log = ["one".to_owned(), "two".to_owned()];
        let outcome = Outcome::of_ranks(&last_of_three(), failed(true), &log, None);
        assert_eq!(
            "rank 5 exited; its last lines on stderr were:\none\ntwo",
            outcome.result.message
        );
        assert_eq!((Some(5), 70), (outcome.result.rank, outcome.exit_code));
    }

    #[test]
    fn a_rank_with_its_own_words_needs_no_log() {
        let log = ["one".to_owned()];
        let outcome = Outcome::of_ranks(&last_of_three(), failed(false), &log, None);
        assert_eq!("rank 5 exited", outcome.result.message);
    }
}
