//! The collectives of a healthy group.

use tch::{Device, Kind, Tensor};
use torch_bridge::{Error, ReduceOp};

use crate::{TIMEOUT, on_ranks, sample, values};

#[test]
fn all_reduce_computes_what_its_name_says_of_every_kind() {
    on_ranks(3, |mut group| {
        // Over the factors 1, 2 and 3.
        let cases = [
            (ReduceOp::Sum, [6.0, 12.0, 18.0]),
            (ReduceOp::Average, [2.0, 4.0, 6.0]),
            (ReduceOp::Product, [6.0, 48.0, 162.0]),
            (ReduceOp::Min, [1.0, 2.0, 3.0]),
            (ReduceOp::Max, [3.0, 6.0, 9.0]),
        ];
        for kind in [
            Kind::Float,
            Kind::Double,
            Kind::Half,
            Kind::BFloat16,
            Kind::Int64,
            Kind::Int,
        ] {
            for (op, expected) in cases {
                if op == ReduceOp::Average && !sample(0).to_kind(kind).is_floating_point() {
                    let error = group
                        .all_reduce(&mut sample(0).to_kind(kind), op)
                        .expect_err("no mean of integers");
                    assert!(
                        matches!(error, Error::AverageOfIntegers(refused) if refused == kind),
                        "{error}"
                    );
                    continue;
                }
                let mut tensor = sample(group.rank()).to_kind(kind);
                group
                    .all_reduce(&mut tensor, op)
                    .expect("all ranks call it");
                assert_eq!(values(&tensor), expected, "{op:?} of {kind:?}");
            }
        }
    });
}

#[test]
fn all_reduce_changes_a_parameter_in_place() {
    on_ranks(2, |mut group| {
        let mut parameter = sample(group.rank()).set_requires_grad(true);
        group
            .all_reduce(&mut parameter, ReduceOp::Sum)
            .expect("all ranks call it");
        assert_eq!(values(&parameter), [3.0, 6.0, 9.0]);
        assert!(parameter.requires_grad());
    });
}

#[test]
fn coalesced_and_asynchronous_forms_give_the_same() {
    on_ranks(3, |mut group| {
        let rank = group.rank();
        let mut tensors = [sample(rank), sample(rank).view([3, 1]) * 2.0];
        group
            .all_reduce_coalesced(&mut tensors, ReduceOp::Sum)
            .expect("all ranks call it");
        assert_eq!(values(&tensors[0]), [6.0, 12.0, 18.0]);
        assert_eq!(values(&tensors[1]), [12.0, 24.0, 36.0]);
        group
            .all_reduce_coalesced(&mut [], ReduceOp::Sum)
            .expect("nothing to do");

        let works = [
            group
                .all_reduce_async(sample(rank), ReduceOp::Sum)
                .expect("started"),
            group
                .all_reduce_async(sample(rank), ReduceOp::Max)
                .expect("started"),
            group.broadcast_async(sample(rank), 2).expect("started"),
            group
                .all_gather_async(&Tensor::from(rank as i64))
                .expect("started"),
        ];
        let results = works.map(|work| work.wait().expect("all ranks call it"));
        let results: Vec<Vec<f64>> = results
            .iter()
            .map(|tensors| tensors.iter().flat_map(values).collect())
            .collect();
        assert_eq!(
            results,
            [
                [6.0, 12.0, 18.0],
                [3.0, 6.0, 9.0],
                [3.0, 6.0, 9.0],
                [0.0, 1.0, 2.0]
            ]
        );
    });
}

#[test]
fn broadcasts_copy_the_root() {
    on_ranks(3, |mut group| {
        let rank = group.rank();
        let mut tensors = [sample(rank), sample(rank) * 10.0];
        group.broadcast(&mut tensors, 1).expect("all ranks call it");
        assert_eq!(
            tensors.iter().flat_map(values).collect::<Vec<_>>(),
            [2.0, 4.0, 6.0, 20.0, 40.0, 60.0]
        );

        // A parameter, a strided view and a counter, through buffers too small for all of them.
        let view = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
        let mut tensors = [
            sample(rank).set_requires_grad(true),
            view.select(1, 0),
            Tensor::from_slice(&[rank as i64]),
        ];
        tensors[1].copy_(&sample(rank));
        group
            .broadcast_coalesced(&mut tensors, 16, 2)
            .expect("all ranks call it");
        assert_eq!(values(&tensors[0]), [3.0, 6.0, 9.0]);
        assert_eq!(values(&view), [3.0, 0.0, 6.0, 0.0, 9.0, 0.0]);
        assert_eq!(values(&tensors[2]), [2.0]);
    });
}

#[test]
fn gathering_keeps_the_order_of_ranks_and_uneven_lengths() {
    on_ranks(3, |mut group| {
        let gathered = group
            .all_gather(&sample(group.rank()))
            .expect("all ranks call it");
        assert_eq!(
            gathered.iter().map(values).collect::<Vec<_>>(),
            [[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, 9.0]]
        );
        let texts: [&[u8]; 3] = [b"rank zero", b"", b"2"];
        assert_eq!(
            group
                .all_gather_bytes(texts[group.rank()])
                .expect("all ranks call it"),
            texts
        );
        assert_eq!(
            group.all_gather_bytes(b"").expect("all ranks call it"),
            [b""; 3]
        );
        group.barrier().expect("all ranks call it");
        group.monitored_barrier(TIMEOUT).expect("all ranks call it");
    });
}

#[test]
fn a_view_with_gaps_is_refused_before_it_is_sent() {
    on_ranks(1, |mut group| {
        let mut view = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu)).select(1, 0);
        let error = group
            .all_reduce(&mut view, ReduceOp::Sum)
            .expect_err("a strided view");
        assert!(matches!(error, Error::NotDense { .. }), "{error}");
        let error = group
            .broadcast(&mut [sample(0)], 1)
            .expect_err("no such rank");
        assert!(
            matches!(error, Error::NoSuchRank { rank: 1, size: 1 }),
            "{error}"
        );
        group.barrier().expect("refusing broke nothing");
    });
}
