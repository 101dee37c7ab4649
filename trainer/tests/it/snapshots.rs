//! Copies of the state in memory: what ranks go on from that were killed without a word.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Ended, FakeAgent, Fixture, STEPS_PER_EPOCH, Start, steps_in, wait};

const EPOCHS: u64 = 60;
const LAST: u64 = EPOCHS * STEPS_PER_EPOCH;

/// Nothing durable before the end.
fn changes() -> Value {
    json!({"training": {
        "epochs": EPOCHS, "checkpointEvery": 1000, "evaluateEvery": 1000, "snapshotSeconds": 1,
    }})
}

fn start<'a>(output: &'a str, world: u32, snapshots: &Path) -> Start<'a> {
    Start {
        snapshots: Some(snapshots.to_owned()),
        ..Start::new(output, world)
    }
}

/// Lets ranks train until there is a snapshot, and kills them all; returns the snapshot's step.
fn killed(fixture: &Fixture, snapshots: &Path, world: u32) -> u64 {
    kill_after(fixture, start("parts", world, snapshots), &[snapshots])
}

/// The same, once there is one in each of these folders.
fn kill_after(fixture: &Fixture, start: Start<'_>, folders: &[&Path]) -> u64 {
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let mut children = fixture.spawn(&Start {
        agent: Some(agent.socket.clone()),
        ..start
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut heard = 0;
    while folders.iter().any(|folder| steps_in(folder).is_empty()) {
        assert!(Instant::now() < deadline, "no snapshot was taken");
        // Ranks say something every second.
        agent.wait_for("a sign of life", |_| agent.lines().len() > heard);
        heard = agent.lines().len();
    }
    for child in &mut children {
        child.kill().expect("killed");
    }
    wait(children);
    assert!(fixture.checkpoints("parts").is_empty());
    let newest = |folder: &&Path| *steps_in(folder).last().expect("a snapshot");
    folders.iter().map(newest).max().expect("a folder")
}

fn went_on_from(ended: &Ended, folder: &str) -> bool {
    ended
        .text
        .lines()
        .any(|line| line.contains("going on from") && line.contains(folder))
}

#[test]
fn killed_ranks_go_on_from_memory_bit_identically() {
    let fixture = Fixture::new(&changes());
    fixture.succeed(&Start::new("whole", 3));
    let snapshots: PathBuf = fixture.path("memory/snapshots");
    let step = killed(&fixture, &snapshots, 3);
    assert!((1..LAST).contains(&step), "{step}");
    let all = fixture.succeed(&Start {
        restart: 1,
        flags: &["--verify-ranks"],
        ..start("parts", 3, &snapshots)
    });
    assert!(went_on_from(&all[0], "memory/snapshots"), "{}", all[0].text);
    let (a, b) = (
        fixture.tensors("whole", LAST),
        fixture.tensors("parts", LAST),
    );
    for (file, bytes) in &a {
        assert!(bytes == &b[file], "{file} differs");
    }
    assert!(steps_in(&snapshots).len() <= 1, "old ones are removed");
}

#[test]
fn a_damaged_snapshot_and_one_that_cannot_be_taken_do_no_harm() {
    let fixture = Fixture::new(&changes());
    let snapshots = fixture.path("snapshots");
    let step = killed(&fixture, &snapshots, 1);
    let file = snapshots.join(format!("step-{step:09}/model.safetensors"));
    let bytes = std::fs::read(&file).expect("a snapshot");
    std::fs::write(&file, &bytes[..bytes.len() / 2]).expect("torn");
    let all = fixture.succeed(&Start {
        restart: 1,
        ..start("parts", 1, &snapshots)
    });
    assert!(!all[0].text.contains("going on from"), "{}", all[0].text);
    assert_eq!(vec![LAST], fixture.checkpoints("parts"));

    let blocked = fixture.path("blocked");
    std::fs::write(&blocked, "a file").expect("written");
    let all = fixture.succeed(&start("other", 1, &blocked));
    assert!(
        all[0].text.contains("no snapshots are kept in"),
        "{}",
        all[0].text
    );
}

#[test]
fn a_run_that_went_on_from_memory_can_go_back_to_it() {
    let fixture = Fixture::new(&changes());
    let snapshots = fixture.path("snapshots");
    let step = killed(&fixture, &snapshots, 1);
    let fault = (step + 4).to_string();
    let all = fixture.succeed(&Start {
        restart: 1,
        flags: &["--make-non-finite", &fault],
        ..start("parts", 1, &snapshots)
    });
    let text = &all[0].text;
    assert_eq!(2, text.matches("going on from").count(), "{text}");
    let state = fixture.state("parts", LAST);
    assert_eq!(1, state["recovery"], "{state}");
}

/// Three workers, of which the first is lost with what it had in memory.
#[test]
fn without_the_first_worker_the_copy_of_another_serves_all_bit_identically() {
    let fixture = Fixture::new(&changes());
    fixture.succeed(&Start::new("whole", 3));
    let memory = fixture.path("memory");
    let folders: Vec<PathBuf> = (0..3).map(|rank| memory.join(rank.to_string())).collect();
    let apart = Start {
        apart: true,
        ..start("parts", 3, &memory)
    };
    let all: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    kill_after(&fixture, apart.clone(), &all);
    std::fs::remove_dir_all(&folders[0]).expect("lost");
    // What is damaged serves nobody, however late it is.
    let step = *steps_in(&folders[1]).last().expect("a snapshot");
    let later = folders[1].join(format!("step-{:09}", step + 900));
    std::fs::rename(folders[1].join(format!("step-{step:09}")), &later).expect("moved");
    let state = later.join("state.json");
    let text = std::fs::read_to_string(&state).expect("a state");
    let mut changed: Value = serde_json::from_str(&text).expect("JSON");
    changed["step"] = json!(step + 900);
    std::fs::write(&state, changed.to_string()).expect("written");

    let all = fixture.succeed(&Start {
        restart: 1,
        flags: &["--verify-ranks"],
        ..apart
    });
    let text = &all[0].text;
    assert!(went_on_from(&all[0], "memory/2/step-"), "{text}");
    assert!(text.contains(" of rank 2 of attempt 0.0 "), "{text}");
    let (a, b) = (
        fixture.tensors("whole", LAST),
        fixture.tensors("parts", LAST),
    );
    for (file, bytes) in &a {
        assert!(bytes == &b[file], "{file} differs");
    }
    let metrics = |output: &str| fixture.state(output, LAST)["latest"].clone();
    assert_eq!(metrics("whole"), metrics("parts"));
}

/// Rank 0 has nothing of its own to go back to then.
#[test]
fn a_run_that_went_on_from_the_copy_of_another_can_go_back_to_it() {
    let fixture = Fixture::new(&changes());
    let memory = fixture.path("memory");
    let folders: Vec<PathBuf> = (0..2).map(|rank| memory.join(rank.to_string())).collect();
    let apart = Start {
        apart: true,
        ..start("parts", 2, &memory)
    };
    let all: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    let step = kill_after(&fixture, apart.clone(), &all);
    std::fs::remove_dir_all(&folders[0]).expect("lost");
    let fault = (step + 2).to_string();
    let all = fixture.succeed(&Start {
        restart: 1,
        flags: &["--make-non-finite", &fault],
        ..apart
    });
    let text = &all[0].text;
    assert_eq!(2, text.matches("going on from").count(), "{text}");
    assert_eq!(1, fixture.state("parts", LAST)["recovery"]);
}
