//! Gradients averaged while they are computed.

use tch::{Device, Kind, Tensor};
use torch_bridge::optim::{self, FusedSgd};
use torch_bridge::{Compression, Error, Reducer, ReducerOptions, verify_params};

use crate::{on_ranks, sample, values};

/// Two layers, so that gradients arrive in an order: `y = w2 · relu(w1 · x)`, each rank with its own x.
pub struct Model {
    first: Tensor,
    second: Tensor,
}

impl Model {
    pub fn new() -> Self {
        let weights = |rows: i64, columns: i64| {
            ((Tensor::arange(rows * columns, (Kind::Float, Device::Cpu)) + 1.0) / 8.0)
                .view([rows, columns])
                .set_requires_grad(true)
        };
        Self {
            first: weights(4, 3),
            second: weights(2, 4),
        }
    }

    fn params(&self) -> Vec<Tensor> {
        vec![self.first.shallow_clone(), self.second.shallow_clone()]
    }

    pub fn named(&self) -> Vec<(String, Tensor)> {
        ["first", "second"]
            .map(str::to_owned)
            .into_iter()
            .zip(self.params())
            .collect()
    }

    fn loss(&self, rank: usize) -> Tensor {
        self.second
            .matmul(&self.first.matmul(&sample(rank)).relu())
            .sum(None)
    }

    /// The gradients of one rank alone.
    fn local_gradients(&self, rank: usize) -> Vec<f64> {
        let grads = Tensor::run_backward(&[self.loss(rank)], &self.params(), false, false);
        grads.iter().flat_map(values).collect()
    }

    /// The mean over ranks of `times` the gradients of each.
    fn mean_gradients(&self, size: usize, times: f64) -> Vec<f64> {
        let mut mean = vec![0.0; 20];
        for rank in 0..size {
            for (sum, gradient) in mean.iter_mut().zip(self.local_gradients(rank)) {
                *sum += gradient * times / size as f64;
            }
        }
        mean
    }

    /// One forward and backward pass as a training loop does it, averaged over ranks or not.
    pub fn backward(
        &self,
        reducer: &mut Reducer,
        rank: usize,
        averaged: bool,
    ) -> Result<(), Error> {
        if averaged {
            reducer.prepare_for_forward()?;
            reducer.rebuild_buckets()?;
        }
        let loss = self.loss(rank);
        if averaged {
            reducer.prepare_for_backward(&[])?;
        }
        reducer.backward(&loss)
    }

    fn gradients(&self) -> Vec<f64> {
        self.params()
            .iter()
            .flat_map(|param| values(&param.grad()))
            .collect()
    }
}

fn assert_close(actual: &[f64], expected: &[f64]) {
    assert_eq!(actual.len(), expected.len());
    for (actual, expected) in actual.iter().zip(expected) {
        assert!(
            (actual - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{actual} is not {expected}"
        );
    }
}

#[test]
fn the_reducer_averages_gradients() {
    for (size, as_view, unused, compression) in [
        (2, false, false, Compression::None),
        (3, false, false, Compression::None),
        (3, true, false, Compression::None),
        (2, false, true, Compression::None),
        (2, true, false, Compression::Fp16),
    ] {
        let gradients = on_ranks(size, |group| {
            let rank = group.rank();
            let model = Model::new();
            let reducer_options = ReducerOptions {
                gradient_as_bucket_view: as_view,
                find_unused_parameters: unused,
                compression,
                ..ReducerOptions::default()
            };
            let mut reducer =
                Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
            let expected = model.mean_gradients(size, 1.0);
            for _ in 0..3 {
                if unused {
                    reducer.prepare_for_forward().expect("prepared");
                    let loss = model.loss(rank);
                    reducer
                        .prepare_for_backward(&[loss.shallow_clone()])
                        .expect("prepared");
                    reducer.backward(&loss).expect("all ranks step");
                } else {
                    model
                        .backward(&mut reducer, rank, true)
                        .expect("all ranks step");
                }
                if compression == Compression::None {
                    assert_close(&model.gradients(), &expected);
                } else {
                    // Eleven bits.
                    for (actual, expected) in model.gradients().iter().zip(&expected) {
                        assert!(
                            (actual - expected).abs() <= expected.abs() / 500.0,
                            "{actual} is not {expected}"
                        );
                    }
                }
                optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
                assert_eq!(model.gradients(), vec![0.0; 20]);
            }
            model
                .backward(&mut reducer, rank, !unused)
                .expect("all ranks step");
            if unused {
                Vec::new()
            } else {
                model.gradients()
            }
        });
        assert!(
            gradients.windows(2).all(|pair| pair[0] == pair[1]),
            "all ranks hold the same bytes"
        );
    }
}

#[test]
fn passes_that_are_not_prepared_accumulate_locally() {
    for as_view in [false, true] {
        on_ranks(2, |group| {
            let rank = group.rank();
            let model = Model::new();
            let reducer_options = ReducerOptions {
                gradient_as_bucket_view: as_view,
                ..ReducerOptions::default()
            };
            let mut reducer =
                Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
            for _ in 0..2 {
                model
                    .backward(&mut reducer, rank, false)
                    .expect("a pass of one rank");
                assert_close(&model.gradients(), &model.local_gradients(rank));
                model
                    .backward(&mut reducer, rank, true)
                    .expect("all ranks step");
                assert_close(&model.gradients(), &model.mean_gradients(2, 2.0));
                optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
            }
        });
    }
}

#[test]
fn buckets_are_rebuilt_once_to_their_sizes() {
    on_ranks(2, |group| {
        let rank = group.rank();
        let model = Model::new();
        // Smaller than either gradient, so that each gets a bucket of its own.
        let reducer_options = ReducerOptions {
            bucket_cap_bytes: 16,
            first_bucket_bytes: 16,
            ..ReducerOptions::default()
        };
        let mut reducer =
            Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
        let mut seen = Vec::new();
        for _ in 0..3 {
            reducer.prepare_for_forward().expect("prepared");
            seen.push((
                reducer.rebuild_buckets().expect("all ranks step"),
                reducer.bucket_count().expect("buckets"),
            ));
            let loss = model.loss(rank);
            reducer.prepare_for_backward(&[]).expect("prepared");
            reducer.backward(&loss).expect("all ranks step");
            assert_close(&model.gradients(), &model.mean_gradients(2, 1.0));
            optim::foreach_zero(&mut optim::grads(&model.params())).expect("gradients");
        }
        assert_eq!(seen, [(false, 1), (true, 2), (false, 2)]);
    });
}

#[test]
fn a_parameter_without_a_gradient_is_an_error_at_the_next_pass() {
    on_ranks(2, |mut group| {
        // Neither waits for the other later: one would be gone before the other had met it.
        group.barrier().expect("both are here");
        let model = Model::new();
        let mut named = model.named();
        named.push((
            "idle".to_owned(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true),
        ));
        let mut reducer =
            Reducer::new(&group, &named, ReducerOptions::default()).expect("same parameters");
        model
            .backward(&mut reducer, group.rank(), true)
            .expect("nothing is known yet");
        let error = model
            .backward(&mut reducer, group.rank(), true)
            .expect_err("idle got no gradient");
        let cause = error.fault().expect("a cause").to_string();
        assert!(
            cause.contains("Expected to have finished reduction"),
            "{cause}"
        );
    });
}

#[test]
fn a_frozen_parameter_is_refused() {
    on_ranks(1, |group| {
        let params = [(
            "frozen".to_owned(),
            Tensor::ones([2], (Kind::Float, Device::Cpu)),
        )];
        let error =
            Reducer::new(&group, &params, ReducerOptions::default()).expect_err("no gradient");
        assert_eq!(
            error.fault().expect("a cause").to_string(),
            "frozen does not require a gradient"
        );
        assert!(Reducer::new(&group, &[], ReducerOptions::default()).is_err());
    });
}

#[test]
fn reducer_group_and_parameters_may_be_dropped_in_any_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        on_ranks(2, |group| {
            let rank = group.rank();
            let model = Model::new();
            let mut reducer = Reducer::new(&group, &model.named(), ReducerOptions::default())
                .expect("parameters");
            model
                .backward(&mut reducer, rank, true)
                .expect("all ranks step");
            let (mut group, mut reducer, mut model) = (Some(group), Some(reducer), Some(model));
            for what in order {
                match what {
                    0 => drop(group.take()),
                    1 => drop(reducer.take()),
                    _ => drop(model.take()),
                }
                if let (Some(model), None) = (&model, &reducer) {
                    // The hooks went with the reducer.
                    model.loss(rank).backward();
                }
            }
        });
    }
}

#[test]
fn different_parameters_are_found_on_a_rank_that_differs() {
    let outcomes = on_ranks(2, |mut group| {
        let rank = group.rank();
        let same = [sample(rank)];
        verify_params(&mut group, &same).expect("values are not compared");
        let shape = if rank == 0 { [2, 3] } else { [3, 2] };
        verify_params(
            &mut group,
            &[Tensor::zeros(shape, (Kind::Float, Device::Cpu))],
        )
        .is_err()
    });
    assert!(outcomes[1]);
}

/// The reason all of this exists: ranks that train on shares of the data stay byte-identical.
#[test]
fn three_ranks_train_to_the_same_bytes() {
    let trained = on_ranks(3, |mut group| {
        let rank = group.rank();
        let model = Model::new();
        let mut params = model.params();
        if rank != 0 {
            optim::foreach_zero(&mut params).expect("parameters");
        }
        group
            .broadcast_coalesced(&mut params, 250 << 20, 0)
            .expect("all ranks call it");
        let reducer_options = ReducerOptions {
            gradient_as_bucket_view: true,
            ..ReducerOptions::default()
        };
        let mut reducer =
            Reducer::new(&group, &model.named(), reducer_options).expect("same parameters");
        let mut buffers: Vec<Tensor> = params
            .iter()
            .map(|param| param.detach().zeros_like())
            .collect();
        for step in 0..4 {
            model
                .backward(&mut reducer, rank, true)
                .expect("all ranks step");
            let mut grads = optim::grads(&params);
            let _norm = optim::clip_grad_norm(&mut grads, 1.0).expect("gradients");
            let settings = FusedSgd {
                lr: 0.1,
                momentum: 0.9,
                weight_decay: 1e-4,
                nesterov: true,
                first_step: step == 0,
            };
            optim::fused_sgd(&mut params, &mut grads, &mut buffers, settings, None)
                .expect("lists match");
            optim::foreach_zero(&mut grads).expect("gradients");
        }
        params.iter().flat_map(values).collect::<Vec<_>>()
    });
    assert_eq!(trained[0], trained[1]);
    assert_eq!(trained[0], trained[2]);
    assert_ne!(
        trained[0],
        Model::new()
            .params()
            .iter()
            .flat_map(values)
            .collect::<Vec<_>>()
    );
}
