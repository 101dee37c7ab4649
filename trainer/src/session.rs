//! A run ready to go on: device, data, ranks and state, new or from the newest checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use contract::progress::Phase;
use contract::spec::{Schedule as ScheduleSetting, TrainerSpec};
use tch::Tensor;
use torch_bridge::runtime;
use trainer_core::anchors::{self, DEFAULT_ANCHORS};
use trainer_core::rng::recovery_seed;
use trainer_core::sampler::{EpochOrder, OrderKind, Sampler};
use trainer_core::schedule::{Schedule, ScheduleKind, StepPlan, scaled_weight_decay};
use trainer_data::{
    Dataset, EvaluateSource, ImageStore, Loader, LoaderConfig, SampleSource, Sizing, SkippedImage,
    Split, StepRequest, TrainSource,
};
use trainer_model::loss::{Loss, LossSettings};
use trainer_model::network::{Network, NetworkOptions};

use crate::checkpoint::{CheckpointStore, Loaded, Machine, NamedTensors, RunState, Writer};
use crate::device::{self, Chosen};
use crate::distributed::Ranks;
use crate::distributed::rendezvous::{self, Limits};
use crate::error::Error;
use crate::evaluate::{self, Evaluator};
use crate::job::Job;
use crate::memory;
use crate::report::{Plan, Reporter};
use crate::run_folder::RunFolder;
use crate::shutdown::StopRequest;
use crate::step::Learner;
use crate::threads::{Threads, available_cpus};

/// Batches made ahead of time on each rank.
const PREFETCH_STEPS: usize = 4;
/// YOLOv5 looks for other anchors when fewer of the boxes than this can be matched.
const ENOUGH_RECALL: f32 = 0.98;

/// Everything the training loop works with.
pub struct Session<'a> {
    pub(crate) job: Job,
    pub(crate) plan: Plan,
    pub(crate) state: RunState,
    pub(crate) learner: Learner,
    pub(crate) ranks: Ranks,
    pub(crate) loader: Loader<Requests>,
    pub(crate) evaluator: Evaluator,
    pub(crate) dataset: Arc<Dataset>,
    pub(crate) weight_decay: f64,
    pub(crate) folder: RunFolder,
    pub(crate) store: CheckpointStore,
    /// Only on rank 0.
    pub(crate) writer: Option<Writer>,
    pub(crate) skipped: Skipped,
    pub(crate) stop: StopRequest,
    pub(crate) reporter: &'a mut Reporter,
    pub(crate) verify: bool,
    /// Time in which the loop waited for a checkpoint, since the last step.
    pub(crate) saving: Duration,
    schedule: Schedule,
}

/// What a start is told besides the job.
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// Whether somebody wants the run to stop.
    pub stop: StopRequest,
    /// Compare the state of all ranks after every step of the optimiser.
    pub verify_ranks: bool,
}

impl<'a> Session<'a> {
    /// Opens the data, meets the other ranks and takes up the run where it stands.
    pub fn open(
        job: Job,
        options: StartOptions,
        reporter: &'a mut Reporter,
    ) -> Result<Self, Error> {
        reporter.phase(Phase::Starting);
        let spec = job.config.spec.clone();
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
        let limits = Limits {
            gathering: contract::env::RENDEZVOUS_TIMEOUT,
            collective: Duration::from_secs(spec.distributed.timeout_seconds.into()),
        };
        let mut ranks = rendezvous::meet(&place, chosen.backend.clone(), limits)?;
        data.agree(&mut ranks)?;

        let folder = RunFolder::new(&job.output, &job.config, place.attempt);
        let store = CheckpointStore::new(folder.checkpoints(), place.attempt);
        if ranks.is_first() {
            folder.claim(&job.config)?;
            store.remove_unfinished()?;
        }
        let machine = Machine {
            world_size: place.world_size,
            compute_threads: threads.compute,
            device: chosen.name.clone(),
            libtorch: runtime::torch_version(),
        };
        let (mut learner, loss) = learner(&spec, &data, &chosen, &mut ranks)?;
        let names = data.train.names().to_vec();
        let fresh = RunState::new(spec.clone(), names, data.digest.clone(), machine);
        let state = restore(&mut ranks, &store, &mut learner, fresh, reporter)?;
        learner
            .settle(spec.training.image_size)
            .map_err(|source| Error::Step {
                step: state.step,
                source,
            })?;

        introduce(&spec, &data, &learner, &state, reporter);
        let batch = spec.training.batch_size;
        let sampler = sampler(&spec, &data, &state)?;
        let plan = Plan {
            epochs: spec.training.epochs,
            steps_per_epoch: sampler.steps_per_epoch() as u64,
            images: data.train.len() as u64,
            evaluate_every: spec.training.evaluate_every,
        };
        let requests = Requests::new(sampler, &ranks, plan.epochs, &state);
        let config = LoaderConfig {
            threads: threads.loader,
            prefetch_steps: PREFETCH_STEPS,
        };
        let budget = memory::cache_budget(place.local_world_size) / 2;
        let loader = Loader::start(config, data.train_source(&spec, &state, budget), requests)?;
        let evaluator = Evaluator::new(
            data.val_source(&spec, budget),
            loss,
            (batch as usize).min(evaluate::MAX_BATCH),
            threads.loader,
        );
        let keep = spec.training.keep_checkpoints as usize;
        let writer = ranks
            .is_first()
            .then(|| Writer::start(folder.clone(), store.clone(), keep));
        Ok(Self {
            plan,
            learner,
            ranks,
            loader,
            evaluator,
            weight_decay: scaled_weight_decay(
                spec.hyperparameters.weight_decay,
                batch,
                spec.hyperparameters.nominal_batch_size,
            ),
            folder,
            store,
            writer,
            skipped: Skipped::new(&data, &state),
            dataset: data.train,
            stop: options.stop,
            reporter,
            verify: options.verify_ranks,
            saving: Duration::ZERO,
            schedule: schedule(&spec),
            state,
            job,
        })
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
        self.state.epoch >= self.plan.epochs
    }

    /// Learning rates and accumulation of the next step.
    pub(crate) fn plan_step(&self) -> StepPlan {
        let RunState { step, epoch, .. } = self.state;
        self.schedule.at(step, self.plan.steps_per_epoch, epoch)
    }

    /// What the last step of the present epoch used.
    pub(crate) fn last_plan(&self) -> StepPlan {
        let RunState { step, epoch, .. } = self.state;
        self.schedule
            .at(step.saturating_sub(1), self.plan.steps_per_epoch, epoch)
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
        let own = std::mem::take(&mut self.skipped.new).join("\n");
        let all = self.gather("the exchange of skipped images", own.as_bytes())?;
        for bytes in all {
            for text in String::from_utf8_lossy(&bytes).lines() {
                if self.skipped.known.insert(text.to_owned()) && self.ranks.is_first() {
                    self.reporter.warn(&format!("image skipped: {text}"));
                }
            }
        }
        self.state.skipped = self.skipped.known.iter().cloned().collect();
        self.reporter.skipped_images(self.skipped.count());
        Ok(())
    }
}

/// Both splits of the data set.
struct Data {
    train: Arc<Dataset>,
    val: Arc<Dataset>,
    digest: String,
}

impl Data {
    fn open(job: &Job, reporter: &mut Reporter) -> Result<Self, Error> {
        let config = &job.config.spec.dataset.config;
        let open = |split| Dataset::open(&job.dataset, config, split).map(Arc::new);
        let (train, val) = (open(Split::Train)?, open(Split::Val)?);
        for (split, dataset) in [(Split::Train, &train), (Split::Val, &val)] {
            reporter.say(&format!("{}: {}", split.as_str(), dataset.summary()));
            // Every rank finds the same; one tells.
            let told = if reporter.is_first() {
                dataset.skipped()
            } else {
                &[]
            };
            for skipped in told {
                reporter.warn(&format!("image skipped: {skipped}"));
            }
        }
        let digest = digest(&train);
        Ok(Self { train, val, digest })
    }

    fn describe(&self) -> String {
        format!(
            "{} training images and {} validation images, {}",
            self.train.len(),
            self.val.len(),
            &self.digest[..16]
        )
    }

    /// Makes sure that all ranks see the same images.
    fn agree(&self, ranks: &mut Ranks) -> Result<(), Error> {
        let here = self.describe();
        let all = ranks
            .gather(here.as_bytes())
            .map_err(|source| Error::Ranks {
                when: "the comparison of their data sets",
                source,
            })?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::OtherDataset {
                rank,
                here: String::from_utf8_lossy(&all[rank]).into_owned(),
                first: String::from_utf8_lossy(&all[0]).into_owned(),
            }),
        }
    }

    fn train_source(
        &self,
        spec: &TrainerSpec,
        state: &RunState,
        budget: u64,
    ) -> Arc<dyn SampleSource> {
        let size = spec.training.image_size;
        let store = ImageStore::new(Arc::clone(&self.train), size, Sizing::Train, budget);
        let seed = recovery_seed(spec.training.seed.into(), state.recovery);
        Arc::new(TrainSource::new(store, seed, &spec.augmentation))
    }

    fn val_source(&self, spec: &TrainerSpec, budget: u64) -> EvaluateSource {
        let size = spec.training.image_size;
        EvaluateSource::new(ImageStore::new(
            Arc::clone(&self.val),
            size,
            Sizing::Evaluate,
            budget,
        ))
    }
}

/// BLAKE3 over names and sizes of the images, in hexadecimal.
fn digest(dataset: &Dataset) -> String {
    let mut hasher = blake3::Hasher::new();
    for image in dataset.images() {
        hasher.update(image.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&image.size.0.to_le_bytes());
        hasher.update(&image.size.1.to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// A network with its initial values, and what it learns by.
fn learner(
    spec: &TrainerSpec,
    data: &Data,
    chosen: &Chosen,
    ranks: &mut Ranks,
) -> Result<(Learner, Loss), Error> {
    let mut options = NetworkOptions::new(spec.model.size, data.train.classes());
    options.device = chosen.device;
    let network = Network::initialised(&options, spec.training.seed.into())?;
    let settings = LossSettings::scaled(
        &spec.hyperparameters,
        data.train.classes(),
        spec.training.image_size,
    );
    let loss = Loss::new(&options, settings);
    let normalisation = spec.hyperparameters.loss_normalisation;
    let learner = Learner::new(network, loss.clone(), normalisation, ranks)
        .map_err(|source| Error::Step { step: 0, source })?;
    Ok((learner, loss))
}

/// Takes up the newest whole checkpoint, if there is one. Rank 0 decides which and hands everything out, so
/// the others need not see the output volume, or not yet.
fn restore(
    ranks: &mut Ranks,
    store: &CheckpointStore,
    learner: &mut Learner,
    fresh: RunState,
    reporter: &mut Reporter,
) -> Result<RunState, Error> {
    let lost = |source| Error::Ranks {
        when: "the start",
        source,
    };
    let mut state = None;
    if ranks.is_first() {
        let found = store.newest_whole()?;
        for reason in &found.passed_over {
            reporter.warn(&format!("checkpoint passed over: {reason}"));
        }
        if let Some(loaded) = found.newest {
            state = Some(take_up(loaded, learner, &fresh, reporter)?);
        }
    }
    let bytes = serde_json::to_vec(&state).expect("a state always becomes JSON");
    let bytes = ranks.bytes_of_first(bytes).map_err(lost)?;
    let state: Option<RunState> =
        serde_json::from_slice(&bytes).expect("rank 0 runs the same program");

    let updates = state.as_ref().map_or(0, |state| state.ema_updates);
    if ranks.world() > 1 {
        let model = shared(ranks, learner.network.state().export()?).map_err(lost)?;
        let ema = shared(ranks, learner.ema.state().export()?).map_err(lost)?;
        let momentum = shared(ranks, learner.sgd.export()?).map_err(lost)?;
        learner.network.state_mut().import(&model)?;
        learner.ema.restore(updates, &ema)?;
        learner.sgd.import(&momentum)?;
    }
    Ok(match state {
        None => fresh,
        Some(state) => RunState {
            machine: fresh.machine,
            spec: fresh.spec,
            ..state
        },
    })
}

/// Rank 0's tensors.
fn shared(
    ranks: &mut Ranks,
    tensors: Vec<(String, Tensor)>,
) -> crate::distributed::Result<NamedTensors> {
    let (names, mut values): (Vec<String>, Vec<Tensor>) = tensors.into_iter().unzip();
    ranks.take_all_from_first(&mut values)?;
    Ok(names.into_iter().zip(values).collect::<BTreeMap<_, _>>())
}

fn take_up(
    loaded: Loaded,
    learner: &mut Learner,
    fresh: &RunState,
    reporter: &mut Reporter,
) -> Result<RunState, Error> {
    let checkpoint = loaded.path.display().to_string();
    let state = loaded.state;
    if state.dataset != fresh.dataset || state.names != fresh.names {
        return Err(Error::ChangedDataset { checkpoint });
    }
    let failed = |source| Error::Restore {
        checkpoint: checkpoint.clone(),
        source,
    };
    learner
        .network
        .state_mut()
        .import(&loaded.model)
        .map_err(failed)?;
    learner
        .ema
        .restore(state.ema_updates, &loaded.ema)
        .map_err(failed)?;
    learner.sgd.import(&loaded.optimizer).map_err(failed)?;
    reporter.say(&format!(
        "going on from {checkpoint} of attempt {} (step {}, epoch {})",
        state.attempt,
        state.step,
        state.epoch + 1
    ));
    let differences = fresh.machine.differences(&state.machine);
    if !differences.is_empty() {
        reporter.warn(&format!(
            "results will not be bit-identical to an uninterrupted run: {}",
            differences.join(", ")
        ));
    }
    Ok(state)
}

fn introduce(
    spec: &TrainerSpec,
    data: &Data,
    learner: &Learner,
    state: &RunState,
    reporter: &mut Reporter,
) {
    let Machine {
        world_size,
        compute_threads,
        device,
        libtorch,
    } = &state.machine;
    reporter.say(&format!(
        "yolov5{} with {} classes, {} parameters; {world_size} processes x {compute_threads} threads on {device}, libtorch {libtorch}",
        spec.model.size.as_str(),
        data.train.classes(),
        learner.network.state().parameter_count(),
    ));
    let boxes = data.train.box_sizes(spec.training.image_size);
    let threshold = spec.hyperparameters.anchor_threshold as f32;
    let fit = anchors::fit(&boxes, DEFAULT_ANCHORS.as_flattened(), threshold);
    if fit.best_possible_recall < ENOUGH_RECALL {
        let percent = 100.0 * (1.0 - fit.best_possible_recall);
        let text = format!(
            "{percent:.1} % of the labels match no anchor and are not learnt: raise training.imageSize or hyperparameters.anchorThreshold"
        );
        if reporter.is_first() {
            reporter.warn(&text);
        }
    }
}

fn sampler(spec: &TrainerSpec, data: &Data, state: &RunState) -> Result<Sampler, Error> {
    let seed = recovery_seed(spec.training.seed.into(), state.recovery);
    let batch = spec.training.batch_size as usize;
    Sampler::new(seed, OrderKind::Shuffled, data.train.len(), batch).map_err(Error::Sampler)
}

fn schedule(spec: &TrainerSpec) -> Schedule {
    let hyperparameters = &spec.hyperparameters;
    Schedule {
        kind: match hyperparameters.schedule {
            ScheduleSetting::Linear => ScheduleKind::Linear,
            ScheduleSetting::Cosine => ScheduleKind::Cosine,
        },
        epochs: spec.training.epochs,
        lr0: hyperparameters.lr0,
        lrf: hyperparameters.lrf,
        momentum: hyperparameters.momentum,
        warmup_epochs: hyperparameters.warmup_epochs,
        warmup_momentum: hyperparameters.warmup_momentum,
        warmup_bias_lr: hyperparameters.warmup_bias_lr,
        batch: spec.training.batch_size,
        nominal_batch: hyperparameters.nominal_batch_size,
    }
}

/// This rank's images of each step, from a state to the end of the run.
pub struct Requests {
    sampler: Sampler,
    rank: usize,
    world: usize,
    epochs: u32,
    epoch: u32,
    position: usize,
    step: u64,
    order: Option<EpochOrder>,
}

impl Requests {
    fn new(sampler: Sampler, ranks: &Ranks, epochs: u32, state: &RunState) -> Self {
        Self {
            sampler,
            rank: ranks.rank() as usize,
            world: ranks.world() as usize,
            epochs,
            epoch: state.epoch,
            position: state.position as usize,
            step: state.step,
            order: None,
        }
    }
}

impl Iterator for Requests {
    type Item = StepRequest;

    fn next(&mut self) -> Option<StepRequest> {
        while self.epoch < self.epochs {
            let epoch = u64::from(self.epoch);
            let order = self.order.get_or_insert_with(|| self.sampler.epoch(epoch));
            if self.position >= order.len() {
                self.epoch += 1;
                self.position = 0;
                self.order = None;
                continue;
            }
            let request = StepRequest {
                epoch,
                step: self.step,
                indices: order
                    .share(self.position, self.rank, self.world)
                    .images
                    .to_vec(),
            };
            self.position += order.batch(self.position).len();
            self.step += 1;
            return Some(request);
        }
        None
    }
}

/// Images that could not be decoded when their turn came.
pub(crate) struct Skipped {
    /// On any rank, each once; their texts.
    known: std::collections::BTreeSet<String>,
    /// On this rank, since the ranks last told each other.
    new: Vec<String>,
    /// Those that were left out when the data set was opened.
    at_start: u64,
}

impl Skipped {
    fn new(data: &Data, state: &RunState) -> Self {
        Self {
            known: state.skipped.iter().cloned().collect(),
            new: Vec::new(),
            at_start: (data.train.skipped().len() + data.val.skipped().len()) as u64,
        }
    }

    pub(crate) fn note(&mut self, images: &[SkippedImage]) {
        for image in images {
            let text = image.to_string().replace('\n', " ");
            if !self.known.contains(&text) && !self.new.contains(&text) {
                self.new.push(text);
            }
        }
    }

    fn count(&self) -> u64 {
        self.at_start + self.known.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_cross_epochs_and_go_on_from_any_position() {
        let request = |position: usize, epoch: u32| Requests {
            sampler: Sampler::new(1, OrderKind::Shuffled, 10, 4).expect("valid"),
            rank: 1,
            world: 2,
            epochs: 2,
            epoch,
            position,
            step: u64::from(epoch) * 3 + position as u64 / 4,
            order: None,
        };
        let all: Vec<_> = request(0, 0).collect();
        assert_eq!(6, all.len());
        assert_eq!(all[2..], request(8, 0).collect::<Vec<_>>());
        // At the end of an epoch, its evaluation may be left to do, but no step.
        let after: Vec<_> = request(10, 0).map(|r| (r.epoch, r.indices)).collect();
        let expected: Vec<_> = all[3..]
            .iter()
            .map(|r| (r.epoch, r.indices.clone()))
            .collect();
        assert_eq!(expected, after);
        assert_eq!([2, 2, 1], [0, 1, 2].map(|step| all[step].indices.len()));
    }
}
