//! Runs that begin with other programs' weights.

use contract::spec::ModelSize;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use trainer::checkpoint;
use trainer::weights::WeightsInfo;
use trainer_formats::WeightsFile;
use trainer_model::architecture::{Architecture, builtin};
use trainer_model::network::{Network, NetworkOptions};

use crate::harness::{Ended, Fixture, STEPS_PER_EPOCH, Start, ended, program};

/// Made by `tests/parity/formats_testdata.py`: 3 classes, 8 channels everywhere, anchors of its own.
const CHECKPOINT: &[u8] = include_bytes!("../../formats/testdata/yolov5.pt");
/// Too small to change a weight by more than the tolerance of these tests.
const RATE: f64 = 1e-6;

/// A run of one epoch that learns next to nothing, with `model`, which names no size unless it says so.
fn fixture(model: &Value) -> Fixture {
    let fixture = Fixture::new(&json!({}));
    let mut changes = json!({
        "model": {"size": null},
        "training": {"epochs": 1},
        "hyperparameters": {"lr0": RATE},
    });
    for (key, value) in model.as_object().expect("fields") {
        changes["model"][key] = value.clone();
    }
    fixture.write_manifest(&changes);
    std::fs::create_dir(fixture.path("data/weights")).expect("made");
    std::fs::write(fixture.path("data/weights/ants.pt"), CHECKPOINT).expect("written");
    fixture
}

fn text_of(fixture: &Fixture, start: &Start<'_>) -> String {
    fixture.succeed(start).swap_remove(0).text
}

fn refused(model: &Value) -> String {
    let fixture = fixture(model);
    let Ended { code, text } = fixture.run(&Start::new("o", 1)).swap_remove(0);
    assert_eq!(Some(64), code, "{text}");
    text
}

/// The largest difference between the averaged weights at the end and those of the file, of the first kernel.
fn moved(fixture: &Fixture, output: &str) -> f32 {
    let bytes = fixture.tensors(output, STEPS_PER_EPOCH);
    let ema = SafeTensors::deserialize(&bytes["ema.safetensors"]).expect("valid");
    let kernel = ema.tensor("model.0.conv.weight").expect("there");
    let (numbers, _) = kernel.data().as_chunks::<4>();
    let file = WeightsFile::of_bytes(CHECKPOINT.to_vec()).and_then(|mut file| {
        let mut loaded = file.load(|name| name == "model.0.conv.weight")?;
        Ok(loaded.swap_remove(0).to_f32())
    });
    let file = file.expect("readable");
    assert_eq!(file.len(), numbers.len());
    let pairs = numbers.iter().zip(&file);
    pairs
        .map(|(a, b)| (f32::from_le_bytes(*a) - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn the_network_of_the_weights_is_trained_on_other_classes() {
    let fixture = fixture(&json!({"weights": "weights/ants.pt"}));
    let text = text_of(&fixture, &Start::new("o", 1));
    // Two levels of Detect have a kernel and a bias each, which depend on the number of classes.
    let transferred = text
        .lines()
        .find(|line| line.contains("Transferred"))
        .expect("told");
    assert!(
        transferred.contains("items from weights/ants.pt; of another shape: model.9.m.0.weight [16, 8, 1, 1] instead of [30, 8, 1, 1]"),
        "{transferred}"
    );
    let (taken, all) = transferred
        .split_once("Transferred ")
        .and_then(|(_, rest)| rest.split_once(' ')?.0.split_once('/'))
        .expect("two numbers");
    let numbers = [taken, all].map(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(numbers[1] - 4, numbers[0]);
    assert!(moved(&fixture, "o") < 1e-4, "the average begins elsewhere");
    let spec = &fixture.state("o", STEPS_PER_EPOCH)["spec"];
    assert_eq!(json!([15.0, 19.5, 24.0, 45.0]), spec["model"]["anchors"][0]);

    // A second start goes on and takes nothing anew; the weights it wrote are of the same network.
    let again = text_of(&fixture, &Start::new("o", 1));
    assert!(!again.contains("Transferred"), "{again}");
    let best = fixture.run_folder("o").join("weights/last.safetensors");
    let info = ended(
        program()
            .args(["info", "--json"])
            .arg(best)
            .output()
            .expect("ran"),
    );
    assert!(info.text.contains("\"classes\":10"), "{}", info.text);
}

#[test]
fn two_ranks_begin_with_the_same_weights() {
    let fixture = fixture(&json!({"weights": "weights/ants.pt"}));
    let start = Start {
        flags: &["--verify-ranks"],
        ..Start::new("o", 2)
    };
    assert!(text_of(&fixture, &start).contains("Transferred"));
    assert!(moved(&fixture, "o") < 1e-4);
}

#[test]
fn anchors_and_networks_of_the_job_come_first() {
    let anchors = json!([[8, 8, 16, 16], [32, 32, 48, 48]]);
    let fixture = fixture(&json!({"weights": "weights/ants.pt", "anchors": anchors}));
    let text = text_of(&fixture, &Start::new("o", 1));
    assert!(
        text.contains("its anchors are not those of the model"),
        "{text}"
    );
    let spec = &fixture.state("o", STEPS_PER_EPOCH)["spec"];
    assert_eq!(json!([8.0, 8.0, 16.0, 16.0]), spec["model"]["anchors"][0]);
}

/// Of anchors that were made for a data set, the model file in the weights has only the number.
#[test]
fn weights_whose_model_file_has_the_number_of_anchors_are_used() {
    let fixture = Fixture::new(&json!({
        "model": {"size": "n", "weights": "weights/made.pt"},
        "training": {"iterations": 1, "evaluateEvery": 100},
    }));
    let usual = builtin::document(ModelSize::N);
    let (start, rest) = usual.split_once("anchors:").expect("anchors");
    let (_, rest) = rest.split_once("backbone:").expect("layers");
    let text = format!("{start}anchors: 3\nbackbone:{rest}");
    let info: WeightsInfo = serde_json::from_value(json!({
        "formatVersion": 2, "model": {"architecture": text}, "nc": 10, "imageSize": 64, "epoch": 0,
        "names": (0..10).map(|class| class.to_string()).collect::<Vec<_>>(),
    }))
    .expect("a note");
    let architecture = Architecture::of(&info.model, Some(10)).expect("valid");
    let network = Network::initialised(&NetworkOptions::of(architecture), 0).expect("made");
    let state = network.state().export().expect("exported");
    let bytes = checkpoint::encode(&state, Some(info.note())).expect("encoded");
    let ours = fixture.path("made.safetensors");
    std::fs::write(&ours, bytes).expect("written");
    std::fs::create_dir(fixture.path("data/weights")).expect("made");
    let theirs = fixture.path("data/weights/made.pt");
    let mut export = program();
    export
        .args(["export", "--format", "pt", "--weights"])
        .arg(&ours);
    let done = ended(export.arg("--output").arg(&theirs).output().expect("ran"));
    assert_eq!(Some(0), done.code, "{}", done.text);

    let info = ended(program().arg("info").arg(&theirs).output().expect("ran"));
    assert_eq!(Some(0), info.code, "{}", info.text);
    let text = text_of(&fixture, &Start::new("o", 1));
    assert!(text.contains("items from weights/made.pt"), "{text}");
}

#[test]
fn weights_that_cannot_be_used_are_refused_with_the_reason() {
    let text = refused(&json!({"weights": "weights/bees.pt"}));
    assert!(
        text.contains("cannot read the weights") && text.contains("bees.pt"),
        "{text}"
    );
    let text = refused(&json!({"weights": "data.yaml"}));
    assert!(text.contains("neither a PyTorch file"), "{text}");
    let text = refused(&json!({"weights": "/weights/ants.pt"}));
    assert!(
        text.contains("model.weights is '/weights/ants.pt': write a path inside"),
        "{text}"
    );
}

#[test]
fn info_and_eval_take_checkpoints_of_the_python_program() {
    let fixture = fixture(&json!({}));
    let path = fixture.path("data/weights/ants.pt");
    let info = ended(
        program()
            .args(["info", "--json"])
            .arg(&path)
            .output()
            .expect("ran"),
    );
    let told: Value = serde_json::from_str(&info.text).unwrap_or_else(|_| panic!("{}", info.text));
    assert_eq!(
        (json!(3), json!(96), json!(7)),
        (
            told["classes"].clone(),
            told["imageSize"].clone(),
            told["epochs"].clone()
        )
    );
    assert_eq!(json!([15.0, 19.5]), told["anchors"][0][0]);

    let mut eval = program();
    eval.args(["eval", "--json", "--weights"]).arg(&path);
    let eval = ended(
        eval.arg("--data")
            .arg(fixture.path("data/data.yaml"))
            .output()
            .expect("ran"),
    );
    assert!(
        eval.text
            .contains("the weights know 3 classes, the data set has 10"),
        "{}",
        eval.text
    );
}
