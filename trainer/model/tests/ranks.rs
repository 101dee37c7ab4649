//! Several processes with shares of a batch are one process with the whole batch.
//!
//! Ranks are threads here. Each has the same two images, so that normalisation by a rank's own batch
//! equals normalisation by the whole one, and only the loss and the gradients are under test. Gradients
//! are not clipped: clipping would hide a wrong factor.

use std::thread;
use std::time::Duration;

use contract::spec::{Hyperparameters, ModelSize};
use tch::{Device, Kind, Tensor};
use torch_bridge::{GroupOptions, ProcessGroup, Reducer, ReducerOptions, Store};
use trainer_core::boxes::Xywh;
use trainer_model::loss::{Denominators, Loss, LossSettings, Target};
use trainer_model::network::{Network, NetworkOptions};
use trainer_model::optim::{Optimizer, OptimizerStep, Rule};

const RANKS: usize = 3;
const IMAGES: usize = 2;
const STEPS: usize = 3;
const SIDE: usize = 64;
const STEP: OptimizerStep = OptimizerStep {
    lr_bias: 0.002,
    lr_other: 0.001,
    momentum: 0.9,
    weight_decay: 0.0005,
};

/// Double precision leaves no room for a wrong factor to hide in rounding.
fn options() -> NetworkOptions {
    NetworkOptions {
        kind: Kind::Double,
        ..NetworkOptions::new(ModelSize::N, 3)
    }
}

fn images() -> Tensor {
    let elements = (IMAGES * 3 * SIDE * SIDE) as i64;
    let wave = Tensor::arange(elements, (Kind::Double, Device::Cpu)) * 0.01;
    let images = (wave.sin() * 0.5 + 0.5).view([IMAGES as i64, 3, SIDE as i64, SIDE as i64]);
    torch_bridge::contiguous_channels_last(&images).expect("four dimensions")
}

/// The targets of `copies` times the same images.
fn targets(copies: usize) -> Vec<Target> {
    let of_copy = |copy: usize| {
        [
            (0, 1, 0.5, 0.4, 0.3, 0.3),
            (0, 2, 0.2, 0.7, 0.1, 0.2),
            (1, 0, 0.6, 0.6, 0.8, 0.5),
        ]
        .map(|(image, class, x, y, w, h)| Target {
            image: (copy * IMAGES) as u32 + image,
            class,
            xywh: Xywh::new(x, y, w, h),
        })
    };
    (0..copies).flat_map(of_copy).collect()
}

fn loss() -> Loss {
    let settings = LossSettings::scaled(
        &Hyperparameters::default(),
        &options().architecture,
        SIDE as u32,
    );
    Loss::new(&options(), settings)
}

/// The parameters after training on all images in one process.
fn alone() -> Vec<Tensor> {
    let network = Network::initialised(&options(), 1).expect("memory");
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let images = images().repeat([RANKS as i64, 1, 1, 1]);
    let assignment = loss()
        .assign(&targets(RANKS), RANKS * IMAGES, SIDE, SIDE)
        .expect("targets of the batch");
    for _ in 0..STEPS {
        let raw = network.train(&images).expect("64 pixels");
        let terms = loss().terms(&raw, &assignment).expect("this batch");
        let total = terms
            .total(&terms.own, (RANKS * IMAGES) as f64)
            .expect("scalars");
        optimizer.zero_grad().expect("in place");
        total.loss.backward();
        optimizer.step(&STEP, None).expect("all gradients exist");
    }
    network
        .state()
        .parameter_tensors()
        .iter()
        .map(|tensor| tensor.detach().copy())
        .collect()
}

/// The same on one of several ranks with its share of the images; gradients are averaged by a reducer
/// that keeps them in its messages.
fn as_rank(group: &ProcessGroup) -> Vec<Tensor> {
    let network = Network::initialised(&options(), 1).expect("memory");
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let named: Vec<(String, Tensor)> = network
        .state()
        .parameters()
        .map(|entry| (entry.name.clone(), entry.tensor.shallow_clone()))
        .collect();
    let reducer = ReducerOptions {
        gradient_as_bucket_view: true,
        ..ReducerOptions::default()
    };
    let mut reducer = Reducer::new(group, &named, reducer).expect("trainable parameters");
    let assignment = loss()
        .assign(&targets(1), IMAGES, SIDE, SIDE)
        .expect("targets of the batch");
    let mut denominators = Denominators::default();
    for _ in 0..group.size() {
        denominators += assignment.denominators();
    }
    for step in 0..STEPS {
        reducer.prepare_for_forward().expect("a whole group");
        let rebuilt = reducer.rebuild_buckets().expect("a whole group");
        assert_eq!(step == 1, rebuilt);
        let raw = network.train(&images()).expect("64 pixels");
        let terms = loss().terms(&raw, &assignment).expect("this batch");
        let global_batch = group.size() * IMAGES;
        let total = terms
            .total(&denominators, (global_batch * group.size()) as f64)
            .expect("scalars");
        optimizer.zero_grad().expect("in place");
        reducer.prepare_for_backward(&[]).expect("a whole group");
        reducer.backward(&total.loss).expect("a whole group");
        for (gradient, (name, parameter)) in optimizer.gradients().expect("all").iter().zip(&named)
        {
            assert_eq!(
                gradient.stride(),
                parameter.stride(),
                "{name}: {:?}",
                parameter.size()
            );
        }
        optimizer.step(&STEP, None).expect("all gradients exist");
    }
    network
        .state()
        .parameter_tensors()
        .iter()
        .map(|tensor| tensor.detach().copy())
        .collect()
}

#[test]
fn ranks_with_shares_equal_one_process_with_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("store");
    let run = &|rank| {
        let store = Store::file(&path, RANKS).expect("the folder is there");
        let options = GroupOptions {
            timeout: Duration::from_secs(30),
            hostname: Some("127.0.0.1".to_owned()),
            ..GroupOptions::default()
        };
        as_rank(&ProcessGroup::new(&store, rank, RANKS, options).expect("all ranks come"))
    };
    let of_ranks: Vec<Vec<Tensor>> = thread::scope(|scope| {
        let ranks: Vec<_> = (0..RANKS)
            .map(|rank| scope.spawn(move || run(rank)))
            .collect();
        ranks
            .into_iter()
            .map(|rank| rank.join().expect("the rank's assertions hold"))
            .collect()
    });
    let alone = alone();
    for (rank, parameters) in of_ranks.iter().enumerate() {
        for ((ours, first), alone) in parameters.iter().zip(&of_ranks[0]).zip(&alone) {
            assert!(ours.equal(first), "rank {rank} differs from rank 0");
            let difference = (ours - alone).abs().max().double_value(&[]);
            assert!(difference < 1e-9, "rank {rank}: {difference}");
        }
    }
}
