//! In how many portions a rank computes its images of a step and a batch of an evaluation: one, until they do not fit
//! the memory.
//!
//! A rank without memory cannot go on with the step that the others are in, so it ends, and leaves a note for the
//! next start, which then needs half of the memory. The note is the one file of the run's folder that a rank other
//! than the first may write. With an object store each worker has an output folder of its own, so all ranks look for
//! notes, and the one of the most portions counts.
//!
//! Both are divided, down to one image each, the one that has fewer images sooner. A batch of an evaluation is as
//! large whatever the number of ranks: validation losses are means over batches, and so would depend on it.

use std::error::Error as StdError;

use contract::spec::Training;
use serde::{Deserialize, Serialize};

use super::Session;
use crate::console::chain;
use crate::distributed::Ranks;
use crate::durable;
use crate::error::Error;
use crate::evaluate;
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
    let own = read_json::<Note>(&folder.portions())?;
    let notes = ranks.gather(&json(&own)).map_err(|source| Error::Ranks {
        when: "the choice of portions",
        source,
    })?;
    let note = notes
        .iter()
        .filter_map(|note| {
            serde_json::from_slice::<Option<Note>>(note).expect("all ranks run the same program")
        })
        .max_by_key(|note| note.portions);
    if let Some(note) = &note {
        reporter.say(&format!(
            "each process computes its images, of a step and of an evaluation, in {} portions: in {} they did not fit the memory of rank {} at step {}",
            note.portions, note.before, note.rank, note.step
        ));
    }
    Ok(note.map_or(1, |note| note.portions).max(1))
}

/// The portions in which each process computes one image at a time, or four that become one, in a step: with more,
/// some would be empty, and cost as much.
pub fn most_of_step(training: &Training, world: u32) -> u32 {
    let together = if training.quad { 4 } else { 1 };
    training.batch_size.div_ceil(world).div_ceil(together)
}

/// The portions in which each process computes one image at a time in an evaluation.
pub fn most_of_evaluation(training: &Training) -> u32 {
    training.batch_size.min(evaluate::MAX_BATCH as u32)
}

/// Images that each process evaluates at a time.
pub fn evaluated(training: &Training, portions: u32) -> usize {
    most_of_evaluation(training).div_ceil(portions) as usize
}

impl Session<'_> {
    /// What to tell of a step, or of the evaluation after it, that had too little memory; leaves the note for the next
    /// start. With `most` portions there is nothing left to divide.
    pub(super) fn out_of_memory(
        &mut self,
        most: u32,
        source: Box<dyn StdError + Send + Sync>,
    ) -> Error {
        let (step, before) = (self.state.step, self.state.machine.portions);
        if before >= most {
            return Error::NothingFits { step, source };
        }
        let note = Note {
            portions: 2 * before,
            rank: self.ranks.rank(),
            step,
            before,
        };
        // A worker with an output folder of its own does not have the run's folder in it, which rank 0 makes.
        let written = std::fs::create_dir_all(self.folder.root())
            .and_then(|()| durable::write(&self.folder.portions(), &json(&note)));
        if let Err(source) = written {
            let path = self.folder.portions();
            let error = RunFolderError::Unwritable { path, source };
            self.reporter.warn(&format!(
                "the next start will not know that memory ran out: {}",
                chain(&error)
            ));
        }
        Error::OutOfMemory {
            step,
            portions: note.portions,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The images at a time in a step and in an evaluation, start by start, until the evaluation gives up.
    fn starts(batch_size: u32, world: u32) -> Vec<(u32, usize)> {
        let training = Training {
            batch_size,
            ..Training::default()
        };
        let most = most_of_step(&training, world);
        let portions = (0..).map(|retries| 1 << retries);
        let last = most_of_evaluation(&training).next_power_of_two();
        portions
            .take_while(|portions| *portions <= last)
            .map(|portions| {
                let share = batch_size.div_ceil(world);
                let images = evaluated(&training, portions);
                (share.div_ceil(most.min(portions)), images)
            })
            .collect()
    }

    #[test]
    fn each_start_evaluates_fewer_images_at_a_time_down_to_one() {
        let halves = [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)];
        assert_eq!(halves[..], starts(256, 8));
        // A step of one image for each process has nothing to divide.
        let halves = [(1, 16), (1, 8), (1, 4), (1, 2), (1, 1)];
        assert_eq!(halves[..], starts(16, 16));
        for batch_size in 1..100 {
            let images: Vec<usize> = starts(batch_size, 1).into_iter().map(|it| it.1).collect();
            assert!(images.is_sorted_by(|a, b| a > b), "{images:?}");
            assert_eq!(Some(&1), images.last());
        }
    }

    #[test]
    fn four_images_that_become_one_are_not_divided() {
        let training = Training {
            batch_size: 32,
            quad: true,
            ..Training::default()
        };
        assert_eq!(4, most_of_step(&training, 2));
    }
}
