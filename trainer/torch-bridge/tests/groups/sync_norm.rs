//! Ranks with shares of a batch normalise as one rank with the whole batch.

use tch::{Device, Kind, Tensor};
use torch_bridge::{Normalisation, ProcessGroup, SyncNorm, contiguous_channels_last};

use crate::{on_ranks, values};

const CHANNELS: i64 = 5;
const MOMENTUM: f64 = 0.03;
const EPS: f64 = 1e-3;

/// What a normalisation gives: outputs and their gradients over the images in a row, gradients of scale and shift,
/// running mean and variance.
struct Given {
    y: Tensor,
    dx: Tensor,
    dscale: Tensor,
    dshift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

fn wave(length: i64, step: f64, kind: Kind) -> Tensor {
    ((Tensor::arange(length, (Kind::Double, Device::Cpu)) * step).sin() * 2.0 + 0.7).to_kind(kind)
}

fn batch(images: i64, step: f64, kind: Kind) -> Tensor {
    wave(images * CHANNELS * 12, step, kind).view([images, CHANNELS, 4, 3])
}

/// Of images `from..to` of a batch of `all`, with a rank's share or alone.
fn normalised(all: i64, (from, to): (i64, i64), group: Option<&ProcessGroup>, kind: Kind) -> Given {
    let counts = to > from;
    // A rank without images takes part with a black one.
    let share = |step: f64| {
        if counts {
            batch(all, step, kind).narrow(0, from, to - from)
        } else {
            Tensor::zeros([1, CHANNELS, 4, 3], (kind, Device::Cpu))
        }
    };
    let parameter_kind = if kind == Kind::BFloat16 {
        Kind::Float
    } else {
        kind
    };
    let parameter = |step| wave(CHANNELS, step, parameter_kind).set_requires_grad(true);
    let x = contiguous_channels_last(&share(0.37)).expect("four dimensions");
    let x = x.detach().set_requires_grad(true);
    let (scale, shift) = (parameter(1.1), parameter(2.3));
    let mean = wave(CHANNELS, 0.4, parameter_kind);
    let variance = wave(CHANNELS, 0.9, parameter_kind).abs() + 0.1;
    let y = match group {
        None => x.batch_norm(
            Some(&scale),
            Some(&shift),
            Some(&mean),
            Some(&variance),
            true,
            MOMENTUM,
            EPS,
            true,
        ),
        Some(group) => {
            let normalisation = Normalisation {
                scale: &scale,
                shift: &shift,
                mean: &mean,
                variance: &variance,
                momentum: MOMENTUM,
                eps: EPS,
            };
            SyncNorm::new(group, counts)
                .batch_norm(&x, &normalisation)
                .expect("a whole group")
        }
    };
    // A gradient that is not the same everywhere; none for what does not count.
    let weight = if counts {
        share(0.81)
    } else {
        share(0.81) * 0.0
    };
    (&y * weight).sum(y.kind()).backward();
    let none = |tensor: Tensor| {
        if counts {
            tensor
        } else {
            tensor.narrow(0, 0, 0)
        }
    };
    Given {
        y: none(y.detach()),
        dx: none(x.grad()),
        dscale: scale.grad(),
        dshift: shift.grad(),
        mean,
        variance,
    }
}

#[track_caller]
fn near(what: &str, a: &Tensor, b: &Tensor, most: f64) {
    let (a, b) = (values(a), values(b));
    assert_eq!(a.len(), b.len(), "{what}");
    let size = b.iter().fold(0.0_f64, |size, v| size.max(v.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= most * size, "{what}: {a} and {b}");
    }
}

#[track_caller]
fn check(shares: &[(i64, i64)], kind: Kind, most: f64) {
    let all = shares.iter().map(|share| share.1).max().unwrap_or(0);
    let alone = normalised(all, (0, all), None, kind);
    let ranks = on_ranks(shares.len(), |group| {
        normalised(all, shares[group.rank()], Some(&group), kind)
    });
    let join =
        |part: fn(&Given) -> &Tensor| Tensor::cat(&ranks.iter().map(part).collect::<Vec<_>>(), 0);
    near("outputs", &join(|given| &given.y), &alone.y, most);
    near("gradients", &join(|given| &given.dx), &alone.dx, most);
    let sum = |part: fn(&Given) -> &Tensor| {
        ranks
            .iter()
            .map(part)
            .fold(alone.mean.zeros_like(), |sum, own| sum + own)
    };
    near("scale", &sum(|given| &given.dscale), &alone.dscale, most);
    near("shift", &sum(|given| &given.dshift), &alone.dshift, most);
    near("mean", &ranks[0].mean, &alone.mean, most);
    near("variance", &ranks[0].variance, &alone.variance, most);
    for rank in &ranks {
        assert!(rank.mean.equal(&ranks[0].mean) && rank.variance.equal(&ranks[0].variance));
    }
}

#[test]
fn shares_of_any_size_normalise_as_the_whole() {
    check(&[(0, 7)], Kind::Double, 1e-12);
    check(&[(0, 4), (4, 7)], Kind::Double, 1e-12);
    check(&[(0, 3), (3, 4), (4, 4), (4, 9)], Kind::Double, 1e-12);
    check(&[(0, 0), (0, 1), (1, 2)], Kind::Double, 1e-12);
    check(&[(0, 3), (3, 4), (4, 9)], Kind::Float, 1e-5);
    check(&[(0, 3), (3, 4), (4, 9)], Kind::BFloat16, 2e-2);
}

#[test]
fn a_step_without_images_leaves_the_running_statistics_alone() {
    let before = wave(CHANNELS, 0.4, Kind::Double);
    for given in on_ranks(2, |group| normalised(0, (0, 0), Some(&group), Kind::Double)) {
        assert!(given.mean.equal(&before));
        assert_eq!([0.0; CHANNELS as usize], values(&given.dscale)[..]);
    }
}
