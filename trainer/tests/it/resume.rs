//! A run that was stopped and goes on ends with the very bytes of one that was not.

use serde_json::json;

use crate::harness::{FakeAgent, Fixture, IMAGES, STEPS_PER_EPOCH, Start};

const LAST: u64 = 3 * STEPS_PER_EPOCH;

/// Runs to the end without a stop, and with stops after `stops`; compares the last checkpoints.
#[track_caller]
fn same_end(world: u32, stops: &[u64], changes: &serde_json::Value) {
    same_end_of(world, stops, changes, |_| ());
}

/// The same with a data set that `prepare` changes first.
#[track_caller]
fn same_end_of(
    world: u32,
    stops: &[u64],
    changes: &serde_json::Value,
    prepare: impl FnOnce(&Fixture),
) {
    let fixture = Fixture::new(changes);
    prepare(&fixture);
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

/// Runs that end by their steps, in the middle of an epoch and at the end of one: a stop in the last evaluation leaves
/// it to the next start.
#[test]
fn a_run_that_was_stopped_in_its_last_evaluation_is_evaluated_later() {
    for iterations in [STEPS_PER_EPOCH + 1, 2 * STEPS_PER_EPOCH] {
        let fixture = Fixture::new(&json!({"training": {"iterations": iterations}}));
        fixture.succeed(&Start::new("whole", 2));
        let message = json!({"type": "stopAtStep", "step": iterations});
        let agent = FakeAgent::start(fixture.folder.path(), Some(message));
        let ended = fixture.run(&Start {
            agent: Some(agent.socket.clone()),
            ..Start::new("parts", 2)
        });
        assert_eq!(Some(143), ended[0].code, "{}", ended[0].text);
        let state = fixture.state("parts", iterations);
        assert_eq!(json!(1), state["epoch"], "the last is not complete");
        fixture.succeed(&Start {
            restart: 1,
            ..Start::new("parts", 2)
        });
        let files = [
            "results.csv",
            "weights/best.safetensors",
            "weights/last.safetensors",
        ];
        for file in files {
            let read = |output| std::fs::read(fixture.run_folder(output).join(file)).ok();
            let whole = read("whole");
            assert!(whole.is_some() && whole == read("parts"), "{file}");
        }
        let tensors = |output| fixture.tensors(output, iterations);
        assert!(tensors("whole") == tensors("parts"));
        let latest = |output| fixture.state(output, iterations)["latest"].clone();
        assert_eq!(latest("whole"), latest("parts"));
    }
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
fn quads_of_weighted_images_resume_bit_identically() {
    let changes = json!({
        "training": {"quad": true, "imageWeights": true, "evaluateEvery": 1, "multiScale": 0.5},
    });
    same_end(3, &[2, 5], &changes);
}

#[test]
fn rectangles_resume_bit_identically() {
    let fixture = |fixture: &Fixture| {
        // Of three shapes, so that batches have several.
        for k in 0..IMAGES {
            let size = [(64, 64), (64, 36), (30, 64)][k as usize % 3];
            fixture.crop(k, size);
        }
    };
    let changes = json!({"training": {"rect": true}, "augmentation": {"mosaic": 0.0}});
    same_end_of(3, &[1, 5], &changes, fixture);
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
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let again = fixture.succeed(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 1)
    });
    // Another attempt may have written it, of which the operator knows nothing.
    let reports = agent.of_type("report");
    assert_eq!(
        json!({"step": STEPS_PER_EPOCH, "path": format!("tiny-local/checkpoints/step-{STEPS_PER_EPOCH:09}")}),
        reports.last().expect("reports")["checkpoint"]
    );
    assert!(
        again[0].text.contains("the run is complete"),
        "{}",
        again[0].text
    );
    assert_eq!(before, fixture.tensors("o", STEPS_PER_EPOCH));
}

/// With a constant learning rate nothing but the number of epochs depends on the number of epochs.
#[test]
fn a_run_that_is_made_longer_ends_as_one_that_was_as_long_from_the_beginning() {
    let change = |epochs: u32, seed: u32| {
        json!({
            "training": {"epochs": epochs, "evaluateEvery": 1, "seed": seed},
            "hyperparameters": {"schedule": "constant"},
        })
    };
    let fixture = Fixture::new(&change(2, 0));
    fixture.succeed(&Start::new("parts", 1));
    fixture.write_manifest(&change(3, 0));
    let ended = fixture.succeed(&Start {
        restart: 1,
        ..Start::new("parts", 1)
    });
    let text = &ended[0].text;
    assert!(
        text.contains("settings changed after step 6: training.epochs was 2 and is 3"),
        "{text}"
    );
    fixture.succeed(&Start::new("whole", 1));
    assert_eq!(
        fixture.tensors("whole", LAST),
        fixture.tensors("parts", LAST)
    );

    fixture.write_manifest(&change(4, 1));
    let ended = fixture.run(&Start::new("parts", 1));
    assert_eq!(Some(64), ended[0].code, "{}", ended[0].text);
    let text = &ended[0].text;
    assert!(text.contains("(training.seed was 0 and is 1)"), "{text}");
}

#[test]
fn the_batch_may_change_in_the_middle_of_an_epoch_and_every_image_is_seen_once() {
    let change = |batch: u32| json!({"training": {"batchSize": batch}});
    let fixture = Fixture::new(&change(12));
    let agent = FakeAgent::start(
        fixture.folder.path(),
        Some(json!({"type": "stopAtStep", "step": 4})),
    );
    let ended = fixture.run(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 1)
    });
    assert_eq!(Some(143), ended[0].code, "{}", ended[0].text);
    // In the second epoch, after 12 or 24 of 26 images.
    let stopped = *fixture.checkpoints("o").last().expect("one");
    let left = 26
        - fixture.state("o", stopped)["position"]
            .as_u64()
            .expect("a number");
    fixture.write_manifest(&change(6));
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let ended = fixture.succeed(&Start {
        restart: 1,
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 1)
    });
    let text = &ended[0].text;
    assert!(
        text.contains("training.batchSize was 12 and is 6"),
        "{text}"
    );
    let last = stopped + left.div_ceil(6) + 5;
    assert_eq!(Some(&last), fixture.checkpoints("o").last());
    assert_eq!(3 * 26, fixture.state("o", last)["imagesSeen"]);
    let reports = agent.of_type("report");
    let progress = &reports.last().expect("reports")["progress"];
    assert_eq!(
        (json!(last), json!(last)),
        (progress["step"].clone(), progress["steps"].clone())
    );
}

/// The time between is always over, so a checkpoint follows as soon as the one before it is written.
#[test]
fn checkpoints_by_time_fall_into_epochs_and_change_nothing() {
    let fixture = Fixture::new(&json!({}));
    fixture.succeed(&Start::new("whole", 3));
    fixture.write_manifest(&json!({
        "training": {"checkpointMinutes": 1e-9, "keepCheckpoints": 100, "checkpointEvery": 3},
    }));
    fixture.succeed(&Start::new("timed", 3));
    let steps = fixture.checkpoints("timed");
    // How many fit between these two is up to the disk.
    assert_eq!(
        (Some(&2), Some(&LAST)),
        (steps.first(), steps.last()),
        "from the middle of the first epoch to the end: {steps:?}"
    );
    assert_eq!(
        fixture.tensors("whole", LAST),
        fixture.tensors("timed", LAST)
    );

    for step in &steps[1..] {
        std::fs::remove_dir_all(fixture.checkpoint("timed", *step)).expect("removed");
    }
    let ended = fixture.succeed(&Start {
        restart: 1,
        ..Start::new("timed", 3)
    });
    assert!(
        ended[0].text.contains("(step 2, epoch 1)"),
        "{}",
        ended[0].text
    );
    assert_eq!(
        fixture.tensors("whole", LAST),
        fixture.tensors("timed", LAST)
    );
}
