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

    let again = predict(&fixture, &output, &flags);
    assert_eq!(Some(73), again.code, "{}", again.text);
    assert!(again.text.contains("sheet.png exists"), "{}", again.text);
    // One in the output folder is its own, and folders are made.
    let own = format!(
        "--contact-sheet={}",
        output.join("sheets/all.png").display()
    );
    for _ in 0..2 {
        let ended = predict(&fixture, &output, &["--limit", "1", &own]);
        assert_eq!(Some(0), ended.code, "{}", ended.text);
    }
    let refused = predict(&fixture, &fixture.path("data"), &[]);
    assert_eq!(Some(73), refused.code);
    assert!(
        refused.text.contains("nothing is overwritten"),
        "{}",
        refused.text
    );
}

/// The picture of a source that names its folder `images` from its beginning shows them, too.
#[test]
fn labels_are_drawn_wherever_a_picture_is_named_from() {
    let fixture = trained();
    let picture = |output: &str, source: &Path, flags: &[&str]| {
        let command = program()
            .current_dir(fixture.path("data"))
            .args(["predict", "--limit=1", "--conf=1", "--weights"])
            .arg(fixture.run_folder("o"))
            .arg("--source")
            .arg(source)
            .arg("--output")
            .arg(fixture.path(output))
            .args(flags)
            .output();
        let ended = ended(command.expect("ran"));
        assert_eq!(Some(0), ended.code, "{}", ended.text);
        let entries = std::fs::read_dir(fixture.path(output)).expect("written");
        let mut files = entries.map(|entry| entry.expect("entry").path());
        let file = files.find(|path| path.extension().is_some_and(|it| it == "png"));
        std::fs::read(file.expect("a picture")).expect("readable")
    };
    let absolute = fixture.path("data/images/val");
    let relative = Path::new("images/val");
    let labelled = picture("absolute", &absolute, &["--labels"]);
    assert!(labelled != picture("without", &absolute, &[]));
    assert!(labelled == picture("relative", relative, &["--labels"]));
}

#[test]
fn only_what_is_asked_for_is_predicted_cut_out_and_written() {
    let fixture = trained();
    let output = fixture.path("found");
    let flags = [
        "--limit=2",
        "--conf=0",
        "--max-det=6",
        "--agnostic-nms",
        "--save-crop",
        "--save-json",
    ];
    let all = predict(
        &fixture,
        &output,
        &[
            &flags[..],
            &[
                "--classes",
                "0",
                "1",
                "2",
                "3",
                "4",
                "5",
                "6",
                "7",
                "8",
                "9",
            ],
        ]
        .concat(),
    );
    assert_eq!(Some(0), all.code, "{}", all.text);
    let rows = |folder: &Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(folder.join("coco.json")).expect("written");
        serde_json::from_str(&text).expect("JSON")
    };
    let found = rows(&output);
    assert_eq!(12, found.len());
    let class = found[0]["category_id"].as_u64().expect("a class");
    let folder = output.join(format!("crops/{class} {class}"));
    assert!(std::fs::read_dir(&folder).expect("crops").count() > 0);

    let one = fixture.path("one");
    let chosen = predict(
        &fixture,
        &one,
        &[&flags[..], &["--classes", &class.to_string()]].concat(),
    );
    assert_eq!(Some(0), chosen.code, "{}", chosen.text);
    // What other classes had found takes no places: there are as many, all of this one.
    let of_class = rows(&one);
    assert_eq!(12, of_class.len());
    assert!(of_class.iter().all(|row| row["category_id"] == class));
    let refused = predict(&fixture, &fixture.path("none"), &["--classes", "10"]);
    assert_eq!(Some(64), refused.code, "{}", refused.text);
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

fn eval(fixture: &Fixture, more: &[&str]) -> Ended {
    let command = program()
        .args(["eval", "--weights"])
        .arg(fixture.run_folder("o"))
        .arg("--data")
        .arg(fixture.path("data/data.yaml"))
        .args(more)
        .output();
    ended(command.expect("ran"))
}

fn parsed(ended: &Ended) -> serde_json::Value {
    assert_eq!(Some(0), ended.code, "{}", ended.text);
    serde_json::from_str(&ended.text).expect("JSON")
}

/// Of an image that cannot be decoded people are told elsewhere than where programs read.
#[test]
fn json_is_alone_on_standard_output() {
    let fixture = Fixture::new(&json!({}));
    // A set without labels, for weights of other classes.
    std::fs::remove_dir_all(fixture.path("data/labels/val")).expect("removed");
    let data = json!({"train": "images/val", "val": "images/val", "names": ["ant", "bee", "cat"]});
    std::fs::write(fixture.path("data/data.yaml"), data.to_string()).expect("written");
    let mut images = std::fs::read_dir(fixture.path("data/images/val")).expect("images");
    let image = images.next().expect("one").expect("entry").path();
    let mut bytes = std::fs::read(&image).expect("readable");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&image, bytes).expect("written");
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/formats/testdata/yolov5.pt");
    let run = |data: &Path| {
        let mut command = program();
        command.args(["eval", "--json", "--weights", weights, "--data"]);
        let output = command.arg(data).output().expect("ran");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (text(output.stdout), text(output.stderr))
    };
    let (document, told) = run(&fixture.path("data/data.yaml"));
    let read: serde_json::Value =
        serde_json::from_str(&document).unwrap_or_else(|_| panic!("{document}{told}"));
    assert_eq!(json!(10), read["images"]);
    assert!(!document.contains("-0.0"), "{document}");
    assert!(told.starts_with("warning: image skipped: "), "{told}");

    let (document, told) = run(&fixture.path("nothing.yaml"));
    assert_eq!("", document);
    assert!(told.starts_with("error: "), "{told}");

    for args in [["convert", "--opt=no.yaml"], ["info", "--yaml"]] {
        let mut command = program();
        command
            .args(args)
            .args((args[0] == "info").then_some("no.yaml"));
        let output = command.output().expect("ran");
        assert_eq!(b"", &output.stdout[..], "{args:?}");
        assert!(output.stderr.starts_with(b"error: "), "{output:?}");
    }
}

#[test]
fn an_evaluation_shows_and_writes_what_is_asked_for() {
    let fixture = trained();
    let (json, texts) = (fixture.path("coco.json"), fixture.path("texts"));
    let files = [
        format!("--save-json={}", json.display()),
        format!("--save-txt={}", texts.display()),
    ];
    let all = ["--coco", "--verbose", "--max-det=40", &files[0], &files[1]];
    let shown = eval(&fixture, &all);
    assert_eq!(Some(0), shown.code, "{}", shown.text);
    for part in [
        "COCO's definition",
        "AR100",
        "Why they differ",
        "background",
        "images",
    ] {
        assert!(shown.text.contains(part), "no {part} in {}", shown.text);
    }
    let text = std::fs::read_to_string(&json).expect("written");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let lines: usize = std::fs::read_dir(&texts)
        .expect("written")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|it| it == "txt"))
        .map(|path| std::fs::read_to_string(path).expect("text").lines().count())
        .sum();
    assert_eq!(rows.len(), lines);
    assert_eq!(
        10 * 40,
        lines,
        "an untrained network finds more than 40 on each image"
    );

    let again = eval(&fixture, &all);
    assert_eq!(Some(73), again.code, "{}", again.text);
    assert!(again.text.contains("coco.json exists"), "{}", again.text);
    let missing = eval(&fixture, &["--task=test"]);
    assert_ne!(Some(0), missing.code);
    assert!(
        missing.text.contains("names no test images"),
        "{}",
        missing.text
    );
}

/// The high image is evaluated before the wide one, which the data set names first.
#[test]
fn label_files_are_named_by_the_data_set_and_not_mixed_with_others() {
    let fixture = trained();
    let sizes = [("a", (64, 32)), ("b", (32, 64))];
    for (k, (folder, size)) in (0..).zip(sizes) {
        fixture.crop(k, size);
        let mut files: Vec<_> = std::fs::read_dir(fixture.path("data/images/train"))
            .expect("images")
            .map(|entry| entry.expect("entry").path())
            .collect();
        files.sort();
        let folder = fixture.path("data/images").join(folder);
        std::fs::create_dir(&folder).expect("made");
        std::fs::copy(&files[k as usize], folder.join("x.png")).expect("copied");
    }
    let data = json!({
        "train": "images/train",
        "val": ["images/a", "images/b"],
        "names": (0..10).map(|class| class.to_string()).collect::<Vec<_>>(),
    });
    std::fs::write(fixture.path("data/data.yaml"), data.to_string()).expect("written");
    let (json, texts) = (fixture.path("coco.json"), fixture.path("texts"));
    let save_json = format!("--save-json={}", json.display());
    let save_txt = format!("--save-txt={}", texts.display());
    let flags = ["--json", "--max-det=40", &save_json, &save_txt];
    parsed(&eval(&fixture, &flags));
    // In the order of the data set.
    let text = std::fs::read_to_string(json).expect("written");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(2 * 40, rows.len());
    let of_images = rows.chunks(40).zip(sizes).zip(["x.txt", "x-2.txt"]);
    for ((rows, (_, (width, height))), file) in of_images {
        let text = std::fs::read_to_string(texts.join(file)).expect("written");
        for (row, line) in rows.iter().zip(text.lines()) {
            let words: Vec<f64> = line.split(' ').map(|it| it.parse().expect("it")).collect();
            let written = [f64::from(width) * words[3], f64::from(height) * words[4]];
            let want = [&row["bbox"][2], &row["bbox"][3]].map(|it| it.as_f64().expect("a number"));
            let is_same = std::iter::zip(written, want).all(|(a, b)| (a - b).abs() < 0.01);
            assert!(is_same, "{file}: {written:?} is not {want:?}");
        }
    }

    // The same images again replace their own; without one of them, its labels would stay.
    parsed(&eval(&fixture, &["--json", &save_txt]));
    let summary = texts.join("evaluation.json");
    let before = std::fs::read(&summary).expect("written");
    std::fs::remove_file(fixture.path("data/images/b/x.png")).expect("removed");
    let refused = eval(&fixture, &[&save_txt]);
    assert_eq!(Some(73), refused.code, "{}", refused.text);
    assert!(
        refused.text.contains("x-2.txt belongs to no image"),
        "{}",
        refused.text
    );
    assert_eq!(before, std::fs::read(&summary).expect("kept"));
}

/// So that they can be measured with that file.
#[test]
fn results_have_the_numbers_of_a_coco_annotation_file() {
    let fixture = trained();
    let entries = std::fs::read_dir(fixture.path("data/images/val")).expect("images");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    let images: Vec<serde_json::Value> = (100..)
        .zip(names)
        .map(|(id, name)| json!({"id": id, "file_name": name.to_string_lossy()}))
        .collect();
    let categories: Vec<serde_json::Value> = (0..10)
        .map(|class| json!({"id": 20 + class, "name": class.to_string()}))
        .collect();
    let annotations = json!({"images": images, "categories": categories, "annotations": []});
    std::fs::write(fixture.path("data/val.json"), annotations.to_string()).expect("written");
    let data = json!({
        "train": "images/train",
        "val": {"annotations": "val.json", "images": "images/val"},
        "names": (0..10).map(|class| class.to_string()).collect::<Vec<_>>(),
    });
    std::fs::write(fixture.path("data/data.yaml"), data.to_string()).expect("written");
    let file = fixture.path("results.json");
    let save = format!("--save-json={}", file.display());
    parsed(&eval(&fixture, &["--json", "--max-det=5", &save]));
    let text = std::fs::read_to_string(file).expect("written");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    assert_eq!(10 * 5, rows.len());
    for row in rows {
        let number = |key: &str| row[key].as_u64().expect("a number");
        assert!((100..110).contains(&number("image_id")), "{row}");
        assert!((20..30).contains(&number("category_id")), "{row}");
    }
}

#[test]
fn thresholds_and_classes_of_an_evaluation_are_obeyed() {
    let fixture = trained();
    let usual = parsed(&eval(&fixture, &["--json"]));
    let train = parsed(&eval(&fixture, &["--json", "--task=train"]));
    assert_eq!(
        (&json!(10), &json!(26)),
        (&usual["images"], &train["images"])
    );
    let single = parsed(&eval(&fixture, &["--json", "--single-cls"]));
    let classes = single["classes"].as_array().expect("a list");
    assert_eq!((1, &json!("item")), (classes.len(), &classes[0]["name"]));
    let labels = |report: &serde_json::Value| -> u64 {
        let classes = report["classes"].as_array().expect("a list");
        classes
            .iter()
            .map(|class| class["labels"].as_u64().expect("a count"))
            .sum()
    };
    assert_eq!(labels(&usual), labels(&single));
    let strict = parsed(&eval(&fixture, &["--json", "--conf-thres=1"]));
    assert_eq!(json!(0.0), strict["recall"]);
}

#[test]
fn several_weights_and_views_are_used_together() {
    let fixture = trained();
    let run = fixture.run_folder("o");
    let same = format!(
        "--weights={}",
        run.join("weights/last.safetensors").display()
    );
    let found = |name: &str, flags: &[&str]| -> Vec<serde_json::Value> {
        let file = fixture.path(&format!("{name}.json"));
        let save = format!("--save-json={}", file.display());
        let ended = eval(&fixture, &[flags, &[&save]].concat());
        assert_eq!(Some(0), ended.code, "{}", ended.text);
        let text = std::fs::read_to_string(file).expect("written");
        serde_json::from_str(&text).expect("JSON")
    };
    let alone = found("alone", &[]);
    // Twice the same network says what one says.
    assert_eq!(alone, found("mean", &["--ensemble=mean", &same]));
    assert_eq!(alone, found("nms", &["--ensemble=nms", &same]));
    let fused = found("wbf", &["--ensemble=wbf", &same]);
    assert!(fused.len() > 10 && fused != alone, "{} fused", fused.len());
    assert_ne!(alone, found("augmented", &["--augment"]));
    let found = predict(
        &fixture,
        &fixture.path("found"),
        &["--limit=1", "--augment", &same],
    );
    assert_eq!(Some(0), found.code, "{}", found.text);

    let data = fixture.path("data/data.yaml");
    let text = std::fs::read_to_string(&data).expect("readable");
    std::fs::write(&data, text.replace('7', "seven")).expect("written");
    fixture.succeed(&Start::new("other", 1));
    let other = fixture.run_folder("other");
    let refused = eval(&fixture, &["--weights", &other.display().to_string()]);
    assert_eq!(Some(64), refused.code, "{}", refused.text);
    assert!(
        refused.text.contains("knows other classes than"),
        "{}",
        refused.text
    );
}

/// Sides of images are multiples of the largest stride of all networks, whichever is named first.
#[test]
fn weights_of_other_strides_evaluate_together_in_any_order() {
    let fixture = trained();
    fixture.write_manifest(&json!({
        "model": {"size": "n6"}, "training": {"iterations": 1, "imageSize": 128},
    }));
    fixture.succeed(&Start::new("larger", 1));
    for (first, second) in [("o", "larger"), ("larger", "o")] {
        let output = program()
            .args(["eval", "--json", "--weights"])
            .args([fixture.run_folder(first), fixture.run_folder(second)])
            .arg("--data")
            .arg(fixture.path("data/data.yaml"))
            .output();
        parsed(&ended(output.expect("ran")));
    }
}

#[test]
fn convert_overwrites_nothing() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let opt = folder.path().join("opt.yaml");
    std::fs::write(&opt, "epochs: 3\n").expect("written");
    let convert = || {
        let mut command = program();
        command.arg("convert").arg("--opt").arg(&opt);
        command.arg("--output").arg(folder.path().join("job.yaml"));
        ended(command.output().expect("ran"))
    };
    let first = convert();
    assert_eq!(Some(0), first.code, "{}", first.text);
    let again = convert();
    assert_eq!(Some(73), again.code, "{}", again.text);
    assert!(again.text.contains("job.yaml exists"), "{}", again.text);
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
    let again = make();
    assert_eq!(Some(73), again.code, "{}", again.text);
    assert!(again.text.contains("is not empty"), "{}", again.text);
}
