//! What a rank tells its agent.

use contract::metric_names;
use serde_json::json;

use crate::harness::{FakeAgent, Fixture, Start};

#[test]
fn the_agent_hears_everything_it_needs() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 2, "evaluateEvery": 1}}));
    let agent = FakeAgent::start(fixture.folder.path(), None);
    fixture.succeed(&Start {
        restart: 3,
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 1)
    });
    let lines = agent.lines();
    let hello = &lines[0];
    assert_eq!(
        ("hello", 0, 1),
        (
            hello["type"].as_str().expect("text"),
            hello["rank"].as_u64().expect("a number"),
            hello["version"].as_u64().expect("a number"),
        )
    );
    assert_eq!(json!({"incarnation": 0, "restart": 3}), hello["attempt"]);
    let result = lines.last().expect("lines");
    assert_eq!(
        json!({"type": "result", "message": "the run is complete: 2 epochs"}),
        *result
    );

    // Every series the agent serves is fed (that of skipped images with 0), but for the one that takes two ranks.
    let samples: Vec<_> = agent
        .of_type("metrics")
        .iter()
        .flat_map(|line| line["samples"].as_array().expect("samples").clone())
        .collect();
    let alone = metric_names::ALL_REDUCE_BYTES_PER_SECOND.name;
    for metric in metric_names::TRAINING
        .iter()
        .filter(|metric| metric.name != alone)
    {
        let of_metric: Vec<_> = samples
            .iter()
            .filter(|s| s["metric"] == metric.name)
            .collect();
        assert!(!of_metric.is_empty(), "{} is never sent", metric.name);
        for sample in of_metric {
            let mut labels: Vec<&str> = sample["labels"]
                .as_object()
                .map(|labels| labels.keys().map(String::as_str).collect())
                .unwrap_or_default();
            labels.sort_unstable();
            let mut expected = metric.labels.to_vec();
            expected.retain(|label| *label != "rank");
            expected.sort_unstable();
            assert_eq!(expected, labels, "{}", metric.name);
        }
    }

    let reports = agent.of_type("report");
    let last = reports.last().expect("reports");
    assert_eq!("Finished", last["phase"]);
    let progress = &last["progress"];
    assert_eq!(
        json!([2, 2, 6, 6]),
        json!([
            progress["epoch"],
            progress["epochs"],
            progress["step"],
            progress["steps"]
        ])
    );
    assert_eq!(100.0, progress["percent"]);
    assert!(progress["trainingSeconds"].as_f64() > Some(0.0));
    let first_step = progress["firstStepTime"].as_str().expect("a time");
    first_step.parse::<jiff::Timestamp>().expect("RFC 3339");
    assert_eq!(2, last["latest"]["epoch"]);
    assert!(last["latest"]["mAP50"].is_number() && last["best"]["mAP50_95"].is_number());
    assert_eq!(
        "tiny-local/checkpoints/step-000000006",
        last["checkpoint"]["path"]
    );
    assert_eq!("tiny-local/weights/best.safetensors", last["bestWeights"]);
    assert!(
        fixture
            .path("o/tiny-local/weights/best.safetensors")
            .is_file()
    );

    let snapshots = agent.of_type("snapshot");
    let snapshot = snapshots.last().expect("snapshots");
    let manifest = fixture.path("o/tiny-local/checkpoints/step-000000006/manifest.json");
    let bytes = std::fs::read(manifest).expect("readable");
    assert_eq!(blake3::hash(&bytes).to_hex().as_str(), snapshot["checksum"]);

    for phase in ["Training", "Evaluating", "Checkpointing"] {
        assert!(
            reports.iter().any(|report| report["phase"] == phase),
            "no report says {phase}"
        );
    }
}

#[test]
fn ranks_say_how_fast_they_exchange_gradients() {
    let fixture = Fixture::new(&json!({"training": {"epochs": 1}}));
    let agent = FakeAgent::start(fixture.folder.path(), None);
    fixture.succeed(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 2)
    });
    let name = metric_names::ALL_REDUCE_BYTES_PER_SECOND.name;
    let rates: Vec<f64> = agent
        .of_type("metrics")
        .iter()
        .flat_map(|line| line["samples"].as_array().expect("samples").clone())
        .filter(|sample| sample["metric"] == name)
        .map(|sample| sample["value"].as_f64().expect("a number"))
        .collect();
    // Rank 0 speaks for all.
    assert_eq!(1, rates.len(), "{rates:?}");
    assert!(rates[0] > 0.0);
    let said = agent
        .of_type("report")
        .iter()
        .any(|report| report["allReduceBytesPerSecond"] == rates[0]);
    assert!(said, "no report has {}", rates[0]);
}

#[test]
fn a_failure_is_the_last_line_with_its_reason() {
    let fixture = Fixture::new(&json!({}));
    std::fs::write(fixture.path("data/labels/train/bad.txt"), "x").expect("written");
    std::fs::remove_file(fixture.path("data/data.yaml")).expect("removed");
    let agent = FakeAgent::start(fixture.folder.path(), None);
    let ended = fixture.run(&Start {
        agent: Some(agent.socket.clone()),
        ..Start::new("o", 1)
    });
    assert_eq!(Some(65), ended[0].code, "{}", ended[0].text);
    let lines = agent.lines();
    let last = lines.last().expect("lines");
    assert_eq!(
        ("result", "InvalidDataset"),
        (
            last["type"].as_str().expect("text"),
            last["reason"].as_str().expect("text"),
        )
    );
    assert!(
        last["message"]
            .as_str()
            .expect("text")
            .contains("data.yaml")
    );
}

#[test]
fn a_missing_agent_is_said() {
    let fixture = Fixture::new(&json!({}));
    let ended = fixture.run(&Start {
        agent: Some(fixture.path("nobody.sock")),
        ..Start::new("o", 1)
    });
    assert_eq!(Some(64), ended[0].code);
    assert!(
        ended[0].text.contains("cannot reach the agent"),
        "{}",
        ended[0].text
    );
}
