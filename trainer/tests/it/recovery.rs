//! A loss that is not finite: the run goes back, leaves the batch out and goes on.

use std::process::Stdio;

use serde_json::json;

use crate::harness::{Ended, Fixture, NAME, STEPS_PER_EPOCH, Start, free_port, wait};

const LAST: u64 = 3 * STEPS_PER_EPOCH;

fn fixture() -> Fixture {
    Fixture::new(&json!({"training": {"precision": "bfloat16"}}))
}

#[test]
fn three_ranks_go_back_to_the_checkpoint_and_complete() {
    let fixture = fixture();
    let ended = fixture.succeed(&Start {
        flags: &["--verify-ranks", "--make-non-finite", "4"],
        ..Start::new("o", 3)
    });
    let text = &ended[0].text;
    assert!(text.contains("(recovery 1 of 2)"), "{text}");
    assert!(text.contains("rank 2 step 4: box NaN"), "{text}");
    assert!(text.contains("going on from"), "{text}");
    let state = fixture.state("o", LAST);
    assert_eq!(
        (json!(1), json!(1)),
        (state["recovery"].clone(), state["excludedEpoch"].clone())
    );
    // Rank 2 had the last third of a batch of 12.
    let excluded = state["excluded"].as_array().expect("a list").len();
    assert_eq!(4, excluded, "{state}");
    assert_eq!(3 * 26 - 4, state["imagesSeen"], "{state}");
}

#[test]
fn before_the_first_checkpoint_a_run_goes_back_to_its_beginning_and_the_second_time_to_32_bits() {
    let fixture = fixture();
    let ended = fixture.succeed(&Start {
        flags: &["--make-non-finite", "1", "--make-non-finite", "0"],
        ..Start::new("o", 1)
    });
    let text = &ended[0].text;
    assert!(text.contains("(recovery 1 of 2)"), "{text}");
    assert!(text.contains("(recovery 2 of 2)"), "{text}");
    assert!(!text.contains("going on from"), "{text}");
    assert_eq!(2, fixture.state("o", LAST)["recovery"]);
}

/// A rank without memory ends with a code of its own, and says in how many portions the next start computes.
#[track_caller]
fn runs_out_of_memory(ended: &Ended, portions: u32) {
    assert_eq!(Some(82), ended.code, "{}", ended.text);
    let expected = format!("images of each process in {portions} portions");
    assert!(ended.text.contains(&expected), "{}", ended.text);
}

/// A rank without memory ends with a code of its own; the next start needs half, and then a quarter.
#[test]
fn what_does_not_fit_the_memory_is_computed_in_portions() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1, "evaluateEvery": 1}}));
    let once = |step: &'static str| ["--make-out-of-memory", step];
    let flags = [once("1"), once("0"), once("1")].concat();
    let start = |restart| Start {
        restart,
        flags: &flags,
        ..Start::new("o", 3)
    };
    for (restart, portions) in [(0, 2), (1, 4)] {
        let ended = fixture.run(&start(restart));
        runs_out_of_memory(&ended[2], portions);
        assert_eq!(Some(76), ended[0].code, "{}", ended[0].text);
    }
    // Each process has four images of a step: there is nothing left to divide.
    let ended = fixture.run(&start(2));
    let text = &ended[2].text;
    assert_eq!(Some(64), ended[2].code, "{text}");
    assert!(
        text.contains("with one image at a time: lower training.imageSize"),
        "{text}"
    );

    let ended = fixture.succeed(&Start {
        restart: 3,
        flags: &["--verify-ranks"],
        ..Start::new("o", 3)
    });
    let text = &ended[0].text;
    let note = "in 4 portions: in 2 they did not fit the memory of rank 2 at step 0";
    assert!(text.contains(note), "{text}");
    let state = fixture.state("o", STEPS_PER_EPOCH);
    assert_eq!(4, state["machine"]["portions"]);
    assert_eq!(26, state["imagesSeen"]);
}

/// With an object store, a worker has an output folder of its own, without the run's folder in it.
#[test]
fn memory_that_ran_out_is_remembered_by_a_worker_with_its_own_output() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1, "evaluateEvery": 1}}));
    let run = |restart, outputs: [&str; 2]| -> Vec<Ended> {
        let port = free_port();
        let ranks = outputs.into_iter().zip(0..).map(|(output, rank)| {
            let start = Start {
                restart,
                flags: &["--make-out-of-memory", "1"],
                ..Start::new(output, 2)
            };
            let mut command = fixture.command(&start, rank, port);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("started")
        });
        wait(ranks.collect())
    };
    // What cannot be written down is still too little memory.
    let broken = fixture.path("broken");
    std::fs::create_dir(&broken).expect("made");
    let link = broken.join(format!("{NAME}-local"));
    std::os::unix::fs::symlink("nowhere/at/all", link).expect("made");
    let ended = run(0, ["o", "broken"]);
    let text = &ended[1].text;
    assert_eq!(Some(82), ended[1].code, "{text}");
    let warning = "warning: the next start will not know that memory ran out: cannot write to";
    assert!(text.contains(warning), "{text}");

    let ended = run(1, ["o", "apart"]);
    assert_eq!(Some(82), ended[1].code, "{}", ended[1].text);
    let ended = run(2, ["o", "apart"]);
    for ended in &ended {
        assert_eq!(Some(0), ended.code, "{}", ended.text);
    }
    let text = &ended[0].text;
    let note = "in 2 portions: in 1 they did not fit the memory of rank 1 at step 1";
    assert!(text.contains(note), "{text}");
    let state = fixture.state("o", STEPS_PER_EPOCH);
    assert_eq!(2, state["machine"]["portions"]);
}

/// So is what an evaluation needs: its batches are divided with those of the steps.
#[test]
fn an_evaluation_that_does_not_fit_the_memory_is_done_in_smaller_batches() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1, "evaluateEvery": 1}}));
    let step = STEPS_PER_EPOCH.to_string();
    let flags = ["--make-out-of-memory", &step];
    let start = |restart| Start {
        restart,
        flags: &flags,
        ..Start::new("o", 2)
    };
    let ended = fixture.run(&start(0));
    assert_eq!(
        (Some(76), Some(82)),
        (ended[0].code, ended[1].code),
        "{}",
        ended[1].text
    );
    assert!(
        ended[1]
            .text
            .contains("images of each process in 2 portions"),
        "{}",
        ended[1].text
    );
    fixture.succeed(&start(1));
    let state = fixture.state("o", STEPS_PER_EPOCH);
    assert_eq!(
        (json!(2), json!(26)),
        (
            state["machine"]["portions"].clone(),
            state["imagesSeen"].clone()
        )
    );
}

/// A step of one image for each process has nothing to divide, and is computed as before.
#[test]
fn an_evaluation_is_divided_down_to_one_image_whatever_a_step_has() {
    let fixture = Fixture::new(&json!({"training": {"batchSize": 3, "iterations": 1}}));
    fixture.succeed(&Start::new("whole", 3));
    let flags = ["--make-out-of-memory", "1"].repeat(3);
    let start = |restart| Start {
        restart,
        flags: &flags,
        ..Start::new("o", 3)
    };
    // Of three images at a time, of two, and of one.
    for (restart, portions) in [(0, 2), (1, 4)] {
        runs_out_of_memory(&fixture.run(&start(restart))[2], portions);
    }
    let ended = fixture.run(&start(2));
    assert_eq!(Some(64), ended[2].code, "{}", ended[2].text);

    fixture.succeed(&Start {
        restart: 3,
        ..Start::new("o", 3)
    });
    assert_eq!(4, fixture.state("o", 1)["machine"]["portions"]);
    assert!(fixture.tensors("whole", 1) == fixture.tensors("o", 1));
}

/// A batch of 0 is the most that fits, the same for the whole run.
#[test]
fn the_largest_batch_is_found_once() {
    let fixture =
        Fixture::new(&json!({"training": {"batchSize": 0, "epochs": 1, "evaluateEvery": 1}}));
    let ended = fixture.succeed(&Start::new("o", 2));
    let text = &ended[0].text;
    // There is memory for more than all images.
    assert!(
        text.contains("a step takes 26 images of 26; the memory has room for "),
        "{text}"
    );
    let state = fixture.state("o", 1);
    assert_eq!(
        (json!(26), json!(26)),
        (
            state["spec"]["training"]["batchSize"].clone(),
            state["imagesSeen"].clone()
        )
    );
    let path = fixture.run_folder("o").join("batch.json");
    let found = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, found.replace("26", "6")).expect("written");
    fixture.write_manifest(&json!({"training": {"batchSize": 0, "epochs": 2, "evaluateEvery": 1}}));
    fixture.succeed(&Start {
        restart: 1,
        ..Start::new("o", 2)
    });
    assert_eq!(6, fixture.state("o", 6)["spec"]["training"]["batchSize"]);
}

#[test]
fn there_is_no_third_time() {
    let fixture = fixture();
    let again = ["--make-non-finite", "1"].repeat(3);
    let ended = fixture.run(&Start {
        flags: &again,
        ..Start::new("o", 2)
    });
    for ended in &ended {
        assert_eq!(Some(80), ended.code, "{}", ended.text);
        assert!(
            ended.text.contains("is not a finite number at step"),
            "{}",
            ended.text
        );
        assert!(ended.text.contains("images/train/"), "{}", ended.text);
    }
}
