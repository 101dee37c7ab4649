use super::*;
use crate::network::{Layout, NetworkOptions};
use crate::testing::{difference, images, small};
use tch::Kind;

const STEP: SgdStep = SgdStep {
    lr_bias: 0.05,
    lr_other: 0.01,
    momentum: 0.8,
    weight_decay: 0.0005,
};

fn network() -> Network {
    let options = NetworkOptions {
        kind: Kind::Double,
        ..small()
    };
    Network::initialised(&options, 1).expect("memory")
}

/// Gives every parameter a gradient that depends on `round` and on the parameter's value.
fn differentiate(network: &Network, round: i64) {
    let parameters = network.state().parameter_tensors();
    let terms = parameters.iter().enumerate().map(|(index, parameter)| {
        let factor = (index as f64 + 1.7 * round as f64).sin() + 0.2;
        (parameter.square() * factor).sum(Kind::Double)
    });
    terms.sum::<Tensor>().backward();
}

/// One parameter as PyTorch's documentation of SGD describes it, first step included.
struct Reference {
    role: Role,
    parameter: Tensor,
    momentum: Option<Tensor>,
}

impl Reference {
    fn step(&mut self, gradient: &Tensor, step: &SgdStep) {
        let (lr, decay) = match self.role {
            Role::Bias => (step.lr_bias, 0.0),
            Role::Weight => (step.lr_other, step.weight_decay),
            _ => (step.lr_other, 0.0),
        };
        let gradient = gradient + &self.parameter * decay;
        let momentum = match self.momentum.take() {
            None => gradient.copy(),
            Some(buffer) => buffer * step.momentum + &gradient,
        };
        self.parameter = &self.parameter - (gradient + &momentum * step.momentum) * lr;
        self.momentum = Some(momentum);
    }
}

#[test]
fn steps_equal_a_reference_in_all_three_groups() {
    let network = network();
    let mut sgd = Sgd::new(&network).expect("memory");
    let parameters = || network.state().parameters();
    let mut references: Vec<Reference> = parameters()
        .map(|entry| Reference {
            role: entry.role,
            parameter: entry.tensor.detach().copy(),
            momentum: None,
        })
        .collect();
    for round in 0..4 {
        sgd.zero_grad().expect("in place");
        differentiate(&network, round);
        // The learning rate and the momentum change from step to step, as in warm-up.
        let step = SgdStep {
            lr_bias: STEP.lr_bias / (round + 1) as f64,
            momentum: STEP.momentum + 0.01 * round as f64,
            ..STEP
        };
        for (reference, gradient) in references.iter_mut().zip(sgd.gradients().expect("all")) {
            reference.step(&gradient, &step);
        }
        sgd.step(&step, None).expect("all gradients exist");
        for (entry, reference) in parameters().zip(&references) {
            let got = difference(&entry.tensor, &reference.parameter);
            assert!(got < 1e-12, "step {round}, {}: {got}", entry.name);
        }
    }
    let exported = sgd.export().expect("readable");
    assert_eq!(177, exported.len());
    for ((name, momentum), reference) in exported.iter().zip(&references) {
        let want = reference.momentum.as_ref().expect("four steps were made");
        assert!(difference(momentum, want) < 1e-12, "{name}");
    }
}

#[test]
fn a_first_step_equals_pytorchs_bit_for_bit() {
    let network = network();
    let mut sgd = Sgd::new(&network).expect("memory");
    differentiate(&network, 0);
    let mut parameters: Vec<Tensor> = network
        .state()
        .parameter_tensors()
        .iter()
        .map(|tensor| tensor.detach().copy())
        .collect();
    let mut gradients: Vec<Tensor> = sgd
        .gradients()
        .expect("all")
        .iter()
        .map(Tensor::copy)
        .collect();
    let mut momenta: Vec<Tensor> = gradients.iter().map(Tensor::zeros_like).collect();
    let settings = FusedSgd {
        lr: 0.01,
        momentum: 0.9,
        weight_decay: 0.0,
        nesterov: true,
        first_step: true,
    };
    fused_sgd(
        &mut parameters,
        &mut gradients,
        &mut momenta,
        settings,
        None,
    )
    .expect("same lists");
    let step = SgdStep {
        lr_bias: 0.01,
        lr_other: 0.01,
        momentum: 0.9,
        weight_decay: 0.0,
    };
    sgd.step(&step, None).expect("all gradients exist");
    for (got, want) in network.state().parameter_tensors().iter().zip(&parameters) {
        assert!(got.equal(want));
    }
}

#[test]
fn exported_momentum_continues_a_run_in_another_layout() {
    let run = |network: &Network, sgd: &mut Sgd, rounds: std::ops::Range<i64>| {
        for round in rounds {
            sgd.zero_grad().expect("in place");
            differentiate(network, round);
            sgd.step(&STEP, None).expect("all gradients exist");
        }
    };
    let whole = network();
    let mut sgd = Sgd::new(&whole).expect("memory");
    run(&whole, &mut sgd, 0..2);
    let state = whole
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect();
    let momentum = sgd.export().expect("readable").into_iter().collect();
    run(&whole, &mut sgd, 2..4);

    let options = NetworkOptions {
        layout: Layout::ChannelsFirst,
        ..whole.options().clone()
    };
    let mut resumed = Network::blank(&options).expect("memory");
    resumed
        .state_mut()
        .import(&state)
        .expect("same architecture");
    let mut sgd = Sgd::new(&resumed).expect("memory");
    sgd.import(&momentum).expect("same parameters");
    run(&resumed, &mut sgd, 2..4);
    for (a, b) in whole.state().parameters().zip(resumed.state().parameters()) {
        assert!(difference(&a.tensor, &b.tensor) < 1e-13, "{}", a.name);
    }
}

#[test]
fn other_momentum_is_refused() {
    let network = network();
    let mut sgd = Sgd::new(&network).expect("memory");
    let whole =
        || -> BTreeMap<String, Tensor> { sgd.export().expect("readable").into_iter().collect() };
    let (mut short, mut long, mut bent) = (whole(), whole(), whole());
    short.remove("model.24.m.1.bias");
    long.insert("model.0.bn.running_mean".to_owned(), Tensor::from(0.0));
    bent.insert("model.24.m.1.bias".to_owned(), Tensor::from(0.0));
    assert!(matches!(
        sgd.import(&short),
        Err(Error::StateMissing { .. })
    ));
    assert!(matches!(
        sgd.import(&long),
        Err(Error::StateUnexpected { .. })
    ));
    assert!(matches!(sgd.import(&bent), Err(Error::StateShape { .. })));
}

#[test]
fn gradients_are_zeroed_where_they_are() {
    let network = network();
    let mut sgd = Sgd::new(&network).expect("memory");
    sgd.zero_grad()
        .expect("nothing to do before the first backward pass");
    assert!(matches!(
        sgd.step(&STEP, None),
        Err(Error::NoGradient { name }) if name == "model.0.bn.bias"
    ));
    differentiate(&network, 0);
    let addresses = |sgd: &Sgd| -> Vec<usize> {
        let gradients = sgd.gradients().expect("all");
        gradients
            .iter()
            .map(|gradient| gradient.data_ptr() as usize)
            .collect()
    };
    let before = addresses(&sgd);
    sgd.zero_grad().expect("in place");
    assert_eq!(before, addresses(&sgd));
    let gradients = sgd.gradients().expect("all");
    assert!(
        gradients.iter().all(|gradient| gradient
            .count_nonzero(0)
            .sum(Kind::Int64)
            .int64_value(&[])
            == 0)
    );
}

#[test]
fn clipping_bounds_the_norm_over_all_parameters() {
    let network = network();
    let sgd = Sgd::new(&network).expect("memory");
    differentiate(&network, 0);
    let norm = || {
        let squares = sgd
            .gradients()
            .expect("all")
            .iter()
            .map(|g| g.square().sum(Kind::Double))
            .sum::<Tensor>();
        squares.double_value(&[]).sqrt()
    };
    let before = norm();
    assert!(before > MAX_GRADIENT_NORM);
    let reported = sgd
        .clip_grad_norm(MAX_GRADIENT_NORM)
        .expect("all gradients exist");
    assert!((reported.double_value(&[]) / before - 1.0).abs() < 1e-5);
    assert!((norm() / MAX_GRADIENT_NORM - 1.0).abs() < 1e-5);
    let reported = sgd.clip_grad_norm(1e9).expect("all gradients exist");
    assert!((reported.double_value(&[]) / MAX_GRADIENT_NORM - 1.0).abs() < 1e-5);
    assert!(
        (norm() / MAX_GRADIENT_NORM - 1.0).abs() < 1e-5,
        "small gradients stay"
    );
}

#[test]
fn a_step_with_infinite_gradients_can_be_skipped() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let untouched = Network::initialised(&small(), 1).expect("memory");
    let mut sgd = Sgd::new(&network).expect("memory");
    let raw = network.train(&images(2, 64)).expect("64 pixels");
    raw.iter()
        .map(|raw| raw.sum(Kind::Float))
        .sum::<Tensor>()
        .backward();
    let found_inf = Tensor::from(1.0_f32);
    let scale = GradScale {
        scale: None,
        found_inf: &found_inf,
    };
    sgd.step(&STEP, Some(scale)).expect("all gradients exist");
    for (a, b) in network
        .state()
        .parameters()
        .zip(untouched.state().parameters())
    {
        assert!(a.tensor.equal(&b.tensor), "{}", a.name);
    }
    assert!(
        sgd.export()
            .expect("readable")
            .iter()
            .all(|(_, m)| m.abs().max().double_value(&[]) == 0.0)
    );
}
