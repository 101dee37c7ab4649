//! A run ready to go on: device, data, ranks and state, new or from the newest checkpoint.

mod anchors;
mod batch;
mod data;
mod fault;
mod image_cache;
mod plan;
mod portions;
mod prepare;
mod recovery;
mod requests;
mod restore;
mod snapshots;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use contract::progress::{CheckpointRef, Phase};
use contract::spec::TrainerSpec;
use torch_bridge::runtime;
use trainer_core::multi_scale;
use trainer_core::rect::RectPlan;
use trainer_core::rng::recovery_seed;
use trainer_core::schedule::{Schedule, StepPlan, scaled_weight_decay};
use trainer_data::{Batch, Loader, LoaderConfig, Shape};

use crate::checkpoint::{CheckpointStore, Machine, RunState, Writer};
use crate::device::{self, Chosen};
use crate::distributed::Ranks;
use crate::distributed::rendezvous::{self, Limits};
use crate::error::Error;
use crate::evaluate::Evaluator;
use crate::gallery::Gallery;
use crate::job::Job;
use crate::report::{Plan, Reporter};
use crate::run_folder::RunFolder;
use crate::shutdown::StopRequest;
use crate::step::Learner;
use crate::threads::{Threads, available_cpus};
use data::{Data, Skipped};
use image_cache::ImageCache;
pub use image_cache::{CachePlaces, ImageCacheError};
use plan::{check_mosaics, iteration, plan, schedule_from};
use prepare::{introduce, learner};
use recovery::Beginning;
use requests::{EpochWeights, Order, Requests, sampler};
use restore::{Begin, restore};
use snapshots::{Snapshots, Source, find};

/// Batches made ahead of time on each rank.
const PREFETCH_STEPS: usize = 4;

/// Everything the training loop works with.
pub struct Session<'a> {
    pub(crate) job: Job,
    pub(crate) plan: Plan,
    pub(crate) state: RunState,
    pub(crate) learner: Learner,
    pub(crate) ranks: Ranks,
    pub(crate) loader: Loader<Requests>,
    pub(crate) evaluator: Evaluator,
    pub(crate) data: Data,
    pub(crate) weight_decay: f64,
    pub(crate) folder: RunFolder,
    pub(crate) store: CheckpointStore,
    /// Only on rank 0.
    pub(crate) writer: Option<Writer>,
    /// Only on the first rank of each worker, and only where ranks may be started anew in place.
    pub(crate) snapshots: Option<Snapshots>,
    /// Only on rank 0.
    pub(crate) gallery: Option<Gallery>,
    pub(crate) skipped: Skipped,
    pub(crate) stop: StopRequest,
    pub(crate) reporter: &'a mut Reporter,
    pub(crate) verify: bool,
    /// See [`StartOptions::faults`].
    pub(crate) faults: Vec<u64>,
    /// See [`StartOptions::out_of_memory`].
    pub(crate) out_of_memory: Vec<u64>,
    /// On rank 0, until there is a checkpoint to go back to.
    pub(crate) beginning: Option<Beginning>,
    /// When the last checkpoint was taken on rank 0, or the run begun.
    pub(crate) last_checkpoint: Instant,
    threads: Threads,
    cache: ImageCache,
    /// How images share rectangles, if they do.
    rectangles: Option<RectPlan>,
    /// Time in which the loop waited for a checkpoint, since the last step.
    pub(crate) saving: Duration,
    schedule: Schedule,
}

/// What a start is told besides the job.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Whether somebody wants the run to stop.
    pub stop: StopRequest,
    /// Where decoded images may be kept.
    pub cache: CachePlaces,
    /// Where copies of the state are kept in memory.
    pub snapshots: Option<PathBuf>,
    /// Compare the state of all ranks after every step of the optimiser.
    pub verify_ranks: bool,
    /// Makes the loss of these steps not finite: the first as long as the run never went back, the second
    /// when it did once, and so on.
    pub faults: Vec<u64>,
    /// Lets memory run out at these steps: the first with one portion, the second with two, the third with four.
    pub out_of_memory: Vec<u64>,
}

/// Lets the ranks exchange something, and says how fast that was.
fn try_network(
    ranks: &mut Ranks,
    device: tch::Device,
    reporter: &mut Reporter,
) -> Result<(), Error> {
    let rate = ranks.bandwidth(device).map_err(|source| Error::Ranks {
        when: "a trial of their network",
        source,
    })?;
    if let Some(rate) = rate {
        reporter.all_reduce(rate);
    }
    Ok(())
}

/// What was found, unless that is a copy in memory.
fn on_volume(
    source: &Source,
    store: &CheckpointStore,
    folder: &RunFolder,
) -> Option<CheckpointRef> {
    let newest = source.found.as_ref()?.newest.as_ref()?;
    let step = newest.state.step;
    (newest.path == store.path_of(step)).then(|| CheckpointRef {
        step,
        path: folder.relative(&newest.path),
    })
}

impl<'a> Session<'a> {
    /// Opens the data, meets the other ranks and takes up the run where it stands.
    pub fn open(
        mut job: Job,
        options: StartOptions,
        reporter: &'a mut Reporter,
    ) -> Result<Self, Error> {
        reporter.phase(Phase::Starting);
        let spec = &job.config.spec;
        let place = job.place.clone();
        let threads = Threads::plan(
            &spec.training,
            available_cpus(),
            place.local_world_size as usize,
        );
        threads.apply().map_err(Error::Libtorch)?;
        let chosen = device::choose(&job)?;
        let data = Data::open(&job, reporter)?;

        reporter.phase(Phase::Rendezvous);
        let mut ranks = rendezvous::meet(&place, chosen.backend.clone(), limits(spec))?;
        data.agree(&mut ranks)?;
        let folder = RunFolder::new(&job.output, &job.config, place.attempt);
        let store = CheckpointStore::new(folder.checkpoints(), place.attempt);
        check_mosaics(spec, data.train.len(), &store, &mut ranks)?;
        try_network(&mut ranks, chosen.device, reporter)?;

        let changes = take_folder(&mut job, &data, &folder, &store, &mut ranks, reporter)?;
        let portions = portions::agree(&folder, &mut ranks, reporter)?;
        let machine = machine(place.world_size, &threads, &chosen, portions);
        let (mut learner, loss) = learner(&job, &data, chosen.device, &mut ranks)?;
        batch::settle(&mut job, &data, &folder, &mut learner, &mut ranks, reporter)?;
        let spec = job.config.spec.clone();
        check_mosaics(&spec, data.train.len(), &store, &mut ranks)?;
        learner.divide(portions.min(portions::most_of_step(&spec.training, place.world_size)));
        let names = data.train.names().to_vec();
        let fresh = RunState::new(spec.clone(), names, data.digest.clone(), machine);
        let begin = Begin::New(&job.dataset);
        let kept = snapshots::keep(&options, &spec, &store, &place, reporter);
        let source = find(&store, kept.as_ref(), &mut ranks)?;
        reporter.goes_on_from(on_volume(&source, &store, &folder));
        let state = restore(&mut ranks, source, &mut learner, fresh, begin, reporter)?;
        let beginning = (ranks.is_first() && state.step == 0).then(|| Beginning::of(&learner));
        let beginning = beginning.transpose()?;
        let step = state.step;
        let settled = learner.settle(&ranks, spec.training.image_size);
        settled.map_err(|source| Error::Step { step, source })?;

        introduce(&spec, &data, &learner, &state, &changes, reporter);
        let sampler = sampler(&spec, data.train.len(), &state)?;
        let steps = sampler.steps_per_epoch() as u64;
        let schedule = schedule_from(&spec, steps, &state);
        let plan = plan(&spec, &data, &schedule, steps, &state);
        let multiple = learner.network.options().architecture.multiple();
        let rectangles = data.rectangles(&spec, multiple);
        let order = order(&spec, &data, rectangles.as_ref(), &state);
        let requests = Requests::new(sampler, order, &ranks, plan.epochs, &state);
        let cache = ImageCache::open(&spec.training, &place, &options.cache, &data)?;
        reporter.say(&cache.describe(&data, spec.training.image_size));
        let loader = Loader::start(
            loader_config(threads),
            data.train_source(&spec, &state, rectangles.as_ref(), plan.epochs, &cache),
            requests,
        )?;
        let shape = Shape::rectangle(multiple);
        let evaluator = Evaluator::new(
            data.val_source(&spec, shape, &cache),
            loss,
            portions::evaluated(&spec.training, portions),
            threads.loader,
        );
        let keep = spec.training.keep_checkpoints as usize;
        let writer = ranks
            .is_first()
            .then(|| Writer::of_run(folder.clone(), store.clone(), keep));
        let mut session = Self {
            plan,
            gallery: Gallery::of_first(&ranks, &folder, &spec.output, &data.train),
            learner,
            ranks,
            loader,
            evaluator,
            weight_decay: scaled_weight_decay(
                spec.hyperparameters.weight_decay,
                spec.training.batch_size,
                spec.hyperparameters.nominal_batch_size,
            ),
            folder,
            store,
            writer,
            snapshots: kept.map(|kept| Snapshots::start(kept, spec.training.snapshot_seconds)),
            skipped: Skipped::new(&data, &state),
            data,
            stop: options.stop,
            reporter,
            verify: options.verify_ranks,
            faults: options.faults,
            out_of_memory: options.out_of_memory,
            beginning,
            last_checkpoint: Instant::now(),
            threads,
            cache,
            rectangles,
            saving: Duration::ZERO,
            schedule,
            state,
            job,
        };
        session.compute_in_full_if_due();
        Ok(session)
    }

    /// Says that the run goes on.
    pub(crate) fn begin(&mut self) {
        if let Some(best) = self.state.best.as_ref().map(|_| self.folder.best_weights()) {
            self.reporter.best_weights(self.folder.relative(&best));
        }
        self.reporter.skipped_images(self.skipped.count());
        self.reporter.begin(self.plan, &self.state);
    }

    pub(crate) fn spec(&self) -> &TrainerSpec {
        &self.job.config.spec
    }

    /// Training images.
    pub(crate) fn images(&self) -> u64 {
        self.plan.images
    }

    pub(crate) fn is_done(&self) -> bool {
        // An epoch that was begun is still to be evaluated, also by a start that has no step left to do.
        let is_between_epochs = self.state.position == 0;
        self.state.epoch >= self.plan.epochs
            || self.state.early_stopping.stopped
            || (self.is_spent() && is_between_epochs)
    }

    /// Whether the steps or the time that the run was given are used up.
    pub(crate) fn is_spent(&self) -> bool {
        let iterations = self.spec().training.iterations;
        iterations.is_some_and(|most| self.state.step >= most) || self.state.spent >= 1.0
    }

    /// The share of the time that was used, as this rank sees it; 0 without a limit.
    pub(crate) fn spent_here(&self) -> f64 {
        let hours = self.spec().training.hours;
        hours.map_or(0.0, |hours| self.state.training_seconds / (3600.0 * hours))
    }

    /// Whether the time between checkpoints is over, as this rank sees it.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        // One at a time: nobody is to go on from a snapshot beside it that takes what is being written for written.
        let writes = self.writer.as_ref().is_some_and(Writer::is_busy);
        let minutes = self.spec().training.checkpoint_minutes;
        let minutes = minutes.filter(|_| !writes);
        minutes
            .is_some_and(|minutes| self.last_checkpoint.elapsed().as_secs_f64() >= 60.0 * minutes)
    }

    /// Width and height to which the images of the next step are brought.
    pub(crate) fn size(&self, batch: &Batch) -> (u32, u32) {
        let training = &self.spec().training;
        let times = if training.quad { 2 } else { 1 };
        let own = match (batch.width, batch.height) {
            // A rank without images.
            (0, _) => (training.image_size, training.image_size),
            (width, height) => (times * width, times * height),
        };
        if training.multi_scale == 0.0 {
            return own;
        }
        let multiple = self.learner.network.options().architecture.multiple();
        let side = multi_scale::side(
            recovery_seed(training.seed.into(), self.state.recovery),
            self.state.step,
            training.image_size,
            training.multi_scale,
            multiple,
        );
        multi_scale::resized(own, side, multiple)
    }

    /// Gives the images of the epoch that begins their weights, if the order goes by these.
    pub(crate) fn weigh_images(&mut self) {
        if self.spec().training.image_weights {
            let weights = epoch_weights(&self.data, &self.state);
            self.loader.tell(|requests| requests.weigh(weights));
        }
    }

    /// Learning rates and accumulation of the next step.
    pub(crate) fn plan_step(&self) -> StepPlan {
        self.plan_at(self.iteration())
    }

    /// What the last step of the present epoch used.
    pub(crate) fn last_plan(&self) -> StepPlan {
        self.plan_at(self.iteration().saturating_sub(1))
    }

    /// The plan as it is from the present state on.
    fn plan_of_state(&self) -> Plan {
        let steps = self.plan.steps_per_epoch;
        plan(self.spec(), &self.data, &self.schedule, steps, &self.state)
    }

    fn iteration(&self) -> u64 {
        iteration(self.spec(), self.plan.steps_per_epoch, &self.state)
    }

    fn plan_at(&self, iteration: u64) -> StepPlan {
        let RunState { epoch, spent, .. } = self.state;
        self.schedule
            .at(iteration, self.plan.steps_per_epoch, epoch, spent)
    }

    /// The bytes of every rank.
    pub(crate) fn gather(
        &mut self,
        when: &'static str,
        bytes: &[u8],
    ) -> Result<Vec<Vec<u8>>, Error> {
        self.ranks
            .gather(bytes)
            .map_err(|source| Error::Ranks { when, source })
    }

    /// Tells all ranks which images could not be decoded lately, and the user.
    pub(crate) fn share_skipped(&mut self) -> Result<(), Error> {
        if let Some(problem) = self.cache.problem() {
            self.reporter.warn(&problem);
        }
        let own = self.skipped.take_new();
        let all = self.gather("the exchange of skipped images", own.as_bytes())?;
        for bytes in all {
            for text in String::from_utf8_lossy(&bytes).lines() {
                if self.skipped.learn(text) && self.ranks.is_first() {
                    self.reporter.warn(&format!("image skipped: {text}"));
                }
            }
        }
        self.state.skipped = self.skipped.texts();
        self.reporter.skipped_images(self.skipped.count());
        Ok(())
    }
}

/// Rank 0 takes the run's folder over, and all ranks the anchors that fit the data set. Returns, on rank 0, which
/// settings are others than at the last start.
fn take_folder(
    job: &mut Job,
    data: &Data,
    folder: &RunFolder,
    store: &CheckpointStore,
    ranks: &mut Ranks,
    reporter: &Reporter,
) -> Result<Vec<String>, Error> {
    let mut changes = Vec::new();
    if ranks.is_first() {
        changes = match folder.claim(&job.config) {
            // A start that was killed may have left what fills the volume.
            Err(error) if error.is_full() => {
                folder.remove_unfinished(store)?;
                folder.claim(&job.config)
            }
            claimed => claimed,
        }?;
        folder.write_options(&job.config.job.name, &job.config.spec)?;
        folder.remove_unfinished(store)?;
    }
    let spec = &mut job.config.spec;
    if job.fits_anchors
        && let Some(anchors) = anchors::agree(spec, data, folder, store, ranks, reporter)?
    {
        spec.model.anchors = Some(anchors);
    }
    Ok(changes)
}

/// How epochs order the images, from a state on.
fn order(
    spec: &TrainerSpec,
    data: &Data,
    rectangles: Option<&RectPlan>,
    state: &RunState,
) -> Order {
    match rectangles {
        Some(plan) => Order::Fixed(plan.order.clone()),
        None if spec.training.image_weights => Order::Weighted(Some(epoch_weights(data, state))),
        None => Order::Shuffled,
    }
}

/// Of the present epoch.
fn epoch_weights(data: &Data, state: &RunState) -> EpochWeights {
    EpochWeights {
        epoch: state.epoch,
        weights: data.image_weights(&state.class_aps),
    }
}

fn limits(spec: &TrainerSpec) -> Limits {
    Limits {
        gathering: contract::env::RENDEZVOUS_TIMEOUT,
        collective: Duration::from_secs(spec.distributed.timeout_seconds.into()),
    }
}

fn loader_config(threads: Threads) -> LoaderConfig {
    LoaderConfig {
        threads: threads.loader,
        prefetch_steps: PREFETCH_STEPS,
    }
}

fn machine(world_size: u32, threads: &Threads, chosen: &Chosen, portions: u32) -> Machine {
    Machine {
        portions,
        world_size,
        compute_threads: threads.compute,
        device: chosen.name.clone(),
        libtorch: runtime::torch_version(),
    }
}
