//! `predict`, `eval` and `make-dataset`.

use std::path::Path;

use serde_json::json;

use crate::harness::{Ended, Fixture, Start, ended, program};

fn trained() -> Fixture {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    fixture.succeed(&Start::new("o", 1));
    fixture
}

fn predict(fixture: &Fixture, output: &Path, more: &[&str]) -> Ended {
    let command = program()
        .arg("predict")
        .arg("--weights")
        .arg(fixture.run_folder("o"))
        .arg("--source")
        .arg(fixture.path("data/images/val"))
        .arg("--output")
        .arg(output)
        .args(more)
        .output();
    ended(command.expect("ran"))
}

#[test]
fn predictions_are_drawn_and_written_and_nothing_is_overwritten() {
    let fixture = trained();
    let output = fixture.path("found");
    let sheet = fixture.path("sheet.png");
    let sheet_flag = format!("--contact-sheet={}", sheet.display());
    let flags = [
        "--limit",
        "3",
        "--conf",
        "0",
        "--labels",
        "--save-txt",
        &sheet_flag,
    ];
    let first = predict(&fixture, &output, &flags);
    assert_eq!(Some(0), first.code, "{}", first.text);
    let count = |extension: &str, folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("readable");
        entries
            .filter(|entry| {
                let path = entry.as_ref().expect("entry").path();
                path.extension().is_some_and(|it| it == extension)
            })
            .count()
    };
    assert_eq!(
        (3, 3),
        (count("png", &output), count("txt", &output.join("labels")))
    );
    let picture = image::open(&sheet).expect("a picture");
    assert!(picture.width() > 480);
    let text = std::fs::read_to_string(output.join("predictions.json")).expect("readable");
    let summary: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(3, summary["images"].as_array().expect("a list").len());

    assert_eq!(Some(0), predict(&fixture, &output, &["--limit", "1"]).code);
    let refused = predict(&fixture, &fixture.path("data"), &[]);
    assert_eq!(Some(73), refused.code);
    assert!(
        refused.text.contains("nothing is overwritten"),
        "{}",
        refused.text
    );
}

#[test]
fn weights_of_all_forms_evaluate_alike() {
    let fixture = trained();
    let run = fixture.run_folder("o");
    let eval = |weights: &Path| {
        let output = program()
            .args(["eval", "--json", "--weights"])
            .arg(weights)
            .arg("--data")
            .arg(fixture.path("data/data.yaml"))
            .output()
            .expect("ran");
        ended(output)
    };
    let forms = [
        run.clone(),
        run.join("weights/last.safetensors"),
        run.join("checkpoints/step-000000003"),
    ];
    let texts: Vec<String> = forms
        .iter()
        .map(|form| {
            let ended = eval(form);
            assert_eq!(Some(0), ended.code, "{}", ended.text);
            ended.text
        })
        .collect();
    assert!(texts[0] == texts[1] && texts[1] == texts[2], "{texts:?}");
    assert!(texts[0].contains("\"mAP50\""), "{}", texts[0]);
    let missing = eval(&fixture.path("nothing"));
    assert_eq!(Some(64), missing.code);
    assert!(
        missing.text.contains("cannot read the weights"),
        "{}",
        missing.text
    );
}

#[test]
fn an_example_data_set_is_made_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let make = || {
        let output = program()
            .args([
                "make-dataset",
                "digits",
                "--train",
                "2",
                "--val",
                "1",
                "--image-size",
                "64",
            ])
            .arg("--output")
            .arg(folder.path().join("digits"))
            .output();
        ended(output.expect("ran"))
    };
    let first = make();
    assert_eq!(Some(0), first.code, "{}", first.text);
    assert!(first.text.contains("3 scenes"), "{}", first.text);
    assert_eq!(
        Some(64),
        make().code,
        "an existing data set was overwritten"
    );
}
