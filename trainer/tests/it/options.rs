//! Settings of the optimisation, seen from outside: in weights, states and what is said.

use serde_json::{Value, json};

use crate::harness::{Fixture, STEPS_PER_EPOCH, Start};

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
