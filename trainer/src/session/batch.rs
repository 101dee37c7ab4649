//! The largest batch that fits, where `training.batchSize` is 0: found once in a run, by all ranks.
//!
//! What was found lies in the run's folder, so that every later start uses the same.

use serde::{Deserialize, Serialize};
use trainer_core::auto_batch::largest;
use trainer_core::multi_scale;

use super::data::Data;
use crate::distributed::Ranks;
use crate::durable;
use crate::error::Error;
use crate::job::Job;
use crate::memory::Meter;
use crate::report::Reporter;
use crate::run_folder::{RunFolder, RunFolderError, json, read_json};
use crate::step::{Learner, StepError, is_out_of_memory};

/// Batches that are tried.
const TRIED: [u32; 5] = [1, 2, 4, 8, 16];
/// The largest batch of a job.
const MOST: u32 = 65_536;

/// The content of `batch.json`.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Found {
    /// Of all ranks together.
    batch_size: u32,
    /// Of each rank, how many images fit.
    fit: Vec<u32>,
}

/// Puts the batch size of the run into `job` if it names none.
pub fn settle(
    job: &mut Job,
    data: &Data,
    folder: &RunFolder,
    learner: &mut Learner,
    ranks: &mut Ranks,
    reporter: &Reporter,
) -> Result<(), Error> {
    if job.config.spec.training.batch_size == 0 {
        let size = agree(job, data, folder, learner, ranks, reporter)?;
        job.config.spec.training.batch_size = size;
    }
    Ok(())
}

/// The batch size of the run: that of the first start, or else as many images on each rank as fit on all.
fn agree(
    job: &Job,
    data: &Data,
    folder: &RunFolder,
    learner: &mut Learner,
    ranks: &mut Ranks,
    reporter: &Reporter,
) -> Result<u32, Error> {
    let together = |source| Error::Ranks {
        when: "the choice of the batch size",
        source,
    };
    let mut before = None;
    if ranks.is_first() {
        before = read_json::<Found>(&folder.batch())?.map(|found| found.batch_size);
    }
    if let Some(known) = ranks.value_of_first(&before).map_err(together)? {
        return Ok(known);
    }
    let own = fit(job, learner).map_err(|source| {
        let step = 0;
        if is_out_of_memory(&source) {
            let source = source.into();
            Error::NothingFits { step, source }
        } else {
            Error::Step { step, source }
        }
    })?;
    let all = ranks.gather(&own.to_le_bytes()).map_err(together)?;
    let fit: Vec<u32> = all
        .into_iter()
        .map(|bytes| u32::from_le_bytes(bytes.try_into().expect("rank 0 runs the same program")))
        .collect();
    let training = &job.config.spec.training;
    let group = if training.quad { 4 } else { 1 };
    let least = fit.iter().copied().min().unwrap_or(1);
    let each = (least / group).max(1) * group;
    // More than all images are never needed; each rank has as many.
    let needed = (data.train.len() as u32).div_ceil(ranks.world() * group) * group;
    let batch_size = each.min(needed) * ranks.world();
    if ranks.is_first() {
        reporter.say(&format!(
            "training.batchSize is 0: a step takes {batch_size} images of {}; the memory has room for {each} on each of {} processes",
            data.train.len(),
            ranks.world()
        ));
        let path = folder.batch();
        durable::write(&path, &json(&Found { batch_size, fit }))
            .map_err(|source| RunFolderError::Unwritable { path, source })?;
    }
    Ok(batch_size)
}

/// How many images fit on this rank.
fn fit(job: &Job, learner: &mut Learner) -> Result<u32, StepError> {
    let device = learner.network.options().device;
    let training = &job.config.spec.training;
    let meter = Meter::of(device, job.place.local_world_size, training);
    // The largest images that a step may have.
    let multiple = learner.network.options().architecture.multiple();
    let side = multi_scale::largest(training.image_size, training.multi_scale, multiple);
    let most = MOST / job.place.world_size.max(1);
    // Gradients and the like stay once they are there.
    learner.try_images(1, side)?;
    let budget = meter.budget()?;
    let mut points = Vec::new();
    for images in TRIED {
        if points.len() > 1 && largest(&points, budget, most) < images {
            break;
        }
        meter.reset()?;
        match learner.try_images(images, side) {
            Ok(()) => points.push((images, meter.peak()?)),
            Err(error) if is_out_of_memory(&error) && images > 1 => {
                return Ok(largest(&points, budget, images - 1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(largest(&points, budget, most))
}
