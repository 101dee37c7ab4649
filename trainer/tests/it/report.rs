//! What a run leaves for people.

use std::path::Path;

use serde_json::json;

use crate::harness::{Fixture, Start, ended, program};

fn has_picture(folder: &Path, name: &str) {
    let picture = image::open(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(picture.width() >= 480, "{name}");
}

const OF_EVALUATIONS: [&str; 7] = [
    "PR_curve.png",
    "F1_curve.png",
    "P_curve.png",
    "R_curve.png",
    "confusion_matrix.png",
    "val_batch0_labels.png",
    "val_batch0_pred.png",
];

#[test]
fn pictures_events_and_a_page_are_left_by_a_run_and_an_evaluation() {
    let fixture = Fixture::new(&json!({
        "training": {"epochs": 3, "evaluateEvery": 1},
        "output": {"plots": true, "tensorboard": true},
    }));
    let ranks = fixture.succeed(&Start::new("o", 2));
    assert!(
        ranks[0].text.contains("losses: training"),
        "{}",
        ranks[0].text
    );
    assert!(
        !ranks[0].text.contains("cannot be written"),
        "{}",
        ranks[0].text
    );
    let run = fixture.run_folder("o");
    let of_runs = [
        "results.png",
        "labels.png",
        "train_batch0.png",
        "train_batch2.png",
    ];
    for name in OF_EVALUATIONS.iter().chain(&of_runs) {
        has_picture(&run, name);
    }
    let page = std::fs::read_to_string(run.join("report.html")).expect("a page");
    assert_eq!(8, page.matches("<img").count());
    for part in [
        "2 processes",
        "the run is complete",
        "losses: training",
        "batchSize",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    let entries = std::fs::read_dir(&run).expect("readable");
    let events = entries.filter(|entry| {
        let name = entry.as_ref().expect("entry").file_name();
        name.to_string_lossy().starts_with("events.out.tfevents.")
    });
    assert_eq!(1, events.count(), "only rank 0 writes events");
    fixture.succeed(&Start {
        restart: 1,
        ..Start::new("o", 2)
    });
    let after = std::fs::read_to_string(run.join("report.html")).expect("a page");
    assert!(page == after, "a run that is complete measures nothing");

    let plots = fixture.path("plots");
    let eval = || {
        let mut command = program();
        command.args(["eval", "--weights"]).arg(&run);
        command.arg("--data").arg(fixture.path("data/data.yaml"));
        command.arg("--plots").arg(&plots);
        ended(command.output().expect("ran"))
    };
    for _ in 0..2 {
        let ended = eval();
        assert_eq!(Some(0), ended.code, "{}", ended.text);
    }
    for name in OF_EVALUATIONS.iter().chain(&["labels.png"]) {
        has_picture(&plots, name);
    }
    std::fs::remove_file(plots.join("evaluation.json")).expect("removed");
    assert_eq!(Some(73), eval().code, "a folder of somebody else");
}

#[test]
fn without_them_a_run_leaves_none() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    fixture.succeed(&Start::new("o", 1));
    let mut names: Vec<String> = std::fs::read_dir(fixture.run_folder("o"))
        .expect("readable")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    assert_eq!(
        [
            "anchors.json",
            "checkpoints",
            "config.json",
            "hyp.yaml",
            "opt.yaml",
            "owner.json",
            "results.csv",
            "weights"
        ],
        names[..]
    );
}
