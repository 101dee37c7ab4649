//! Ranks that share a batch compute the gradient of one rank that has it all.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use contract::attempt::Attempt;
use contract::env::RankEnv;
use contract::spec::{Hyperparameters, LossNormalisation, ModelSize};
use tch::{Kind, Tensor};
use torch_bridge::SyncNorm;
use torch_bridge::group::Backend;
use trainer::distributed::rendezvous::{Limits, meet};
use trainer::distributed::{Ddp, Gradients, Ranks};
use trainer::step::{Learner, LearnerOptions, StepInput};
use trainer_core::boxes::Xywh;
use trainer_core::sampler::split;
use trainer_core::schedule::StepPlan;
use trainer_data::{Drawn, Loader, LoaderConfig, Sample, SampleSource, SampleTarget, StepRequest};
use trainer_model::loss::{Denominators, Loss, LossSettings, Target};
use trainer_model::network::{Network, NetworkOptions};
use trainer_model::optim::Rule;

use crate::harness::free_port;

const BATCH: usize = 7;
const SIDE: i64 = 64;

fn options() -> NetworkOptions {
    NetworkOptions {
        kind: Kind::Double,
        ..NetworkOptions::new(ModelSize::N, 3)
    }
}

/// The whole batch: one image many times with different objects.
///
/// Batch normalisation sees the images of its own rank only. With equal images its statistics are the same
/// however they are dealt out, and what it adds to the gradient is a sum over images; so the gradients must
/// agree although the network is in training mode.
fn batch() -> (Tensor, Vec<Target>) {
    let count = 3 * SIDE * SIDE;
    let pixels = (Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.01).sin() * 0.5 + 0.5;
    let targets = (0..BATCH as u32)
        .flat_map(|image| (0..image % 4).map(move |k| (image, k)))
        .map(|(image, k)| Target {
            image,
            class: (k % 3) as u16,
            xywh: Xywh::new(0.2 + 0.2 * k as f32, 0.3 + 0.05 * image as f32, 0.2, 0.3),
        })
        .collect();
    let images = pixels
        .view([1, 3, SIDE, SIDE])
        .repeat([BATCH as i64, 1, 1, 1]);
    (images, targets)
}

/// Different images with the same objects; ranks normalise them together.
fn different_images(images: &Tensor) -> Tensor {
    let count = BATCH as i64 * 3 * SIDE * SIDE;
    let wave = Tensor::arange(count, (Kind::Double, tch::Device::Cpu)) * 0.0137;
    images * 0.5 + (wave.sin() * 0.25 + 0.25).view([BATCH as i64, 3, SIDE, SIDE])
}

/// How ranks work together.
#[derive(Clone, Copy)]
struct Together {
    normalisation: LossNormalisation,
    /// Whether they normalise together; the images differ then.
    sync: bool,
}

const GLOBAL: Together = Together {
    normalisation: LossNormalisation::Global,
    sync: false,
};

/// All gradients of one rank, in a row.
fn gradient(mut ranks: Ranks, how: Together) -> Vec<f64> {
    let normalisation = how.normalisation;
    let network = Network::initialised(&options(), 1).expect("a network");
    let loss = Loss::new(
        &options(),
        LossSettings::scaled(
            &Hyperparameters::default(),
            &options().architecture,
            SIDE as u32,
        ),
    );
    let state = network.state();
    let mut ddp = Ddp::new(
        &mut ranks,
        &state.parameter_names(),
        &state.parameter_tensors(),
    )
    .expect("hooked");

    let (mut pixels, targets) = batch();
    if how.sync {
        pixels = different_images(&pixels);
    }
    let (start, end) = split(BATCH, ranks.rank() as usize, ranks.world() as usize);
    let images = pixels.narrow(0, start as i64, (end - start) as i64);
    let own: Vec<Target> = targets
        .into_iter()
        .filter(|target| (start..end).contains(&(target.image as usize)))
        .map(|target| Target {
            image: target.image - start as u32,
            ..target
        })
        .collect();
    let assignment = loss
        .assign(&own, end - start, SIDE as usize, SIDE as usize)
        .expect("assigned");
    let counts = assignment
        .denominators()
        .to_array()
        .map(|count| count as f64);
    let sum = ranks.sum(&counts).expect("started");
    let all: Vec<i64> = ranks
        .finish(sum)
        .expect("summed")
        .iter()
        .map(|v| *v as i64)
        .collect();
    let (denominators, images_in_loss) = match normalisation {
        LossNormalisation::Global => (
            Denominators::from_array(all.try_into().expect("all counts")),
            BATCH,
        ),
        LossNormalisation::PerRank => (assignment.denominators(), end - start),
    };
    ddp.before_forward(Gradients::Averaged).expect("prepared");
    let raw = match ranks.shared_group() {
        Some(group) if how.sync => network.train_together(&images, SyncNorm::new(group, true)),
        _ => network.train(&images),
    };
    let raw = raw.expect("forward");
    let scale = images_in_loss as f64 * f64::from(ranks.world());
    let total = loss
        .terms(&raw, &assignment)
        .expect("terms")
        .total(&denominators, scale)
        .expect("total");
    ddp.backward(&total.loss, Gradients::Averaged)
        .expect("backward");
    let flat: Vec<Tensor> = network
        .state()
        .parameter_tensors()
        .iter()
        .map(|parameter| parameter.grad().contiguous().view([-1]))
        .collect();
    Vec::try_from(Tensor::cat(&flat, 0)).expect("numbers")
}

fn together(world: u32, how: Together) -> Vec<Vec<f64>> {
    let port = free_port();
    let threads: Vec<JoinHandle<Vec<f64>>> = (0..world)
        .map(|rank| {
            std::thread::spawn(move || {
                let place = RankEnv {
                    rank,
                    local_rank: rank,
                    world_size: world,
                    local_world_size: world,
                    master_addr: "127.0.0.1".to_owned(),
                    master_port: port,
                    attempt: Attempt::default(),
                };
                let limits = Limits {
                    gathering: Duration::from_secs(60),
                    collective: Duration::from_secs(60),
                };
                gradient(meet(&place, Backend::Gloo, limits).expect("met"), how)
            })
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect()
}

/// The largest difference, relative to the largest element.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let size = a.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
    a.iter()
        .zip(b)
        .fold(0.0, |max: f64, (a, b)| max.max((a - b).abs()))
        / size
}

#[test]
fn the_gradient_of_three_ranks_is_that_of_one() {
    let one = gradient(Ranks::alone(), GLOBAL);
    let three = together(3, GLOBAL);
    assert!(
        three.iter().all(|gradient| gradient == &three[0]),
        "the ranks differ"
    );
    let error = distance(&one, &three[0]);
    assert!(error < 1e-5, "the gradients differ by {error}");
    // As YOLOv5 averages, the number of ranks shows.
    let per_rank = together(
        3,
        Together {
            normalisation: LossNormalisation::PerRank,
            ..GLOBAL
        },
    );
    let error = distance(&one, &per_rank[0]);
    assert!(
        error > 1e-3,
        "averaging per rank makes a difference of only {error}"
    );
}

/// With different images on each rank and unequal numbers of objects; 4 ranks have 2, 2, 2 and 1 of the 7 images.
#[test]
fn ranks_that_normalise_together_have_the_gradient_of_one() {
    let sync = Together {
        sync: true,
        ..GLOBAL
    };
    let one = gradient(Ranks::alone(), sync);
    for world in [2, 4] {
        let all = together(world, sync);
        for gradient in &all {
            assert!(gradient == &all[0], "the {world} ranks differ");
        }
        let error = distance(&one, &all[0]);
        assert!(
            error < 1e-9,
            "{world} ranks: the gradients differ by {error}"
        );
    }
}

/// Samples of the same pixels with different objects: see [`batch`].
struct Same;

impl SampleSource for Same {
    fn len(&self) -> usize {
        BATCH
    }

    fn size(&self, _index: u32) -> (u32, u32) {
        (SIDE as u32, SIDE as u32)
    }

    fn sample(&self, _: u64, index: u32, _: Option<Drawn<'_>>, pixels: &mut [u8]) -> Sample {
        for (k, pixel) in (0..).zip(pixels) {
            *pixel = (k * 31 % 251) as u8;
        }
        let own = batch().1.into_iter().filter(|target| target.image == index);
        let targets = own.map(|target| SampleTarget {
            class: target.class,
            xywh: target.xywh,
        });
        Sample {
            targets: targets.collect(),
            ..Sample::default()
        }
    }
}

/// Gradients and losses of a step in so many portions.
fn in_portions(portions: u32) -> (Vec<f64>, [f64; 3]) {
    let options = options();
    let settings = LossSettings::scaled(
        &Hyperparameters::default(),
        &options.architecture,
        SIDE as u32,
    );
    let loss = Loss::new(&options, settings);
    let network = Network::initialised(&options, 1).expect("a network");
    let how = LearnerOptions {
        normalisation: LossNormalisation::Global,
        rule: Rule::Sgd,
        gradient_clip: 0.0,
        sync_norm: false,
        portions,
        quads: None,
        precision: None,
    };
    let mut ranks = Ranks::alone();
    let mut learner = Learner::new(network, loss, how, &mut ranks).expect("a learner");
    let request = StepRequest {
        indices: (0..BATCH as u32).collect(),
        ..StepRequest::default()
    };
    let config = LoaderConfig {
        threads: 1,
        prefetch_steps: 1,
    };
    let mut loader =
        Loader::start(config, Arc::new(Same), std::iter::once(request)).expect("a loader");
    let batch = loader.next().expect("one").expect("a batch");
    let input = StepInput {
        batch: &batch,
        size: (SIDE as u32, SIDE as u32),
        gradients: Gradients::Kept,
        plan: StepPlan {
            lr_bias: 0.0,
            lr_other: 0.0,
            momentum: 0.9,
            accumulate: 2,
        },
        weight_decay: 0.0,
        stop: false,
        save: false,
        spent: 0.0,
        made: None,
    };
    learner.step(&mut ranks, &input).expect("a step");
    let flat: Vec<Tensor> = learner
        .network
        .state()
        .parameter_tensors()
        .iter()
        .map(|parameter| parameter.grad().contiguous().view([-1]))
        .collect();
    let losses = learner.recent()[0].losses().expect("losses");
    let gradient = Tensor::cat(&flat, 0).to_kind(Kind::Double);
    (Vec::try_from(gradient).expect("numbers"), losses)
}

/// Seven images at once, in portions of 4 and 3, and one by one with a portion too many.
#[test]
fn portions_have_the_gradient_of_the_whole() {
    let (whole, losses) = in_portions(1);
    for portions in [2, 8] {
        let (gradient, these) = in_portions(portions);
        let error = distance(&whole, &gradient);
        assert!(error < 1e-9, "{portions} portions: {error}");
        for (a, b) in losses.iter().zip(these) {
            assert!((a - b).abs() < 1e-5 * a, "{losses:?} {these:?}");
        }
    }
}
