//! Where a loss that is not finite comes from.

use serde::{Deserialize, Serialize};

use super::{Session, portions};
use crate::error::Error;
use crate::evaluate::EvaluateError;
use crate::step::{StepError, is_out_of_memory};

/// Where a loss that is not finite may come from, on one rank.
#[derive(Serialize, Deserialize)]
struct Suspects {
    /// Whether a loss of this rank was not finite.
    bad: bool,
    /// The steps in question, for people.
    text: String,
    /// Their images.
    images: Vec<u32>,
}

impl Session<'_> {
    /// What to tell of a failed step. Of a loss that is not finite all ranks know at the same step, so they
    /// can put together where it comes from.
    pub(crate) fn step_failed(&mut self, source: StepError) -> Error {
        let step = self.state.step;
        if is_out_of_memory(&source) {
            let most = portions::most_of_step(&self.spec().training, self.ranks.world());
            return self.out_of_memory(most, source.into());
        }
        let StepError::NonFinite { what } = source else {
            return Error::Step { step, source };
        };
        let (details, images) = self.find_fault().unwrap_or_default();
        Error::NonFinite {
            what,
            step,
            epoch: self.state.epoch + 1,
            details,
            images,
        }
    }

    /// What to tell of a failed evaluation, whose batches are smaller, too, where a step is computed in portions.
    pub(crate) fn evaluation_failed(&mut self, epoch: u32, source: EvaluateError) -> Error {
        if is_out_of_memory(&source) {
            let most = portions::most_of_evaluation(&self.spec().training);
            return self.out_of_memory(most, source.into());
        }
        Error::Evaluate { epoch, source }
    }

    /// What all ranks know of a loss that was not finite, and the images of those steps.
    fn find_fault(&mut self) -> Result<(String, Vec<u32>), Error> {
        let own = self.suspects();
        let own = serde_json::to_vec(&own).expect("numbers and texts become JSON");
        let all = self.gather("a look for the fault", &own)?;
        let mut all: Vec<Suspects> = all
            .iter()
            .map(|bytes| serde_json::from_slice(bytes).expect("all ranks run the same program"))
            .collect();
        // If no loss was bad, only the gradient was: then it may be any of them.
        let any_bad = all.iter().any(|rank| rank.bad);
        all.retain(|rank| rank.bad == any_bad);
        let texts: Vec<String> = all.iter().map(|rank| rank.text.clone()).collect();
        let mut images: Vec<u32> = all.into_iter().flat_map(|rank| rank.images).collect();
        images.sort_unstable();
        Ok((texts.join("; "), images))
    }

    /// This rank's steps since the last one of the optimiser with a loss that is not finite; all of them if
    /// there are none.
    fn suspects(&self) -> Suspects {
        let mut recent: Vec<_> = self
            .learner
            .recent()
            .iter()
            .filter_map(|recent| Some((recent, recent.losses().ok()?)))
            .collect();
        let is_bad = |losses: &[f64; 3]| !losses.iter().sum::<f64>().is_finite();
        let bad = recent.iter().any(|(_, losses)| is_bad(losses));
        recent.retain(|(_, losses)| is_bad(losses) == bad);
        let texts: Vec<String> = recent
            .iter()
            .map(|(recent, [box_loss, obj, cls])| {
                let names: Vec<&str> = recent
                    .indices
                    .iter()
                    .filter_map(|index| self.data.train.image(*index))
                    .map(|image| image.name.as_str())
                    .collect();
                format!(
                    "rank {} step {}: box {box_loss} obj {obj} cls {cls}, images {}",
                    self.ranks.rank(),
                    recent.step,
                    names.join(" ")
                )
            })
            .collect();
        Suspects {
            bad,
            text: texts.join("; "),
            images: recent
                .iter()
                .flat_map(|(recent, _)| &recent.indices)
                .copied()
                .collect(),
        }
    }
}
