//! What the agent of worker 0 and the keeper beside it tell each other: the keeper holds a run's folder in an object
//! store. Both see the folder [`crate::paths::KEEP_DIR`], in which each writes one file and reads the other's.

use serde::{Deserialize, Serialize};

use crate::exit::FailureReason;
use crate::progress::CheckpointRef;

/// The keeper's file: [`Kept`] as JSON, replaced as a whole.
pub const KEPT_FILE: &str = "kept.json";
/// The agent's file, empty: the ranks have ended, and what is not yet in the store is to be brought there.
pub const FINISH_FILE: &str = "finish";

/// How a run stands in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// Whether the run's folder is here as the store has it: ranks may be started.
    #[serde(default)]
    pub ready: bool,
    /// The newest checkpoint that is whole in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointRef>,
    /// What hinders the keeper at present. It goes on trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Why the keeper has given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<KeepFailure>,
    /// Whether everything is in the store, after the agent asked for it.
    #[serde(default)]
    pub complete: bool,
}

/// Why a run cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeepFailure {
    /// The reason, which says whether another try can help.
    pub reason: FailureReason,
    /// A sentence.
    pub message: String,
}
