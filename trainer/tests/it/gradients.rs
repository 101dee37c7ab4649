//! Ranks that share a batch compute the gradient of one rank that has it all.

use std::thread::JoinHandle;
use std::time::Duration;

use contract::attempt::Attempt;
use contract::env::RankEnv;
use contract::spec::{Hyperparameters, LossNormalisation, ModelSize};
use tch::{Kind, Tensor};
use torch_bridge::group::Backend;
use trainer::distributed::rendezvous::{Limits, meet};
use trainer::distributed::{Ddp, Gradients, Ranks};
use trainer_core::boxes::Xywh;
use trainer_core::sampler::split;
use trainer_model::loss::{Denominators, Loss, LossSettings, Target};
use trainer_model::network::{Network, NetworkOptions};

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

/// All gradients of one rank, in a row.
fn gradient(mut ranks: Ranks, normalisation: LossNormalisation) -> Vec<f64> {
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

    let (pixels, targets) = batch();
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
    let raw = network.train(&images).expect("forward");
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

fn together(world: u32, normalisation: LossNormalisation) -> Vec<Vec<f64>> {
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
                gradient(
                    meet(&place, Backend::Gloo, limits).expect("met"),
                    normalisation,
                )
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
    let one = gradient(Ranks::alone(), LossNormalisation::Global);
    let three = together(3, LossNormalisation::Global);
    assert!(
        three.iter().all(|gradient| gradient == &three[0]),
        "the ranks differ"
    );
    let error = distance(&one, &three[0]);
    assert!(error < 1e-5, "the gradients differ by {error}");
    // As YOLOv5 averages, the number of ranks shows.
    let per_rank = together(3, LossNormalisation::PerRank);
    let error = distance(&one, &per_rank[0]);
    assert!(
        error > 1e-3,
        "averaging per rank makes a difference of only {error}"
    );
}
