use super::*;
use crate::state::Role;
use crate::testing::{difference, images, small};

fn value(state: &State, name: &str) -> Tensor {
    state.get(name).expect("a name of n").tensor.detach()
}

#[test]
fn the_average_follows_its_definition() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let mut ema = Ema::new(&network).expect("memory");
    let names = [
        "model.1.conv.weight",
        "model.24.m.0.bias",
        "model.3.bn.running_var",
    ];
    let mut want = names.map(|name| value(ema.state(), name).copy());
    for update in 1..=3 {
        tch::no_grad(|| {
            for mut tensor in network.state().parameter_tensors() {
                let _ = tensor.g_add_scalar_(0.5);
            }
            let _ = network
                .state()
                .statistics()
                .shallow_clone()
                .g_add_scalar_(0.25);
        });
        ema.update(&network).expect("same architecture");
        assert_eq!(update, ema.updates());
        let decay = decay(update);
        for (want, name) in want.iter_mut().zip(names) {
            *want = &*want * decay + value(network.state(), name) * (1.0 - decay);
            assert!(difference(want, &value(ema.state(), name)) < 1e-6, "{name}");
        }
    }
}

#[test]
fn the_average_evaluates_as_a_network_with_its_values() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let images = images(2, 64);
    let mut ema = Ema::new(&network).expect("memory");
    network.train(&images).expect("64 pixels");
    ema.update(&network).expect("same architecture");

    let mut same = Network::initialised(&small(), 2).expect("memory");
    let exported = ema
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect();
    same.state_mut()
        .import(&exported)
        .expect("same architecture");
    let decoded = |network: &Network| network.evaluate(&images).expect("64 pixels").decoded;
    assert!(decoded(&same).equal(&decoded(ema.network())));
    assert!(
        ema.state()
            .parameters()
            .all(|entry| !entry.tensor.requires_grad())
    );
}

#[test]
fn counters_keep_their_values() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let mut ema = Ema::new(&network).expect("memory");
    network.train(&images(2, 64)).expect("64 pixels");
    ema.update(&network).expect("same architecture");
    let mut counters = ema
        .state()
        .entries()
        .iter()
        .filter(|entry| entry.role == Role::Counter);
    assert!(counters.all(|entry| entry.tensor.int64_value(&[]) == 0));
}

#[test]
fn a_restored_average_goes_on_as_the_first() {
    let network = Network::initialised(&small(), 1).expect("memory");
    let mut first = Ema::new(&network).expect("memory");
    network.train(&images(2, 64)).expect("64 pixels");
    first.update(&network).expect("same architecture");

    let mut second = Ema::new(&Network::initialised(&small(), 2).expect("memory")).expect("memory");
    let exported = first
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect();
    second
        .restore(first.updates(), &exported)
        .expect("same architecture");
    network.train(&images(2, 64)).expect("64 pixels");
    for ema in [&mut first, &mut second] {
        ema.update(&network).expect("same architecture");
    }
    assert!(first.state().same_as(second.state()));
}
