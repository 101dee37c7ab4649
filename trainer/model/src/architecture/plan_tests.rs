use contract::spec::{self, Model};

use super::*;
use crate::testing::{ZOO, custom};

/// A small valid model file.
pub(crate) const SMALL: &str = "\
nc: 80
depth_multiple: 0.5
width_multiple: 0.5
anchors: [[10, 13, 16, 30], [30, 61, 62, 45]]
activation: nn.ReLU()
ch: 3
inplace: true
backbone:
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, Conv, [32, 3, 4]]
  - [-1, 4, C3, [64]]
head:
  - [-1, 1, Conv, [64, 3, 2]]
  - [[2, 3], 1, Detect, [nc, anchors]]
";

pub(crate) fn model(text: &str) -> Model {
    Model {
        architecture: Some(text.to_owned()),
        ..Model::default()
    }
}

/// Why a model cannot be used, with all causes.
pub(crate) fn refusal(model: &Model) -> String {
    let error = Architecture::of(model, Some(3)).expect_err("refused");
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[test]
fn a_file_is_read_with_its_multiples_and_the_data_sets_classes() {
    let small = custom(SMALL);
    assert_eq!("custom architecture", small.name());
    assert_eq!((3, 16), (small.classes(), small.multiple()));
    let of = |index: usize| &small.layers()[index];
    assert_eq!("[16, 32, 2]", of(2).arguments);
    assert_eq!((2, "-1"), (of(2).number, of(2).written_from.as_str()));
    assert_eq!(
        "[3, [[10, 13, 16, 30], [30, 61, 62, 45]], [32, 32]]",
        of(4).arguments
    );
    assert_eq!("[2, 3]", of(4).written_from);
    let Module::Conv { activation, .. } = of(0).module else {
        panic!("not a Conv");
    };
    assert_eq!(Activation::Relu, activation);
    let strides: Vec<u32> = small.levels().iter().map(|level| level.stride).collect();
    assert_eq!([8, 16], strides[..]);

    let note = Architecture::note(&model(SMALL), 3).expect("a difference");
    assert!(
        note.contains("nc: 80") && note.contains("3 classes"),
        "{note}"
    );
    assert_eq!(None, Architecture::note(&model(SMALL), 80));
    assert_eq!(None, Architecture::note(&Model::default(), 3));
    let alone = Architecture::of(&model(SMALL), None).expect("valid");
    assert_eq!(80, alone.classes());
}

/// What sides of images must be multiples of follows from all layers, not from Detect alone.
#[test]
fn the_deepest_layer_decides_the_multiple() {
    let strides = custom(SMALL).levels()[1].stride;
    assert_eq!(16, strides);
    assert_eq!(
        32,
        custom(&SMALL.replace("[32, 3, 4]", "[32, 3, 8]")).multiple()
    );
    let detour = SMALL.replace(
        "  - [-1, 1, Conv, [64, 3, 2]]\n",
        "  - [-1, 1, Conv, [64, 3, 4]]\n  - [-1, 1, nn.Upsample, [None, 2, bilinear]]\n",
    );
    let detour = custom(&detour.replace("[2, 3]", "[2, 4]"));
    assert_eq!((16, 32), (detour.levels()[1].stride, detour.multiple()));
}

#[test]
fn the_jobs_own_settings_go_before_the_files() {
    let own = Model {
        activation: Some(spec::Activation::LeakyReLU),
        anchors: Some(vec![vec![60.0, 50.0], vec![5.0, 6.0]]),
        ..model(SMALL)
    };
    let own = Architecture::of(&own, Some(3)).expect("valid");
    let Module::Conv { activation, .. } = own.layers()[0].module else {
        panic!("not a Conv");
    };
    assert_eq!(Activation::LeakyRelu(0.1), activation);
    // In the order of the strides, as YOLOv5 turns them.
    assert_eq!([[5.0, 6.0], [60.0, 50.0]], own.anchors()[..]);
    assert_eq!(1, own.anchors_per_level());

    let inline = SMALL.replace("[nc, anchors]", "[80, [[1, 2], [3, 4]]]");
    assert_eq!([[1.0, 2.0], [3.0, 4.0]], custom(&inline).anchors()[..]);
    let too_many = Model {
        anchors: Some(vec![vec![1.0, 2.0]; 3]),
        ..model(SMALL)
    };
    let text = refusal(&too_many);
    assert!(
        text.contains("it has 2 levels, but model.anchors has 3"),
        "{text}"
    );
}

/// Detect takes its inputs in any order.
#[test]
fn anchors_follow_the_strides() {
    let turned = custom(&SMALL.replace("[[2, 3]", "[[3, 2]"));
    let levels: Vec<(u32, f32)> = turned
        .levels()
        .iter()
        .map(|level| (level.stride, level.anchors[0][0]))
        .collect();
    assert_eq!([(16, 30.0), (8, 10.0)], levels[..]);
}

/// YOLOv5's rule about channels that equal the numbers predicted in a cell.
#[test]
fn channels_of_predictions_are_not_scaled() {
    let text = SMALL.replace("[64, 3, 2]", "[16, 3, 2]");
    let outputs = |classes: usize| {
        let planned = Architecture::of(&model(&text), Some(classes)).expect("valid");
        planned.layers()[3].arguments.clone()
    };
    assert_eq!("[32, 8, 3, 2]", outputs(4));
    assert_eq!("[32, 16, 3, 2]", outputs(3));
}

#[test]
fn layers_may_be_named_from_the_end() {
    let relative = SMALL.replace("[[2, 3]", "[[-2, -1]");
    assert_eq!(vec![Some(2), Some(3)], custom(&relative).layers()[4].from);
}

#[test]
fn the_zoo_has_every_module() {
    let zoo = custom(ZOO);
    for name in modules::names() {
        assert!(
            zoo.layers().iter().any(|layer| layer.name == name),
            "{name}"
        );
    }
}

#[test]
fn the_documentation_lists_every_module() {
    let page = include_str!("../../../../docs/models.md");
    for name in modules::names() {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing");
    }
    for name in super::super::activation::NAMES.split(", ") {
        let name = name.split('(').next().expect("a name");
        assert!(page.contains(name), "{name} is missing");
    }
    let (_, example) = page.split_once("architecture: |\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    assert_eq!(5, custom(example).layers().len());
}
