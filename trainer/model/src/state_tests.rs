use super::*;
use crate::network::{Network, NetworkOptions};
use crate::testing::{ZOO, custom, difference, images, small};
use contract::spec::ModelSize;

fn network(layout: Layout, seed: u64) -> Network {
    Network::initialised(&NetworkOptions { layout, ..small() }, seed).expect("memory")
}

fn exported(network: &Network) -> BTreeMap<String, Tensor> {
    network
        .state()
        .export()
        .expect("readable")
        .into_iter()
        .collect()
}

#[test]
fn a_state_survives_export_and_import_between_layouts() {
    let original = network(Layout::ChannelsLast, 1);
    let _ = original.state().statistics().shallow_clone().fill_(0.25);
    let _ = original.state().counters().shallow_clone().fill_(7);
    let exported = exported(&original);
    assert_eq!(349, exported.len());
    for (name, tensor) in &exported {
        assert!(tensor.is_contiguous() && !tensor.requires_grad(), "{name}");
    }
    for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
        let mut other = network(layout, 2);
        assert!(!other.state().same_as(original.state()));
        other
            .state_mut()
            .import(&exported)
            .expect("same architecture");
        assert!(other.state().same_as(original.state()));
        let kernel = &other
            .state()
            .get("model.1.conv.weight")
            .expect("a name of n")
            .tensor;
        assert!(kernel.requires_grad() && kernel.is_leaf());
        assert_eq!(
            layout == Layout::ChannelsLast,
            torch_bridge::is_channels_last(kernel)
        );
    }
}

#[test]
fn an_export_is_a_copy() {
    let network = network(Layout::ChannelsFirst, 1);
    let before = exported(&network);
    tch::no_grad(|| {
        for mut tensor in network.state().parameter_tensors() {
            let _ = tensor.fill_(3.0);
        }
    });
    let kernel = &before["model.0.conv.weight"];
    assert!(kernel.abs().max().double_value(&[]) < 1.0);
}

#[test]
fn entries_view_the_flat_statistics_and_counters() {
    let network = network(Layout::ChannelsLast, 1);
    let state = network.state();
    let elements = |role| {
        let of_role = state.entries().iter().filter(|entry| entry.role == role);
        of_role.map(|entry| entry.tensor.numel()).sum::<usize>()
    };
    assert_eq!(elements(Role::Statistic), state.statistics().numel());
    assert_eq!(elements(Role::Counter), state.counters().numel());
    let last = state.statistics().numel() as i64 - 1;
    let _ = state.statistics().get(last).fill_(9.0);
    let variance = &state
        .get("model.23.m.0.cv2.bn.running_var")
        .expect("a name of n")
        .tensor;
    assert_eq!(9.0, variance.get(-1).double_value(&[]));
}

#[test]
fn half_precision_states_are_converted() {
    let source = network(Layout::ChannelsLast, 1);
    let half = exported(&source)
        .into_iter()
        .map(|(name, tensor)| {
            let kind = if tensor.is_floating_point() {
                Kind::Half
            } else {
                tensor.kind()
            };
            (name, tensor.to_kind(kind))
        })
        .collect();
    let mut target = network(Layout::ChannelsLast, 2);
    target.state_mut().import(&half).expect("same architecture");
    let weight = |network: &Network| {
        network
            .state()
            .get("model.0.conv.weight")
            .expect("a name of n")
            .tensor
            .detach()
    };
    assert_eq!(Kind::Float, weight(&target).kind());
    let difference = (weight(&source) - weight(&target))
        .abs()
        .max()
        .double_value(&[]);
    assert!(difference > 0.0 && difference < 1e-3);
}

#[test]
fn other_states_are_refused_and_change_nothing() {
    let mut target = network(Layout::ChannelsLast, 1);
    let untouched = network(Layout::ChannelsLast, 1);
    let valid = exported(&network(Layout::ChannelsLast, 2));
    let mut refuses = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        let mut state: BTreeMap<String, Tensor> = valid
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
            .collect();
        change(&mut state);
        let error = target
            .state_mut()
            .import(&state)
            .expect_err("not this network's");
        assert!(target.state().same_as(untouched.state()), "{error}");
        error
    };
    let error = refuses(&|state| drop(state.remove("model.23.cv1.bn.bias")));
    assert!(matches!(error, Error::StateMissing { name } if name == "model.23.cv1.bn.bias"));
    let error = refuses(&|state| drop(state.insert("model.25.bias".to_owned(), Tensor::from(1.0))));
    assert!(matches!(error, Error::StateUnexpected { name } if name == "model.25.bias"));
    let error = refuses(&|state| {
        let anchors = state["model.24.anchors"].copy() * 2.0;
        state.insert("model.24.anchors".to_owned(), anchors);
    });
    assert!(matches!(error, Error::StateAnchors { .. }));

    let other_classes = Network::blank(&NetworkOptions::new(ModelSize::N, 4)).expect("memory");
    let error = target
        .state_mut()
        .import(&exported(&other_classes))
        .expect_err("4 classes");
    assert_eq!(
        "model.24.m.0.weight has the shape [27, 64, 1, 1], but this network's is [24, 64, 1, 1]: \
         the state belongs to another model size or number of classes",
        error.to_string()
    );
}

#[test]
fn a_state_of_every_module_survives_export_and_import() {
    let options = NetworkOptions::of(custom(ZOO));
    let original = Network::initialised(&options, 1).expect("memory");
    let mut other = Network::initialised(&options, 2).expect("memory");
    assert!(!other.state().same_as(original.state()));
    other
        .state_mut()
        .import(&exported(&original))
        .expect("same architecture");
    assert!(other.state().same_as(original.state()));
    let matrix = &other
        .state()
        .get("model.10.m.linear.weight")
        .expect("of C3TR");
    assert_eq!((Role::Weight, 2), (matrix.role, matrix.tensor.dim()));
    let images = images(1, 64);
    let [ours, theirs] = [&original, &other].map(|network| {
        let fused = network.fuse().expect("same architecture");
        fused.evaluate(&images).expect("64 pixels").decoded
    });
    assert!(ours.equal(&theirs));
}

#[test]
fn folded_normalisations_are_taken_apart_again() {
    let original = network(Layout::ChannelsLast, 1);
    let _ = original.state().statistics().shallow_clone().fill_(0.5);
    let fused = original.fuse().expect("memory");
    let folded = fused.state().export().expect("readable");
    let mut folded: BTreeMap<String, Tensor> = folded.into_iter().collect();
    unfold(&mut folded).expect("memory");
    let mut other = network(Layout::ChannelsLast, 2);
    let transfer = other.state_mut().transfer(&folded).expect("memory");
    assert_eq!((349, 349), (transfer.taken, transfer.items));
    let images = images(1, 64);
    let expected = original.evaluate(&images).expect("evaluated").decoded;
    let found = other.evaluate(&images).expect("evaluated").decoded;
    assert!(difference(&expected, &found) < 1e-3, "in pixels");
    // A trainable state has nothing to take apart.
    let mut whole = exported(&original);
    unfold(&mut whole).expect("memory");
    assert_eq!(349, whole.len());
}

#[test]
fn only_what_has_the_same_name_and_shape_is_taken() {
    let mut given = exported(&network(Layout::ChannelsLast, 1));
    let kernel = "model.0.conv.weight";
    given.insert(kernel.to_owned(), Tensor::from_slice(&[1.0f32]));
    given.remove("model.1.bn.bias");
    let anchors = given.get_mut("model.24.anchors").expect("a name of n");
    *anchors = &*anchors * 2.0;
    given.insert("model.99.weight".to_owned(), Tensor::from(1.0f32));
    let mut other = network(Layout::ChannelsLast, 2);
    let before = exported(&other);
    let transfer = other.state_mut().transfer(&given).expect("memory");
    let shape = before[kernel].size();
    assert_eq!(
        Transfer {
            items: 349,
            taken: 346,
            other_shape: vec![(kernel.to_owned(), shape, vec![1])],
            missing: vec!["model.1.bn.bias".to_owned()],
            other_anchors: Some("model.24.anchors".to_owned()),
        },
        transfer
    );
    let after = exported(&other);
    assert!(
        after[kernel].equal(&before[kernel])
            && after["model.24.anchors"].equal(&before["model.24.anchors"])
    );
    let taken = "model.1.conv.weight";
    assert!(after[taken].equal(&given[taken]) && !after[taken].equal(&before[taken]));
}
