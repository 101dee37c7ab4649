//! A run that was stopped and goes on ends with the very bytes of one that was not.

use serde_json::json;

use crate::harness::{FakeAgent, Fixture, STEPS_PER_EPOCH, Start};

const LAST: u64 = 3 * STEPS_PER_EPOCH;

/// Runs to the end without a stop, and with stops after `stops`; compares the last checkpoints.
#[track_caller]
fn same_end(world: u32, stops: &[u64], changes: &serde_json::Value) {
    let fixture = Fixture::new(changes);
    let whole = fixture.succeed(&Start {
        flags: &["--verify-ranks"],
        ..Start::new("whole", world)
    });
    assert!(whole[0].text.contains("epoch 3/3"), "{}", whole[0].text);
    for (restart, stop) in (0..).zip(stops) {
        let message = json!({"type": "stopAtStep", "step": stop});
        let agent = FakeAgent::start(fixture.folder.path(), Some(message));
        let ended = fixture.run(&Start {
            restart,
            agent: Some(agent.socket.clone()),
            ..Start::new("parts", world)
        });
        for ended in &ended {
            assert_eq!(Some(143), ended.code, "stop {stop}: {}", ended.text);
        }
        // A step is finished up to the next boundary: at most one more, as two are accumulated.
        let newest = *fixture.checkpoints("parts").last().expect("one");
        assert!((*stop..=stop + 2).contains(&newest), "{stop}: {newest}");
    }
    let restart = stops.len() as u32;
    fixture.succeed(&Start {
        restart,
        ..Start::new("parts", world)
    });
    let (a, b) = (
        fixture.tensors("whole", LAST),
        fixture.tensors("parts", LAST),
    );
    for (file, bytes) in &a {
        assert!(bytes == &b[file], "{file} differs after stops at {stops:?}");
    }
    let (mut a, mut b) = (fixture.state("whole", LAST), fixture.state("parts", LAST));
    for field in ["attempt", "trainingSeconds", "firstStepTime"] {
        a[field] = json!(null);
        b[field] = json!(null);
    }
    assert_eq!(a, b);
}

#[test]
fn one_rank_resumes_bit_identically() {
    // In the middle of an accumulation, at the end of an epoch, and right after a start.
    same_end(1, &[1, 3, 4, 7], &json!({}));
}

#[test]
fn three_ranks_resume_bit_identically() {
    same_end(3, &[2, 5], &json!({}));
}

/// Everything that has a state or draws random numbers of its own.
#[test]
fn other_optimisers_formats_and_sizes_resume_bit_identically() {
    let changes = json!({
        "training": {"multiScale": 0.5, "precision": "bfloat16", "freeze": [0, 1]},
        "hyperparameters": {"optimizer": "adamw", "lr0": 0.001, "schedule": "oneCycle"},
    });
    same_end(3, &[2, 5], &changes);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same() {
    let fixture = Fixture::new(&json!({}));
    fixture.succeed(&Start::new("o", 1));
    let whole = fixture.tensors("o", LAST);
    let before = fixture.checkpoints("o");
    let newest = fixture.checkpoint("o", LAST).join("model.safetensors");
    let mut bytes = std::fs::read(&newest).expect("readable");
    bytes.truncate(1000);
    std::fs::write(&newest, bytes).expect("written");

    let ended = fixture.succeed(&Start::new("o", 1));
    let text = &ended[0].text;
    assert!(text.contains("warning: checkpoint passed over"), "{text}");
    assert!(text.contains("1000 bytes instead of"), "{text}");
    assert_eq!(before, fixture.checkpoints("o"));
    assert_eq!(whole, fixture.tensors("o", LAST));

    for step in before {
        std::fs::remove_file(fixture.checkpoint("o", step).join("manifest.json")).expect("removed");
    }
    let ended = fixture.run(&Start::new("o", 1));
    assert_eq!(Some(81), ended[0].code, "{}", ended[0].text);
    assert!(
        ended[0].text.contains("(CheckpointUnreadable)"),
        "{}",
        ended[0].text
    );
}

#[test]
fn a_complete_run_is_left_as_it_is() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    fixture.succeed(&Start::new("o", 1));
    let before = fixture.tensors("o", STEPS_PER_EPOCH);
    let again = fixture.succeed(&Start::new("o", 1));
    assert!(
        again[0].text.contains("the run is complete"),
        "{}",
        again[0].text
    );
    assert_eq!(before, fixture.tensors("o", STEPS_PER_EPOCH));
}
