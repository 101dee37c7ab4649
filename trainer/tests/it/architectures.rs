//! Networks of one's own, from the manifest to predictions.

use serde_json::json;

use crate::harness::{Ended, Fixture, STEPS_PER_EPOCH, Start, ended, program};

/// A small network with two levels, two anchors for each, and modules that the family does not have.
const OWN: &str = "\
nc: 80
depth_multiple: 0.5
width_multiple: 1.0
anchors:
  - [8, 12, 14, 20]
  - [24, 36, 40, 30]
backbone:
  - [-1, 1, Focus, [8, 3]]
  - [-1, 1, GhostConv, [16, 3, 2]]
  - [-1, 2, C3Ghost, [16]]
  - [-1, 1, Conv, [24, 3, 2]]
  - [-1, 2, BottleneckCSP, [24]]
  - [-1, 1, DWConv, [24, 3, 2]]
  - [-1, 1, C3TR, [24]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[-1, 4], 1, Concat, [1]]
  - [-1, 1, C3, [24, False]]
  - [[9, 6], 1, Detect, [nc, anchors]]
";

fn manifest(architecture: &str) -> serde_json::Value {
    json!({
        // The fixture's own size is taken back.
        "model": {"size": null, "architecture": architecture, "activation": "LeakyReLU"},
        "training": {"epochs": 2, "evaluateEvery": 1},
    })
}

fn run(arguments: &[&str]) -> Ended {
    ended(program().args(arguments).output().expect("ran"))
}

/// A file may leave the anchors to the data set, as YOLOv5's may.
#[test]
fn anchors_of_which_only_the_number_is_given_are_made_from_the_data_set() {
    let own = OWN.replace(
        "anchors:\n  - [8, 12, 14, 20]\n  - [24, 36, 40, 30]",
        "anchors: 2",
    );
    // The level with the largest cells comes first here.
    let own = own.replace("[[9, 6], 1, Detect", "[[6, 9], 1, Detect");
    let mut manifest = manifest(&own);
    manifest["training"]["epochs"] = json!(1);
    let fixture = Fixture::new(&manifest);
    let first = fixture.succeed(&Start::new("o", 2));
    let told = "anchors made from the labels: best possible recall 1.0000; ";
    let anchors = first[0]
        .text
        .split(told)
        .nth(1)
        .and_then(|rest| rest.lines().next());
    let anchors: Vec<Vec<f64>> = serde_json::from_str(anchors.expect("told")).expect("anchors");
    assert_eq!([4, 4], [anchors[0].len(), anchors[1].len()]);
    let area = |level: &[f64], at: usize| level[2 * at] * level[2 * at + 1];
    assert!(area(&anchors[1], 1) <= area(&anchors[0], 0), "{anchors:?}");

    let best = fixture.run_folder("o").join("weights/best.safetensors");
    let info = run(&["info", "--json", &best.display().to_string()]);
    assert_eq!(Some(0), info.code, "{}", info.text);
    let info: serde_json::Value = serde_json::from_str(&info.text).expect("a document");
    let told: Vec<Vec<f64>> = info["anchors"]
        .as_array()
        .expect("levels")
        .iter()
        .map(sides)
        .collect();
    for (told, made) in told.iter().flatten().zip(anchors.iter().flatten()) {
        assert!((told - made).abs() < 1e-4, "{info}");
    }

    manifest["training"]["autoAnchor"] = json!(false);
    let refused = &Fixture::new(&manifest).run(&Start::new("o", 1))[0];
    assert_eq!(Some(64), refused.code, "{}", refused.text);
    assert!(
        refused.text.contains("training.autoAnchor is false"),
        "{}",
        refused.text
    );
}

/// Of pairs, all numbers.
fn sides(level: &serde_json::Value) -> Vec<f64> {
    let pairs = level.as_array().expect("pairs").iter();
    pairs
        .flat_map(|pair| pair.as_array().expect("a pair"))
        .filter_map(serde_json::Value::as_f64)
        .collect()
}

#[test]
fn a_network_of_ones_own_trains_resumes_evaluates_and_predicts() {
    let fixture = Fixture::new(&manifest(OWN));
    let all = fixture.succeed(&Start::new("o", 2));
    assert!(
        all[0].text.contains("custom architecture with 10 classes"),
        "{}",
        all[0].text
    );
    assert!(all[0].text.contains("nc: 80"), "{}", all[0].text);
    assert_eq!(
        [STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH],
        fixture.checkpoints("o")[..]
    );

    // From the first checkpoint on the run does the same again.
    let whole = fixture.tensors("o", 2 * STEPS_PER_EPOCH);
    std::fs::remove_dir_all(fixture.checkpoint("o", 2 * STEPS_PER_EPOCH)).expect("removed");
    let again = Start {
        restart: 1,
        ..Start::new("o", 2)
    };
    let resumed = fixture.succeed(&again);
    assert!(
        resumed[0].text.contains("going on from"),
        "{}",
        resumed[0].text
    );
    assert!(
        whole == fixture.tensors("o", 2 * STEPS_PER_EPOCH),
        "resuming changed the result"
    );

    let folder = fixture.run_folder("o");
    let path = |name: &str| folder.join(name).display().to_string();
    let data = fixture.path("data/data.yaml").display().to_string();
    let best = path("weights/best.safetensors");
    let measured = run(&["eval", "--json", "--weights", &best, "--data", &data]);
    assert_eq!(Some(0), measured.code, "{}", measured.text);
    assert!(measured.text.contains("\"mAP50\""), "{}", measured.text);

    let described = run(&["info", "--json", &path("")]);
    assert_eq!(Some(0), described.code, "{}", described.text);
    let json: serde_json::Value = serde_json::from_str(&described.text).expect("JSON");
    assert_eq!(json!([8, 16]), json["strides"]);
    assert_eq!(json!([10, 64]), json!([json["classes"], json["imageSize"]]));
    assert!(
        json["epochs"].as_u64().is_some_and(|epochs| epochs >= 1),
        "{json}"
    );
    let other = run(&["info", "--classes", "3", &best]);
    assert_eq!(Some(64), other.code, "{}", other.text);
    assert!(
        other
            .text
            .contains("--classes is 3, but the weights have 10"),
        "{}",
        other.text
    );

    let pictures = fixture.path("data/images/val").display().to_string();
    let found = fixture.path("found").display().to_string();
    let predict = [
        "predict",
        "--weights",
        &best,
        "--source",
        &pictures,
        "--output",
        &found,
    ];
    let predicted = run(&predict);
    assert_eq!(Some(0), predicted.code, "{}", predicted.text);
}

#[test]
fn a_fourth_level_trains_and_asks_for_fitting_images() {
    let size = |image_size: u32| {
        json!({
            "model": {"size": "yolov5n6"},
            "training": {"epochs": 1, "imageSize": image_size, "evaluateEvery": 1, "batchSize": 6},
        })
    };
    let fixture = Fixture::new(&size(96));
    let refused = fixture.run(&Start::new("o", 1)).remove(0);
    assert_eq!(Some(64), refused.code, "{}", refused.text);
    let sentence = "training.imageSize is 96: choose a multiple of 64 from 128 to 8192 (model.size is yolov5n6)";
    assert!(refused.text.contains(sentence), "{}", refused.text);

    fixture.write_manifest(&size(128));
    fixture.succeed(&Start::new("o", 1));
    let weights = fixture.run_folder("o").display().to_string();
    let data = fixture.path("data/data.yaml").display().to_string();
    let eval = [
        "eval",
        "--weights",
        &weights,
        "--data",
        &data,
        "--image-size",
    ];
    let odd = run(&[&eval[..], &["96"]].concat());
    assert_eq!(Some(64), odd.code, "{}", odd.text);
    assert!(
        odd.text
            .contains("--image-size is 96: choose a multiple of 64"),
        "{}",
        odd.text
    );
    let fitting = run(&[&eval[..], &["64"]].concat());
    assert_eq!(Some(0), fitting.code, "{}", fitting.text);
}

#[test]
fn mistakes_in_an_architecture_end_the_job_before_data_is_touched() {
    let told = |architecture: &str, image_size: u32| {
        let mut changes = manifest(architecture);
        changes["training"]["imageSize"] = image_size.into();
        let fixture = Fixture::new(&changes);
        std::fs::remove_dir_all(fixture.path("data")).expect("removed");
        let refused = fixture.run(&Start::new("o", 1)).remove(0);
        assert_eq!(Some(64), refused.code, "{}", refused.text);
        assert!(refused.text.contains("InvalidConfig"), "{}", refused.text);
        refused.text
    };
    let text = told(&OWN.replace("C3TR", "C4"), 64);
    let sentence = "model.architecture cannot be used: layer 6 (row 7 of backbone, C4): 'C4' is not a module this program has: choose one of Conv,";
    assert!(text.contains(sentence), "{text}");
    let text = told(
        &OWN.replace(
            "[24, 3, 2]]\n  - [-1, 1, C3TR",
            "[24, 3, 8]]\n  - [-1, 1, C3TR",
        )
        .replace("None, 2", "None, 8"),
        96,
    );
    let sentence = "training.imageSize is 96: choose a multiple of 64 from 128 to 8192 (the largest stride of model.architecture is 64)";
    assert!(text.contains(sentence), "{text}");
}
