//! Settings of the optimisation, seen from outside: in weights, states and what is said.

use serde_json::{Value, json};

use crate::harness::{FakeAgent, Fixture, STEPS_PER_EPOCH, Start, program};

/// Trains one epoch with `changes`; returns the last state and the words of rank 0.
#[track_caller]
fn trained(fixture: &Fixture, step: u64) -> (Value, String) {
    let ended = fixture.succeed(&Start::new("o", 1));
    (fixture.state("o", step), ended[0].text.clone())
}

#[test]
fn iterations_end_a_run_in_the_middle_of_an_epoch() {
    let fixture = Fixture::new(&json!({"training": {"iterations": STEPS_PER_EPOCH + 1}}));
    let (state, text) = trained(&fixture, STEPS_PER_EPOCH + 1);
    assert!(
        text.contains("complete: 4 steps (training.iterations)"),
        "{text}"
    );
    assert_eq!(2, state["epoch"]);
    // The end of a run is evaluated, though evaluateEvery is 3.
    assert!(state["latest"]["mAP50"].is_number(), "{state}");
    let (again, _) = trained(&fixture, STEPS_PER_EPOCH + 1);
    assert_eq!(state["step"], again["step"]);
}

/// Also where the batch, and so the steps of an epoch, are found first.
#[test]
fn a_run_whose_steps_end_before_an_epoch_with_mosaics_is_refused() {
    let change = |close: u32, batch: u32, iterations: u64| {
        json!({
            "training": {"iterations": iterations, "batchSize": batch},
            "augmentation": {"closeMosaic": close},
        })
    };
    let fixture = Fixture::new(&json!({}));
    for (batch, iterations, steps) in [(12, STEPS_PER_EPOCH + 1, STEPS_PER_EPOCH), (0, 2, 1)] {
        fixture.write_manifest(&change(2, batch, iterations));
        let ended = fixture.run(&Start::new("refused", 1));
        let text = &ended[0].text;
        assert_eq!(Some(64), ended[0].code, "{text}");
        let expected = format!(
            "augmentation.closeMosaic is 2, but training.iterations is {iterations}, which ends the run in epoch 2, since an epoch has {steps} steps"
        );
        assert!(text.contains(&expected), "{text}");
    }
    fixture.write_manifest(&change(1, 12, STEPS_PER_EPOCH + 1));
    trained(&fixture, STEPS_PER_EPOCH + 1);
    // One that is under way had its mosaics before it was to take fewer steps.
    fixture.write_manifest(&change(1, 12, STEPS_PER_EPOCH));
    fixture.succeed(&Start {
        restart: 1,
        ..Start::new("o", 1)
    });
}

/// The epoch in which the run ended is over: what is added are whole epochs, and as many steps as were asked for.
#[test]
fn more_iterations_are_all_done() {
    let change = |iterations| json!({"training": {"iterations": iterations, "epochs": 9}});
    let fixture = Fixture::new(&change(STEPS_PER_EPOCH + 1));
    trained(&fixture, STEPS_PER_EPOCH + 1);
    let more = 2 * STEPS_PER_EPOCH + 2;
    fixture.write_manifest(&change(more));
    let ended = fixture.succeed(&Start {
        restart: 1,
        ..Start::new("o", 1)
    });
    let text = &ended[0].text;
    let complete = format!("complete: {more} steps (training.iterations)");
    assert!(text.contains(&complete), "{text}");
}

#[test]
fn hours_end_a_run_on_all_ranks_at_the_same_step() {
    // A thousandth of a second: over after the step in which it is noticed.
    let fixture = Fixture::new(&json!({"training": {"hours": 3e-7, "epochs": 1000}}));
    let ended = fixture.succeed(&Start::new("o", 3));
    let text = &ended[0].text;
    assert!(text.contains("(training.hours)"), "{text}");
    let last = *fixture.checkpoints("o").last().expect("one");
    let state = fixture.state("o", last);
    assert!(last <= 2 * STEPS_PER_EPOCH, "{last}");
    assert!(state["spent"].as_f64() >= Some(1.0), "{state}");
}

#[test]
fn one_class_and_frozen_layers() {
    let fixture = Fixture::new(&json!({
        "training": {"epochs": 1, "singleClass": true, "freeze": [0, 23]},
    }));
    let (state, _) = trained(&fixture, STEPS_PER_EPOCH);
    assert_eq!(json!(["item"]), state["names"]);
    assert!(
        state["latest"]["trainLoss"]["cls"].as_f64() == Some(0.0),
        "{state}"
    );
    let optimizer = &fixture.tensors("o", STEPS_PER_EPOCH)["optimizer.safetensors"];
    let tensors = safetensors::SafeTensors::deserialize(optimizer).expect("a file of tensors");
    let has = |layer: &str| tensors.names().iter().any(|name| name.starts_with(layer));
    assert!(has("model.1.") && has("model.24."));
    assert!(!has("model.0.") && !has("model.23."));

    let wrong = Fixture::new(&json!({"training": {"freeze": [25]}}));
    let ended = wrong.run(&Start::new("o", 1));
    assert_eq!(Some(64), ended[0].code, "{}", ended[0].text);
    assert!(
        ended[0]
            .text
            .contains("training.freeze has 25, but the last layer is 24"),
        "{}",
        ended[0].text
    );
}

#[test]
fn another_optimiser_does_not_go_on_with_a_run() {
    let change = |optimizer: &str| json!({"training": {"iterations": 2, "epochs": 2}, "hyperparameters": {"optimizer": optimizer}});
    let fixture = Fixture::new(&change("adam"));
    trained(&fixture, 2);
    fixture.write_manifest(&change("sgd"));
    let ended = fixture.run(&Start {
        restart: 1,
        ..Start::new("o", 1)
    });
    assert_eq!(Some(64), ended[0].code, "{}", ended[0].text);
    assert!(
        ended[0].text.contains("hyperparameters.optimizer"),
        "{}",
        ended[0].text
    );
}

/// Found by rank 0 at the first start, used by all ranks, kept at the next, and known to who reads the weights.
#[test]
fn anchors_are_fitted_to_the_labels_once() {
    let change = |training: Value| {
        json!({
            "training": training, "hyperparameters": {"anchorThreshold": 1.6},
        })
    };
    let fixture = Fixture::new(&change(json!({})));
    let stop = json!({"type": "stopAtStep", "step": 2});
    let agent = FakeAgent::start(fixture.folder.path(), Some(stop));
    let ended = fixture.run(&Start {
        agent: Some(agent.socket.clone()),
        flags: &["--verify-ranks"],
        ..Start::new("o", 2)
    });
    let line = "anchors fitted to the labels: best possible recall";
    assert_eq!(Some(143), ended[0].code, "{}", ended[0].text);
    assert!(ended[0].text.contains(line), "{}", ended[0].text);
    assert!(!ended[1].text.contains(line), "{}", ended[1].text);
    let file = fixture.run_folder("o").join("anchors.json");
    let read = || -> Value {
        let text = std::fs::read_to_string(&file).expect("readable");
        serde_json::from_str(&text).expect("JSON")
    };
    let fitted = read();
    assert!(fitted["recall"].as_f64() < fitted["otherRecall"].as_f64());

    let ended = fixture.succeed(&Start {
        restart: 1,
        ..Start::new("o", 2)
    });
    assert!(!ended[0].text.contains(line), "{}", ended[0].text);
    assert_eq!(fitted, read());
    let last = 3 * STEPS_PER_EPOCH;
    assert_eq!(
        fitted["anchors"],
        fixture.state("o", last)["spec"]["model"]["anchors"]
    );
    let anchors: Vec<Vec<f64>> = serde_json::from_value(fitted["anchors"].clone()).expect("lists");
    let model = &fixture.tensors("o", last)["model.safetensors"];
    let tensors = safetensors::SafeTensors::deserialize(model).expect("a file of tensors");
    let in_cells = tensors.tensor("model.24.anchors").expect("anchors").data();
    let first = f32::from_le_bytes([in_cells[0], in_cells[1], in_cells[2], in_cells[3]]);
    assert_eq!(anchors[0][0] as f32 / 8.0, first);
    let evaluated = program()
        .args(["eval", "--weights"])
        .arg(fixture.run_folder("o"))
        .arg("--data")
        .arg(fixture.path("data/data.yaml"))
        .output()
        .expect("ran");
    let told = String::from_utf8_lossy(&evaluated.stderr);
    assert!(evaluated.status.success(), "{told}");

    // Where they are not to be changed, nobody looks.
    for (output, changes) in [
        ("off", change(json!({"autoAnchor": false, "epochs": 1}))),
        (
            "own",
            json!({"training": {"epochs": 1}, "hyperparameters": {"anchorThreshold": 1.6},
            "model": {"anchors": [[10, 13], [30, 61], [116, 90]]}}),
        ),
    ] {
        let fixture = Fixture::new(&changes);
        let ended = fixture.succeed(&Start::new(output, 1));
        assert!(
            !ended[0].text.contains("best possible recall"),
            "{}",
            ended[0].text
        );
        assert!(!fixture.run_folder(output).join("anchors.json").exists());
    }
}
