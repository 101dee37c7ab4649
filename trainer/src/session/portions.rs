//! In how many portions a rank computes its images of a step: one, until they do not fit the memory.
//!
//! A rank without memory cannot go on with the step that the others are in, so it ends, and leaves a note for the
//! next start, which then needs half of the memory. The note is the one file of the run's folder that a rank other
//! than the first may write.

use std::error::Error as StdError;

use serde::{Deserialize, Serialize};

use super::Session;
use crate::distributed::Ranks;
use crate::durable;
use crate::error::Error;
use crate::report::Reporter;
use crate::run_folder::{RunFolder, RunFolderError, json, read_json};

/// The content of `portions.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Note {
    /// How many.
    portions: u32,
    /// The rank that had too little memory, at which step, with how many portions.
    rank: u32,
    step: u64,
    before: u32,
}

/// The number of portions, the same on all ranks.
pub fn agree(folder: &RunFolder, ranks: &mut Ranks, reporter: &Reporter) -> Result<u32, Error> {
    let mut note = None;
    if ranks.is_first() {
        note = read_json::<Note>(&folder.portions())?;
    }
    if let Some(note) = &note {
        reporter.say(&format!(
            "each process computes its images of a step in {} portions: in {} they did not fit the memory of rank {} at step {}",
            note.portions, note.before, note.rank, note.step
        ));
    }
    let portions = note.map_or(1, |note| note.portions).max(1);
    ranks
        .value_of_first(&portions)
        .map_err(|source| Error::Ranks {
            when: "the choice of portions",
            source,
        })
}

impl Session<'_> {
    /// What to tell of a step, or of the evaluation after it, that had too little memory; leaves the note for the next start.
    pub(super) fn out_of_memory(&mut self, source: Box<dyn StdError + Send + Sync>) -> Error {
        let (step, before) = (self.state.step, self.state.machine.portions);
        let training = &self.spec().training;
        let share = training.batch_size.div_ceil(self.ranks.world());
        let together = if training.quad { 4 } else { 1 };
        if before >= share.div_ceil(together) {
            return Error::NothingFits { step, source };
        }
        let note = Note {
            portions: 2 * before,
            rank: self.ranks.rank(),
            step,
            before,
        };
        let path = self.folder.portions();
        if let Err(source) = durable::write(&path, &json(&note)) {
            return RunFolderError::Unwritable { path, source }.into();
        }
        Error::OutOfMemory {
            step,
            portions: note.portions,
            source,
        }
    }
}
