//! Several ranks: the same state on each, stopped together, and no rank left waiting.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{FakeAgent, Fixture, Start, free_port, wait};

/// `--verify-ranks` compares the whole state after every step; one short batch leaves a rank without images.
#[test]
fn three_ranks_hold_the_same_state_and_evaluate_as_one() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 2, "evaluateEvery": 1}}));
    fixture.succeed(&Start {
        flags: &["--verify-ranks"],
        ..Start::new("three", 3)
    });
    let state = fixture.state("three", 6);
    assert_eq!(52, state["imagesSeen"]);
    assert_eq!(3, state["machine"]["worldSize"]);

    // One rank goes on from the three ranks' last checkpoint, taken before the evaluation counted.
    let results = fixture.run_folder("three").join("results.csv");
    let rows = std::fs::read_to_string(results).expect("readable");
    assert_eq!(3, rows.lines().count(), "{rows}");
    let weights = fixture.run_folder("three").join("weights/last.safetensors");
    let output = crate::harness::program()
        .args(["eval", "--json", "--weights"])
        .arg(weights)
        .arg("--data")
        .arg(fixture.path("data/data.yaml"))
        .args(["--batch-size", "12"])
        .output()
        .expect("ran");
    let alone: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for key in ["mAP50", "mAP50_95", "precision", "recall"] {
        let together = state["latest"][key].as_f64().expect("a number");
        let alone = alone[key].as_f64().expect("a number");
        assert!(
            (together - alone).abs() < 1e-6,
            "{key}: {together} and {alone}"
        );
    }
}

/// One rank and three: the last short batch leaves the third without an image.
#[test]
fn ranks_that_normalise_together_learn_like_one() {
    let change = |sync: bool| json!({"training": {"epochs": 2, "syncBatchNorm": sync}});
    let fixture = Fixture::new(&change(true));
    fixture.succeed(&Start::new("one", 1));
    fixture.succeed(&Start {
        flags: &["--verify-ranks"],
        ..Start::new("three", 3)
    });
    fixture.write_manifest(&change(false));
    fixture.succeed(&Start::new("apart", 3));
    let loss = |output: &str| {
        fixture.state(output, 6)["latest"]["trainLoss"]["total"]
            .as_f64()
            .expect("a number")
    };
    let (one, three) = (loss("one"), loss("three"));
    assert!((one - three).abs() < 2e-3 * one, "{one} and {three}");
    // Rounding in 32 bits grows over the steps, but stays far below what it makes to normalise apart.
    let one = variances(&fixture, "one");
    let distance = |other: &str| {
        let pairs = one.iter().zip(variances(&fixture, other));
        pairs.map(|(a, b)| (a - b).abs() / a).fold(0.0, f32::max)
    };
    let (together, apart) = (distance("three"), distance("apart"));
    assert!(5.0 * together < apart, "{together} and {apart}");
}

/// Quads are dealt out whole, and all ranks draw the same images.
#[test]
fn quads_of_weighted_images_are_those_of_one_rank() {
    let fixture = Fixture::new(&json!({"training": {
        "epochs": 1, "evaluateEvery": 1, "quad": true, "imageWeights": true, "syncBatchNorm": true, "deterministic": true,
    }}));
    fixture.succeed(&Start::new("one", 1));
    fixture.succeed(&Start {
        flags: &["--verify-ranks"],
        ..Start::new("three", 3)
    });
    let [one, three] = ["one", "three"].map(|output| fixture.state(output, 3));
    assert_eq!(one["imagesSeen"], three["imagesSeen"]);
    assert_eq!(26, one["imagesSeen"]);
    assert_eq!(10, one["classAps"].as_array().expect("a list").len());
    let [a, b] = [&one, &three].map(|state| {
        let loss = &state["latest"]["trainLoss"];
        ["box", "obj", "cls"].map(|part| loss[part].as_f64().expect("a number"))
    });
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 1e-4 * a, "{a} and {b}");
    }
}

/// Running variances in the middle of the network.
fn variances(fixture: &Fixture, output: &str) -> Vec<f32> {
    let bytes = &fixture.tensors(output, 6)["model.safetensors"];
    let tensors = safetensors::SafeTensors::deserialize(bytes).expect("a file of tensors");
    let values = tensors.tensor("model.9.cv1.bn.running_var");
    values
        .expect("a variance")
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}

#[cfg(target_os = "linux")]
fn terminate(pid: u32) {
    let status = std::process::Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status()
        .expect("kill");
    assert!(status.success());
}

#[test]
fn sigterm_to_one_rank_stops_all_at_the_same_step() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1000}}));
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let children = fixture.spawn(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 3)
    });
    agent.wait_for("training", |line| {
        line["type"] == "report" && line["progress"]["step"].as_u64() >= Some(2)
    });
    terminate(children[2].id());
    let start = Instant::now();
    for (rank, ended) in wait(children).iter().enumerate() {
        assert_eq!(Some(143), ended.code, "rank {rank}: {}", ended.text);
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
    let results = agent.of_type("result");
    assert_eq!(3, results.len());
    for result in &results {
        assert_eq!("Stopped", result["reason"]);
    }
    let messages: std::collections::BTreeSet<String> = results
        .iter()
        .map(|result| result["message"].to_string())
        .collect();
    assert_eq!(1, messages.len(), "{messages:?}");

    // The same job goes on with it.
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let children = fixture.spawn(&Start {
        restart: 1,
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 3)
    });
    let stopped_at = *fixture.checkpoints("o").last().expect("one");
    agent.wait_for("training", |line| {
        line["type"] == "report" && line["progress"]["step"].as_u64() > Some(stopped_at)
    });
    for child in &children {
        terminate(child.id());
    }
    for ended in wait(children) {
        assert_eq!(Some(143), ended.code, "{}", ended.text);
    }
}

#[test]
fn a_killed_rank_is_a_lost_peer_to_the_others() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1000}}));
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let mut children = fixture.spawn(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 3)
    });
    agent.wait_for("training", |line| {
        line["type"] == "report" && line["progress"]["step"].as_u64() >= Some(1)
    });
    children[1].kill().expect("killed");
    let start = Instant::now();
    for (rank, ended) in wait(children).iter().enumerate() {
        if rank != 1 {
            assert_eq!(Some(76), ended.code, "rank {rank}: {}", ended.text);
            assert!(ended.text.contains("(PeerLost)"), "{}", ended.text);
        }
    }
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn ranks_with_different_data_do_not_start() {
    let fixture = Fixture::new(&json!({}));
    let other = Fixture::new(&json!({}));
    std::fs::remove_file(other.path("data/images/train").join(first_image(&other)))
        .expect("removed");
    let start = Start::new("o", 2);
    let port = free_port();
    let children = [&fixture, &other]
        .into_iter()
        .zip(0..)
        .map(|(fixture, rank)| {
            let mut command = fixture.command(&start, rank, port);
            command.stdout(std::process::Stdio::piped());
            command.spawn().expect("started")
        });
    for ended in wait(children.collect()) {
        assert_eq!(Some(65), ended.code, "{}", ended.text);
        assert!(
            ended.text.contains("rank 1 sees another data set"),
            "{}",
            ended.text
        );
    }
}

fn first_image(fixture: &Fixture) -> std::ffi::OsString {
    let mut names: Vec<_> = std::fs::read_dir(fixture.path("data/images/train"))
        .expect("readable")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    names.swap_remove(0)
}
