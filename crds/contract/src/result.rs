//! A worker's final words: the termination message of its container.

use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::exit::FailureReason;
use crate::progress::{RankFailure, RunReport};

/// The version of [`WorkerResult`] this code writes.
pub const RESULT_VERSION: u32 = 1;
/// The kubelet keeps this many bytes of a termination message.
pub const MAX_BYTES: usize = 4096;

/// How a worker ended, written to the termination message so that it survives the pod's last second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerResult {
    /// Version of this document.
    pub version: u32,
    /// The attempt it belongs to.
    pub attempt: Attempt,
    /// Index of the worker.
    pub node_rank: u32,
    /// Why it did not succeed; `None` is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// The first failing rank, when one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// The failure of another worker that ended this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<RankFailure>,
    /// The failure after which the attempt began in place; an attempt can end before anybody asked its agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_after: Option<RankFailure>,
    /// What a user should read.
    #[serde(default)]
    pub message: String,
    /// The last report of the worker's first rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<RunReport>,
}

impl WorkerResult {
    /// The JSON text, at most [`MAX_BYTES`] long: first the report's warnings go, then the end of the
    /// message, then the report.
    pub fn to_termination_message(&self) -> String {
        let mut result = self.clone();
        if let Some(text) = fitting(&result) {
            return text;
        }
        if let Some(report) = &mut result.report {
            report.warnings.clear();
        }
        if let Some(text) = fitting(&result) {
            return text;
        }
        let causes = [&mut result.because, &mut result.restarted_after];
        for cause in causes.into_iter().flatten() {
            cause.message = cause.message.chars().take(512).collect();
        }
        let full: Vec<char> = result.message.chars().collect();
        // Half the message at a time: escaping makes the length of the JSON hard to foresee.
        let mut keep = full.len();
        while keep > 256 {
            keep /= 2;
            result.message = full[..keep].iter().collect::<String>() + " …";
            if let Some(text) = fitting(&result) {
                return text;
            }
        }
        result.report = None;
        fitting(&result).unwrap_or_default()
    }

    /// Reads a termination message; `None` when the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

fn fitting(result: &WorkerResult) -> Option<String> {
    serde_json::to_string(result)
        .ok()
        .filter(|text| text.len() <= MAX_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(message: &str, warnings: usize) -> WorkerResult {
        WorkerResult {
            version: RESULT_VERSION,
            attempt: Attempt::default(),
            node_rank: 1,
            reason: Some(FailureReason::InvalidDataset),
            rank: Some(1),
            because: None,
            restarted_after: None,
            message: message.to_owned(),
            report: Some(RunReport {
                warnings: vec!["images/7.png: not an image".to_owned(); warnings],
                ..RunReport::default()
            }),
        }
    }

    #[test]
    fn a_short_result_reads_back_whole() {
        let short = result("labels/7.txt line 3", 2);
        assert_eq!(
            Some(short.clone()),
            WorkerResult::parse(&short.to_termination_message())
        );
    }

    #[test]
    fn a_long_one_keeps_reason_and_the_start_of_its_message() {
        let long = result(&"\"x\"\n".repeat(4000), 500).to_termination_message();
        assert!(long.len() <= MAX_BYTES);
        let parsed = WorkerResult::parse(&long).expect("still JSON");
        assert_eq!(Some(FailureReason::InvalidDataset), parsed.reason);
        assert!(parsed.message.starts_with("\"x\"\n\"x\"") && parsed.message.ends_with('…'));
    }

    #[test]
    fn the_causes_are_kept_however_long_they_are() {
        let mut long = result(&"x".repeat(4000), 0);
        let failure = RankFailure {
            worker: 1,
            rank: None,
            reason: FailureReason::PeerLost,
            exit_code: 76,
            message: "y".repeat(4000),
        };
        long.because = Some(failure.clone());
        long.restarted_after = Some(failure);
        let text = long.to_termination_message();
        assert!(text.len() <= MAX_BYTES);
        let read = WorkerResult::parse(&text).expect("still JSON");
        let lengths = [read.because, read.restarted_after]
            .map(|failure| failure.map(|failure| failure.message.len()));
        assert_eq!([Some(512); 2], lengths);
    }

    #[test]
    fn other_text_is_no_result() {
        assert_eq!(None, WorkerResult::parse("Segmentation fault"));
    }
}
