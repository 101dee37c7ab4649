use super::*;
use crate::network::{Layout, NetworkOptions};
use crate::testing::{difference, images, small};
use tch::Kind;
use torch_bridge::optim::clip_grad_norm;

const STEP: OptimizerStep = OptimizerStep {
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
    fn step(&mut self, gradient: &Tensor, step: &OptimizerStep) {
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
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let parameters = || network.state().parameters();
    let mut references: Vec<Reference> = parameters()
        .map(|entry| Reference {
            role: entry.role,
            parameter: entry.tensor.detach().copy(),
            momentum: None,
        })
        .collect();
    for round in 0..4 {
        optimizer.zero_grad().expect("in place");
        differentiate(&network, round);
        // The learning rate and the momentum change from step to step, as in warm-up.
        let step = OptimizerStep {
            lr_bias: STEP.lr_bias / (round + 1) as f64,
            momentum: STEP.momentum + 0.01 * round as f64,
            ..STEP
        };
        for (reference, gradient) in references
            .iter_mut()
            .zip(optimizer.gradients().expect("all"))
        {
            reference.step(&gradient, &step);
        }
        optimizer.step(&step, None).expect("all gradients exist");
        for (entry, reference) in parameters().zip(&references) {
            let got = difference(&entry.tensor, &reference.parameter);
            assert!(got < 1e-12, "step {round}, {}: {got}", entry.name);
        }
    }
    let exported = optimizer.export().expect("readable");
    assert_eq!(177, exported.len());
    for ((name, momentum), reference) in exported.iter().zip(&references) {
        let want = reference.momentum.as_ref().expect("four steps were made");
        assert!(difference(momentum, want) < 1e-12, "{name}");
    }
}

/// By the formulas of the papers (Kingma and Ba 2015; Loshchilov and Hutter 2019).
#[test]
fn adam_and_adamw_equal_a_reference_in_all_three_groups() {
    for decoupled in [false, true] {
        let rule = Rule::Adam {
            beta1: 0.9,
            decoupled,
        };
        let network = network();
        let mut optimizer = Optimizer::new(&network, rule).expect("memory");
        let parameters = || network.state().parameters();
        let zeros = |values: &Tensor| (values.zeros_like(), values.zeros_like());
        let mut references: Vec<(Tensor, (Tensor, Tensor))> = parameters()
            .map(|entry| entry.tensor.detach().copy())
            .map(|values| (values.copy(), zeros(&values)))
            .collect();
        for round in 1..5 {
            optimizer.zero_grad().expect("in place");
            differentiate(&network, round);
            let gradients = optimizer.gradients().expect("all");
            for ((entry, gradient), (values, (mean, square))) in
                parameters().zip(&gradients).zip(&mut references)
            {
                let (lr, decay) = (STEP.rate(entry.role), STEP.decay(entry.role));
                let gradient = if decoupled {
                    *values = &*values * (1.0 - lr * decay);
                    gradient.copy()
                } else {
                    gradient + &*values * decay
                };
                *mean = &*mean * 0.9 + &gradient * (1.0 - 0.9);
                *square = &*square * BETA2 + gradient.square() * (1.0 - BETA2);
                let unbiased =
                    |tensor: &Tensor, beta: f64| tensor / (1.0 - beta.powi(round as i32));
                let root = unbiased(square, BETA2).sqrt();
                *values = &*values - unbiased(mean, 0.9) / (root + EPS) * lr;
            }
            optimizer.step(&STEP, None).expect("all gradients exist");
            for (entry, (values, _)) in parameters().zip(&references) {
                let got = difference(&entry.tensor, values);
                assert!(got < 1e-12, "step {round}, {}: {got}", entry.name);
            }
        }
        let state: BTreeMap<String, Tensor> =
            optimizer.export().expect("readable").into_iter().collect();
        assert_eq!(2 * 177 + 1, state.len());
        assert_eq!(4.0, state["step"].double_value(&[]));
        let mut resumed = Optimizer::new(&network, rule).expect("memory");
        resumed.import(&state).expect("the same names");
        let mut sgd = Optimizer::new(&network, Rule::Sgd).expect("memory");
        assert!(matches!(
            sgd.import(&state),
            Err(Error::StateUnexpected { .. })
        ));
    }
}

#[test]
fn frozen_layers_have_no_part_in_it() {
    let mut network = network();
    network
        .state_mut()
        .freeze(&[0, 1, 24])
        .expect("layers of this network");
    let trained: Vec<&str> = network
        .state()
        .trained()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(177 - 3 - 3 - 6, trained.len());
    assert!(trained.iter().all(|name| !name.starts_with("model.0.")
        && !name.starts_with("model.1.")
        && !name.starts_with("model.24.")));
    assert!(trained.iter().any(|name| name.starts_with("model.10.")));
    let before = network.state().export().expect("readable");
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    network
        .train(&network.input(&images(2, 64)).expect("64 pixels"))
        .expect("forward")
        .iter()
        .map(|raw| raw.sum(Kind::Double))
        .sum::<Tensor>()
        .backward();
    optimizer.step(&STEP, None).expect("all gradients exist");
    for ((name, before), (_, after)) in before.iter().zip(network.state().export().expect("same")) {
        let frozen = !trained_name(&network, name);
        let same = before.equal(&after);
        let statistic = name.contains("running_") || name.contains("num_batches");
        assert!(statistic || same == frozen, "{name}");
    }
}

fn trained_name(network: &Network, name: &str) -> bool {
    network.state().trained().any(|entry| entry.name == name)
}

#[test]
fn a_first_step_equals_pytorchs_bit_for_bit() {
    let network = network();
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    differentiate(&network, 0);
    let mut parameters: Vec<Tensor> = network
        .state()
        .parameter_tensors()
        .iter()
        .map(|tensor| tensor.detach().copy())
        .collect();
    let mut gradients: Vec<Tensor> = optimizer
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
    let step = OptimizerStep {
        lr_bias: 0.01,
        lr_other: 0.01,
        momentum: 0.9,
        weight_decay: 0.0,
    };
    optimizer.step(&step, None).expect("all gradients exist");
    for (got, want) in network.state().parameter_tensors().iter().zip(&parameters) {
        assert!(got.equal(want));
    }
}

#[test]
fn exported_momentum_continues_a_run_in_another_layout() {
    let run = |network: &Network, optimizer: &mut Optimizer, rounds: std::ops::Range<i64>| {
        for round in rounds {
            optimizer.zero_grad().expect("in place");
            differentiate(network, round);
            optimizer.step(&STEP, None).expect("all gradients exist");
        }
    };
    let whole = network();
    let mut optimizer = Optimizer::new(&whole, Rule::Sgd).expect("memory");
    run(&whole, &mut optimizer, 0..2);
    let state = whole
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect();
    let momentum = optimizer.export().expect("readable").into_iter().collect();
    run(&whole, &mut optimizer, 2..4);

    let options = NetworkOptions {
        layout: Layout::ChannelsFirst,
        ..whole.options().clone()
    };
    let mut resumed = Network::blank(&options).expect("memory");
    resumed
        .state_mut()
        .import(&state)
        .expect("same architecture");
    let mut optimizer = Optimizer::new(&resumed, Rule::Sgd).expect("memory");
    optimizer.import(&momentum).expect("same parameters");
    run(&resumed, &mut optimizer, 2..4);
    for (a, b) in whole.state().parameters().zip(resumed.state().parameters()) {
        assert!(difference(&a.tensor, &b.tensor) < 1e-13, "{}", a.name);
    }
}

#[test]
fn other_momentum_is_refused() {
    let network = network();
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    let whole = || -> BTreeMap<String, Tensor> {
        optimizer.export().expect("readable").into_iter().collect()
    };
    let (mut short, mut long, mut bent) = (whole(), whole(), whole());
    short.remove("model.24.m.1.bias");
    long.insert("model.0.bn.running_mean".to_owned(), Tensor::from(0.0));
    bent.insert("model.24.m.1.bias".to_owned(), Tensor::from(0.0));
    assert!(matches!(
        optimizer.import(&short),
        Err(Error::StateMissing { .. })
    ));
    assert!(matches!(
        optimizer.import(&long),
        Err(Error::StateUnexpected { .. })
    ));
    assert!(matches!(
        optimizer.import(&bent),
        Err(Error::StateShape { .. })
    ));
}

#[test]
fn gradients_are_zeroed_where_they_are() {
    let network = network();
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    optimizer
        .zero_grad()
        .expect("nothing to do before the first backward pass");
    assert!(matches!(
        optimizer.step(&STEP, None),
        Err(Error::NoGradient { name }) if name == "model.0.bn.bias"
    ));
    differentiate(&network, 0);
    let addresses = |optimizer: &Optimizer| -> Vec<usize> {
        let gradients = optimizer.gradients().expect("all");
        gradients
            .iter()
            .map(|gradient| gradient.data_ptr() as usize)
            .collect()
    };
    let before = addresses(&optimizer);
    optimizer.zero_grad().expect("in place");
    assert_eq!(before, addresses(&optimizer));
    let gradients = optimizer.gradients().expect("all");
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
    const MOST: f64 = 10.0;
    let network = network();
    let optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
    differentiate(&network, 0);
    let norm = || {
        let squares = optimizer
            .gradients()
            .expect("all")
            .iter()
            .map(|g| g.square().sum(Kind::Double))
            .sum::<Tensor>();
        squares.double_value(&[]).sqrt()
    };
    let before = norm();
    assert!(before > MOST);
    let clip = |most| {
        let mut gradients = optimizer.gradients().expect("all gradients exist");
        clip_grad_norm(&mut gradients, most).expect("in place")
    };
    let reported = clip(MOST);
    assert!((reported.double_value(&[]) / before - 1.0).abs() < 1e-5);
    assert!((norm() / MOST - 1.0).abs() < 1e-5);
    let reported = clip(1e9);
    assert!((reported.double_value(&[]) / MOST - 1.0).abs() < 1e-5);
    assert!((norm() / MOST - 1.0).abs() < 1e-5, "small gradients stay");
}

#[test]
fn a_step_with_infinite_gradients_can_be_skipped() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let untouched = Network::initialised(&small(), 1).expect("memory");
    let mut optimizer = Optimizer::new(&network, Rule::Sgd).expect("memory");
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
    optimizer
        .step(&STEP, Some(scale))
        .expect("all gradients exist");
    for (a, b) in network
        .state()
        .parameters()
        .zip(untouched.state().parameters())
    {
        assert!(a.tensor.equal(&b.tensor), "{}", a.name);
    }
    assert!(
        optimizer
            .export()
            .expect("readable")
            .iter()
            .all(|(_, m)| m.abs().max().double_value(&[]) == 0.0)
    );
}
