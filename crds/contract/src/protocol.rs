//! What a rank and its agent say to each other, one JSON object a line, over a Unix socket.
//!
//! ```text
//!  rank                                   agent
//!   │ hello {version, attempt, rank, pid}   │
//!   │ ────────────────────────────────────> │
//!   │                    welcome {version}  │
//!   │ <──────────────────────────────────── │
//!   │ heartbeat, metrics, report, snapshot  │   any number, any order
//!   │ ────────────────────────────────────> │
//!   │                  stopAtStep {step}    │   at SIGTERM, or for the group's sake
//!   │ <──────────────────────────────────── │
//!   │ result {outcome, reason, message}     │   the last line
//!   │ ────────────────────────────────────> │
//! ```
//!
//! Logs stay on the rank's stdout. A rank without an agent (`YOLO_AGENT_SOCKET` unset) sends nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attempt::Attempt;
use crate::exit::FailureReason;
use crate::progress::{Phase, RunReport};

/// The version of the protocol this code speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// A line from a rank to its agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum RankMessage {
    /// The first line.
    Hello {
        /// [`PROTOCOL_VERSION`] of the rank.
        version: u32,
        /// The attempt the rank believes it is in; the agent closes the connection of another one.
        attempt: Attempt,
        /// Global rank.
        rank: u32,
        /// Its process id.
        pid: u32,
    },
    /// Sign of life, at least once a step or every five seconds.
    Heartbeat {
        /// Training steps done.
        step: u64,
        /// What the rank is doing.
        phase: Phase,
    },
    /// New values of Prometheus series.
    Metrics {
        /// Each with its series.
        samples: Vec<Sample>,
    },
    /// How the run stands. Only rank 0 fills the model-level parts.
    Report(Box<RunReport>),
    /// The rank has written a snapshot of the whole state.
    Snapshot {
        /// Training steps done when it was taken.
        step: u64,
        /// Its folder.
        path: String,
        /// BLAKE3 of its manifest, in hexadecimal.
        checksum: String,
    },
    /// How the rank ended; the last line.
    Result(RankResult),
}

/// A line from an agent to one of its ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum AgentMessage {
    /// Answer to hello.
    Welcome {
        /// [`PROTOCOL_VERSION`] of the agent.
        version: u32,
    },
    /// Finish the given step (without one: the earliest that all ranks agree on), write a checkpoint
    /// and end with the reason `Stopped`.
    StopAtStep {
        /// The step to stop after.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u64>,
    },
}

/// A new value of one series. What it does depends on the metric's kind: it sets a gauge, raises a
/// counter to the value, or is one observation of a histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// A name from [`crate::metric_names`].
    pub metric: String,
    /// The labels the rank knows; the agent adds `namespace`, `training_job`, `attempt` and, where the
    /// metric has it, `rank`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// How a rank ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankResult {
    /// `None` is success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// What a user should read: what failed, where, and what to do.
    pub message: String,
}

/// Writes one line, ending in a newline.
pub fn encode<T: Serialize>(message: &T) -> Result<String, serde_json::Error> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines themselves are the promise: another program may speak them.
    #[test]
    fn lines_have_their_documented_form() {
        let hello = RankMessage::Hello {
            version: 1,
            attempt: Attempt {
                incarnation: 2,
                restart: 1,
            },
            rank: 3,
            pid: 17,
        };
        assert_eq!(
            concat!(
                r#"{"type":"hello","version":1,"attempt":{"incarnation":2,"restart":1},"#,
                r#""rank":3,"pid":17}"#,
                "\n"
            ),
            encode(&hello).expect("serialisable")
        );
        let result = RankMessage::Result(RankResult {
            reason: Some(FailureReason::InvalidDataset),
            message: "labels/7.txt line 3: the class is 12".to_owned(),
        });
        assert_eq!(
            concat!(
                r#"{"type":"result","reason":"InvalidDataset","#,
                r#""message":"labels/7.txt line 3: the class is 12"}"#,
                "\n"
            ),
            encode(&result).expect("serialisable")
        );
        assert_eq!(
            AgentMessage::StopAtStep { step: None },
            serde_json::from_str(r#"{"type":"stopAtStep"}"#).expect("valid")
        );
    }

    #[test]
    fn every_message_survives_the_line() {
        let messages = [
            RankMessage::Heartbeat {
                step: 5,
                phase: Phase::Evaluating,
            },
            RankMessage::Metrics {
                samples: vec![Sample {
                    metric: crate::metric_names::TRAIN_LOSS.name.to_owned(),
                    labels: BTreeMap::from([("part".to_owned(), "box".to_owned())]),
                    value: 0.25,
                }],
            },
            RankMessage::Report(Box::default()),
            RankMessage::Snapshot {
                step: 9,
                path: "p".to_owned(),
                checksum: "c".to_owned(),
            },
        ];
        for message in messages {
            let line = encode(&message).expect("serialisable");
            assert!(line.ends_with('\n') && !line.trim_end().contains('\n'));
            assert_eq!(message, serde_json::from_str(&line).expect("round trip"));
        }
    }
}
