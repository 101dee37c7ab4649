//! Operations that libtorch has in parts: each against these parts, on tensors of many shapes.

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};

use tch::{Kind, Tensor};
use torch_bridge::{
    Besides, Normalisation, Split, Twice, can_norm_silu, contiguous_channels_last, norm_silu,
    norm_silu_with, optim, pick, runtime, split_norm_silu, use_machine,
};

const MOMENTUM: f64 = 0.03;
const EPS: f64 = 1e-3;

/// Everything that training needs of one normalisation.
struct Outcome {
    out: Tensor,
    grad_x: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

struct Case {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    grad_out: Tensor,
}

impl Case {
    /// Values that are far from 0 compared to how they vary, as a normalisation's input may be.
    fn new(shape: [i64; 4]) -> Self {
        tch::manual_seed(shape.iter().sum());
        let channels = [shape[1]];
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, tch::Device::Cpu));
        Self {
            x: random(&shape) * 0.7 + random(&[1, shape[1], 1, 1]) * 5.0,
            weight: random(&channels) * 0.2 + 1.0,
            bias: random(&channels) * 0.3,
            grad_out: random(&shape),
        }
    }

    /// In float64, by libtorch's own operations; inputs as `kind` has them.
    fn expected(&self, kind: Kind) -> Outcome {
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double).set_requires_grad(true);
        let (x, weight, bias) = (
            double(&self.x.to_kind(kind)),
            double(&self.weight),
            double(&self.bias),
        );
        let channels = weight.size();
        let mean = Tensor::zeros(&channels, (Kind::Double, tch::Device::Cpu));
        let variance = Tensor::ones(&channels, (Kind::Double, tch::Device::Cpu));
        let out = x
            .batch_norm(
                Some(&weight),
                Some(&bias),
                Some(&mean),
                Some(&variance),
                true,
                MOMENTUM,
                EPS,
                false,
            )
            .silu();
        (&out * self.grad_out.to_kind(kind))
            .sum(Kind::Double)
            .backward();
        Outcome {
            out: out.detach(),
            grad_x: x.grad(),
            grad_weight: weight.grad(),
            grad_bias: bias.grad(),
            mean,
            variance,
        }
    }

    /// By our operation; `strided` gives it a gradient that is a part of a concatenation.
    fn actual(&self, kind: Kind, strided: bool) -> Outcome {
        let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
        let x = contiguous_channels_last(&self.x.to_kind(kind).copy())
            .expect("four dimensions")
            .set_requires_grad(true);
        assert!(can_norm_silu(&x));
        let (weight, bias) = (leaf(&self.weight), leaf(&self.bias));
        let mean = self.bias.zeros_like();
        let variance = self.bias.ones_like();
        let norm = Normalisation {
            scale: &weight,
            shift: &bias,
            mean: &mean,
            variance: &variance,
            momentum: MOMENTUM,
            eps: EPS,
        };
        let out = norm_silu(&x, &norm).expect("it is suited");
        assert_eq!(kind, out.kind());
        let grad_out = self.grad_out.to_kind(kind);
        if strided {
            let (used, other) = (contiguous_channels_last(&out), out.ones_like());
            let wide = Tensor::cat(&[other, used.expect("four dimensions")], 1);
            let grad = Tensor::cat(&[grad_out.zeros_like(), grad_out], 1);
            (wide * grad).sum(Kind::Float).backward();
        } else {
            (&out * grad_out).sum(Kind::Float).backward();
        }
        Outcome {
            out: out.detach(),
            grad_x: x.grad(),
            grad_weight: weight.grad(),
            grad_bias: bias.grad(),
            mean,
            variance,
        }
    }
}

/// The largest difference, as a share of the largest value.
fn difference(actual: &Tensor, expected: &Tensor) -> f64 {
    let (actual, expected) = (actual.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    (&actual - &expected).abs().max().double_value(&[]) / expected.abs().max().double_value(&[])
}

fn assert_close(actual: &Outcome, expected: &Outcome, within: f64, what: &str) {
    for (name, actual, expected) in [
        ("output", &actual.out, &expected.out),
        ("gradient of x", &actual.grad_x, &expected.grad_x),
        (
            "gradient of the weight",
            &actual.grad_weight,
            &expected.grad_weight,
        ),
        (
            "gradient of the bias",
            &actual.grad_bias,
            &expected.grad_bias,
        ),
        ("running mean", &actual.mean, &expected.mean),
        ("running variance", &actual.variance, &expected.variance),
    ] {
        let difference = difference(actual, expected);
        assert!(
            difference <= within,
            "{what}: {name} differs by {difference:.1e}"
        );
    }
}

/// Channels that fill the lanes and that do not, one pixel, several chunks.
const SHAPES: [[i64; 4]; 8] = [
    [2, 8, 6, 6],
    [2, 24, 9, 5],
    [2, 16, 5, 7],
    [3, 48, 4, 4],
    [2, 19, 3, 5],
    [4, 3, 1, 1],
    [2, 32, 40, 40],
    [1, 1280, 6, 6],
];

#[test]
fn normalisation_with_silu_is_the_two_in_turn() {
    for shape in SHAPES {
        let case = Case::new(shape);
        for strided in [false, true] {
            let what = format!("{shape:?}, strided {strided}");
            let (single, half) = (Kind::Float, Kind::BFloat16);
            assert_close(
                &case.actual(single, strided),
                &case.expected(single),
                3e-6,
                &what,
            );
            // 8 bits of precision.
            assert_close(
                &case.actual(half, strided),
                &case.expected(half),
                2e-2,
                &what,
            );
        }
    }
}

/// Who changes what the kernels run as, or compares bits of two runs.
static MACHINE: Mutex<()> = Mutex::new(());

#[test]
fn normalisation_with_silu_is_the_same_on_all_machines() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let known: Vec<&str> = ["avx512", "avx2", "plain"]
        .into_iter()
        .filter(|name| use_machine(name))
        .collect();
    assert_eq!(Some(&"plain"), known.last());
    assert!(!use_machine("another"));
    for shape in SHAPES {
        let case = Case::new(shape);
        for kind in [Kind::Float, Kind::BFloat16] {
            let outcomes: Vec<(Outcome, f64)> = known
                .iter()
                .map(|name| {
                    assert!(use_machine(name));
                    let outcome = case.actual(kind, true);
                    let gradients = [outcome.grad_x.to_kind(Kind::Float)];
                    let norm = optim::grad_norm(&gradients).expect("a norm");
                    (outcome, norm.double_value(&[]))
                })
                .collect();
            for (name, (outcome, norm)) in known.iter().zip(&outcomes) {
                let what = format!("{shape:?} {kind:?} on {name}");
                let (best, best_norm) = &outcomes[0];
                // Where both multiply and add in one step they are the same to the bit.
                if *name == "plain" && known.len() > 1 {
                    let within = if kind == Kind::Float { 3e-6 } else { 2e-2 };
                    assert_close(outcome, best, within, &what);
                } else {
                    assert_close(outcome, best, 0.0, &what);
                    assert_eq!(best_norm, norm, "{what}");
                }
            }
        }
    }
    assert!(use_machine(known[0]));
}

/// Scale, shift and running statistics of one of several normalisations.
struct Norm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl Norm {
    fn new(case: &Case, kind: Kind) -> Self {
        let leaf = |tensor: &Tensor| tensor.to_kind(kind).copy().set_requires_grad(true);
        Self {
            scale: leaf(&case.weight),
            shift: leaf(&case.bias),
            mean: case.bias.zeros_like().to_kind(kind),
            variance: case.bias.ones_like().to_kind(kind),
        }
    }

    fn view(&self) -> Normalisation<'_> {
        Normalisation {
            scale: &self.scale,
            shift: &self.shift,
            mean: &self.mean,
            variance: &self.variance,
            momentum: MOMENTUM,
            eps: EPS,
        }
    }

    /// By libtorch's own operations.
    fn apply(&self, x: &Tensor) -> Tensor {
        let Self {
            scale,
            shift,
            mean,
            variance,
        } = self;
        x.batch_norm(
            Some(scale),
            Some(shift),
            Some(mean),
            Some(variance),
            true,
            MOMENTUM,
            EPS,
            false,
        )
        .silu()
    }

    fn outcome(&self) -> [Tensor; 4] {
        let Self {
            scale, shift, mean, ..
        } = self;
        let variance = self.variance.shallow_clone();
        [scale.grad(), shift.grad(), mean.shallow_clone(), variance]
    }
}

/// A block of YOLOv5 without its convolutions, which `factor` stands for: two halves of the input, of which the first
/// goes through two bottlenecks that add their inputs. Returns output and all gradients and statistics.
fn block(case: &Case, kind: Kind, ours: bool) -> Vec<Tensor> {
    let computed = if ours { kind } else { Kind::Double };
    let images = |tensor: Tensor| {
        contiguous_channels_last(&tensor.to_kind(kind).to_kind(computed)).expect("four dimensions")
    };
    let x = Tensor::cat(&[&case.x, &(&case.x * 0.5 + 1.0)], 1);
    let x = images(x).copy().set_requires_grad(true);
    let factor = images(case.grad_out.cos());
    let grad = images(Tensor::cat(&[&case.grad_out, &case.grad_out.sin()], 1));
    let parameters = if ours { Kind::Float } else { Kind::Double };
    let norms: Vec<Norm> = (0..4).map(|_| Norm::new(case, parameters)).collect();
    let out = if ours {
        let Split { first, last } =
            split_norm_silu(&x, &norms[0].view(), &norms[1].view(), true).expect("it is suited");
        let of = |x: &Twice, norm: &Norm, beside, twice| {
            let besides = Besides {
                added: x.again.as_ref(),
                beside,
                twice,
            };
            let hidden = &x.result * &factor;
            norm_silu_with(&hidden, &norm.view(), &besides).expect("it is suited")
        };
        let middle = of(&first, &norms[2], None, true);
        let end = of(&middle, &norms[3], Some(&last), false);
        assert!(end.again.is_none());
        end.result
    } else {
        let channels = case.weight.size()[0];
        let first = norms[0].apply(&x.narrow(1, 0, channels));
        let last = norms[1].apply(&x.narrow(1, channels, channels));
        let middle = &first + norms[2].apply(&(&first * &factor));
        let end = &middle + norms[3].apply(&(&middle * &factor));
        Tensor::cat(&[end, last], 1)
    };
    (&out * grad).sum(out.kind()).backward();
    let mut all = vec![out.detach(), x.grad()];
    all.extend(norms.iter().flat_map(Norm::outcome));
    all
}

#[test]
fn a_block_written_where_it_belongs_is_the_operations_in_turn() {
    for shape in SHAPES {
        // With one pixel nothing is left of its gradient but the error.
        if shape[2] * shape[3] == 1 {
            continue;
        }
        let case = Case::new(shape);
        for (kind, within) in [(Kind::Float, 1e-5), (Kind::BFloat16, 4e-2)] {
            let pairs = block(&case, kind, true)
                .into_iter()
                .zip(block(&case, kind, false));
            for (number, (actual, expected)) in pairs.enumerate() {
                let difference = difference(&actual, &expected);
                assert!(
                    difference <= within,
                    "{shape:?} {kind:?}: result {number} differs by {difference:.1e}"
                );
            }
        }
    }
}

#[test]
fn what_lies_beside_must_have_room_for_it() {
    let case = Case::new([2, 16, 4, 4]);
    let x = contiguous_channels_last(&case.x).expect("four dimensions");
    let norm = Norm::new(&case, Kind::Float);
    let refused = |added, beside| {
        let besides = Besides {
            added,
            beside,
            twice: false,
        };
        let error = norm_silu_with(&x, &norm.view(), &besides).expect_err("it does not fit");
        format!("{error}: {:?}", error.source().map(ToString::to_string))
    };
    let told = refused(None, Some(&x));
    assert!(told.contains("not the last channels"), "{told}");
    let half = x.to_kind(Kind::BFloat16);
    let told = refused(Some(&half), None);
    assert!(told.contains("of the same shape and kind"), "{told}");
}

#[test]
fn normalisation_with_silu_does_not_depend_on_threads() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let case = Case::new([4, 24, 40, 40]);
    let before = runtime::num_threads();
    let [one, three] = [1, 3].map(|threads| {
        runtime::set_num_threads(threads).expect("some threads");
        case.actual(Kind::Float, false)
    });
    runtime::set_num_threads(before).expect("as before");
    assert!(one.out.equal(&three.out));
    assert!(one.grad_x.equal(&three.grad_x));
    assert!(one.grad_weight.equal(&three.grad_weight));
    assert!(one.variance.equal(&three.variance));
}

#[test]
fn normalisation_with_silu_passes_nan_on() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let case = Case::new([2, 16, 4, 4]);
        let _ = case.x.get(0).get(5).get(1).get(2).fill_(f64::NAN);
        let outcome = case.actual(kind, false);
        let nan =
            |tensor: &Tensor, channel| tensor.select(1, channel).isnan().all().int64_value(&[]);
        assert_eq!((1, 1), (nan(&outcome.out, 5), nan(&outcome.grad_x, 5)));
        assert_eq!((0, 0), (nan(&outcome.out, 4), nan(&outcome.grad_x, 4)));
    }
}

#[test]
fn normalisation_with_silu_refuses_what_it_cannot_do() {
    let case = Case::new([2, 16, 4, 4]);
    assert!(!can_norm_silu(&case.x.contiguous()));
    let wide = contiguous_channels_last(&case.x.to_kind(Kind::Double)).expect("four dimensions");
    assert!(!can_norm_silu(&wide));
    let x = contiguous_channels_last(&case.x).expect("four dimensions");
    let norm = Normalisation {
        scale: &case.weight.narrow(0, 0, 8),
        shift: &case.bias,
        mean: &case.bias.zeros_like(),
        variance: &case.bias.ones_like(),
        momentum: MOMENTUM,
        eps: EPS,
    };
    let error = norm_silu(&x, &norm).expect_err("8 weights, 16 channels");
    assert!(
        error.to_string().contains("one float32 for each channel"),
        "{error}"
    );
}

#[test]
fn what_is_picked_is_what_two_operations_pick() {
    tch::manual_seed(1);
    // Lies in memory as the predictions of a network with channels last do: `[images, rows, columns, anchors, 6]`.
    for kind in [Kind::Double, Kind::Float, Kind::BFloat16] {
        let memory = Tensor::randn([2, 4, 5, 3, 6], (kind, tch::Device::Cpu));
        let [ours, theirs] = [(); 2].map(|()| memory.copy().set_requires_grad(true));
        let table = |leaf: &Tensor| leaf.permute([0, 3, 1, 2, 4]);
        let places = [[0, 1, 1], [2, 0, 1], [3, 3, 0], [4, 0, 2]]
            .map(|at: [i64; 3]| Tensor::from_slice(&at));
        let (column, rows) = pick(&table(&ours), 4, &places).expect("places that are there");
        let expected = (
            table(&theirs).select(-1, 4).to_kind(column.kind()),
            table(&theirs)
                .index(&places.each_ref().map(Some))
                .to_kind(rows.kind()),
        );
        assert!(column.equal(&expected.0) && rows.equal(&expected.1));
        let loss = |column: &Tensor, rows: &Tensor| {
            (column.square().sum(column.kind()) + rows.exp().sum(rows.kind())).backward();
        };
        loss(&column, &rows);
        loss(&expected.0, &expected.1);
        assert!(
            ours.grad()
                .isclose(&theirs.grad(), 1e-2, 1e-6, false)
                .all()
                .int64_value(&[])
                == 1
        );
        if kind != Kind::BFloat16 {
            assert!(difference(&ours.grad(), &theirs.grad()) < 1e-6);
        }
    }
}

#[test]
fn the_norm_of_gradients_is_that_of_all_their_elements() {
    tch::manual_seed(2);
    let sizes: [&[i64]; 5] = [&[1], &[17], &[64, 3, 3, 3], &[100_003], &[0]];
    let grads = sizes.map(|size| Tensor::randn(size, (Kind::Float, tch::Device::Cpu)));
    let expected = Tensor::cat(&grads.each_ref().map(|grad| grad.view(-1)), 0)
        .to_kind(Kind::Double)
        .norm()
        .double_value(&[]);
    let norm = optim::grad_norm(&grads)
        .expect("gradients")
        .double_value(&[]);
    assert!(
        (norm - expected).abs() <= 1e-6 * expected,
        "{norm} is not {expected}"
    );
    let _ = grads[3].get(77).fill_(f64::NAN);
    assert!(
        optim::grad_norm(&grads)
            .expect("gradients")
            .double_value(&[])
            .is_nan()
    );
}
