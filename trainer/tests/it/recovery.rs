//! A loss that is not finite: the run goes back, leaves the batch out and goes on.

use serde_json::json;

use crate::harness::{Fixture, STEPS_PER_EPOCH, Start};

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
