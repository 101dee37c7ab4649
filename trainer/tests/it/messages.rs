//! What a user reads when something is wrong, and the exit code that goes with it.

use std::path::PathBuf;

use serde_json::json;

use crate::harness::{Fixture, Start, ended, program};

#[track_caller]
fn fails(fixture: &Fixture, code: i32, words: &[&str]) {
    let all = fixture.run(&Start::new("o", 1));
    let text = &all[0].text;
    assert_eq!(Some(code), all[0].code, "{text}");
    let start = text
        .find("error: ")
        .unwrap_or_else(|| panic!("no error in {text}"));
    let error = &text[start..];
    for word in words {
        assert!(error.contains(word), "no '{word}' in {error}");
    }
    assert!(
        !text.contains("panicked") && !text.contains("stack backtrace"),
        "{text}"
    );
}

fn files(fixture: &Fixture, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixture.path(folder))
        .expect("readable")
        .map(|entry| entry.expect("entry").path())
        .collect();
    files.sort();
    files
}

#[test]
fn bad_labels_are_named_by_file_and_line() {
    let fixture = Fixture::new(&json!({}));
    let labels = files(&fixture, "data/labels/train");
    std::fs::write(&labels[0], "0 0.5 0.5 0.1 0.1\n77 0.5 0.5 0.1 0.1\n").expect("written");
    std::fs::write(&labels[1], "0 0.5 nonsense 0.1 0.1\n").expect("written");
    let name = |path: &PathBuf| {
        path.file_name()
            .expect("a name")
            .to_str()
            .expect("text")
            .to_owned()
    };
    let (first, second) = (name(&labels[0]), name(&labels[1]));
    fails(
        &fixture,
        65,
        &[
            &format!("{first}:2"),
            "77",
            &format!("{second}:1"),
            "(InvalidDataset)",
        ],
    );
    assert!(
        !fixture.path("o").exists(),
        "nothing is written before the data set is checked"
    );
}

#[test]
fn missing_data_is_said() {
    let fixture = Fixture::new(&json!({}));
    std::fs::remove_dir_all(fixture.path("data")).expect("removed");
    fails(&fixture, 65, &["does not exist", "(InvalidDataset)"]);
}

#[test]
fn bad_settings_are_named_with_their_remedy() {
    let fixture =
        Fixture::new(&json!({"training": {"imageSize": 100}, "hyperparameters": {"lr0": -1.0}}));
    fails(
        &fixture,
        64,
        &[
            "training.imageSize is 100",
            "hyperparameters.lr0 is -1",
            "(InvalidConfig)",
        ],
    );
    fixture.write_manifest(&json!({"training": {"epochz": 3}}));
    fails(&fixture, 64, &["job.yaml", "epochz"]);
    fixture.write_manifest(&json!({"distributed": {"backend": "nccl"}}));
    fails(&fixture, 64, &["distributed.backend is nccl"]);
    fixture.write_manifest(&json!({"training": {"device": "cuda"}}));
    fails(
        &fixture,
        64,
        &["training.device is cuda", "no CUDA here", "(InvalidConfig)"],
    );
}

#[test]
fn an_output_that_cannot_be_written_is_said() {
    let fixture = Fixture::new(&json!({}));
    std::fs::write(fixture.path("o"), "a file").expect("written");
    fails(
        &fixture,
        73,
        &["cannot write to the output folder", "(OutputUnwritable)"],
    );
}

#[test]
fn another_run_is_not_overwritten() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    fixture.succeed(&Start::new("o", 1));
    fixture.write_manifest(&json!({"training": {"epochs": 1, "imageSize": 96}}));
    fails(
        &fixture,
        64,
        &["training.imageSize was 64 and is 96", "metadata.name"],
    );
}

#[test]
fn undecodable_images_are_skipped_and_named() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    let images = files(&fixture, "data/images/train");
    // Its header is whole, so only decoding finds out.
    let mut bytes = std::fs::read(&images[0]).expect("readable");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&images[0], bytes).expect("written");
    let before = fixture.data_listing();
    let ended = fixture.succeed(&Start::new("o", 1));
    let name = images[0]
        .file_name()
        .expect("a name")
        .to_str()
        .expect("text");
    let warning = ended[0]
        .text
        .lines()
        .find(|line| line.starts_with("warning: image skipped"));
    assert!(
        warning.is_some_and(|line| line.contains(name)),
        "{}",
        ended[0].text
    );
    assert_eq!(before, fixture.data_listing(), "the data set was changed");
    assert_eq!(
        1,
        fixture.state("o", 3)["skipped"]
            .as_array()
            .expect("a list")
            .len()
    );
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks_and_names_images() {
    let fixture = Fixture::new(&json!({
        "hyperparameters": {"lr0": 1.0, "nominalBatchSize": 12, "boxGain": 100.0, "clsGain": 100.0, "objGain": 100.0},
        "training": {"epochs": 200},
    }));
    for ended in fixture.run(&Start::new("o", 2)) {
        assert_eq!(Some(80), ended.code, "{}", ended.text);
        assert!(
            ended.text.contains("is not a finite number at step"),
            "{}",
            ended.text
        );
        assert!(ended.text.contains("images/train/"), "{}", ended.text);
    }
}

#[test]
fn no_arguments_tell_what_to_write() {
    let output = program().arg("train").output().expect("ran");
    let ended = ended(output);
    assert_eq!(Some(64), ended.code);
    assert!(
        ended.text.contains("yolo-trainer train -f job.yaml"),
        "{}",
        ended.text
    );
}

#[test]
fn files_of_absurd_sizes_are_refused_before_they_are_read() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("large.yaml");
    // It takes no room on the disk.
    let file = std::fs::File::create(&path).expect("made");
    file.set_len(10 << 30).expect("sparse");
    let large = path.display().to_string();
    let output = folder.path().display().to_string();
    let train = [
        "train",
        "-f",
        &large,
        "--dataset",
        &output,
        "--output",
        &output,
    ];
    let commands: [&[&str]; 4] = [
        &train,
        &["info", &large],
        &["convert", "--opt", &large],
        &["convert", "--opt", "/dev/zero"],
    ];
    for arguments in commands {
        let done = ended(program().args(arguments).output().expect("ran"));
        assert_eq!(Some(64), done.code, "{}", done.text);
        assert!(done.text.contains("it has more than"), "{}", done.text);
    }
}
