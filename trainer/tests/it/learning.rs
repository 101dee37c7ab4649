//! A few scenes can be learnt by heart.

use serde_json::json;

use crate::harness::{Fixture, Start};

#[test]
fn the_loss_falls_and_objects_are_found() {
    let fixture = Fixture::new(&json!({
        "training": {"epochs": 150, "batchSize": 13, "evaluateEvery": 150, "checkpointEvery": 150},
        "hyperparameters": {"nominalBatchSize": 13, "warmupEpochs": 1.0, "lr0": 0.02},
        "augmentation": {
            "mosaic": 0.0, "fliplr": 0.0, "scale": 0.0, "translate": 0.0,
            "hsvH": 0.0, "hsvS": 0.0, "hsvV": 0.0,
        },
    }));
    let before = fixture.data_listing();
    fixture.succeed(&Start::new("o", 1));
    assert_eq!(before, fixture.data_listing(), "the data set was changed");

    let path = fixture.run_folder("o").join("results.csv");
    let text = std::fs::read_to_string(path).expect("readable");
    let total = |row: &str| -> f64 {
        let cells: Vec<f64> = row
            .split(',')
            .skip(1)
            .take(3)
            .map(|c| c.trim().parse().expect("a number"))
            .collect();
        cells.iter().sum()
    };
    let rows: Vec<&str> = text.lines().skip(1).collect();
    let (first, last) = (total(rows[0]), total(rows[rows.len() - 1]));
    assert!(last < 0.6 * first, "the loss went from {first} to {last}");
}

/// The numbers of one column of `results.csv`.
fn column(text: &str, name: &str) -> Vec<f64> {
    let mut lines = text.lines();
    let header = lines.next().expect("a header");
    let at = header
        .split(',')
        .position(|cell| cell.trim() == name)
        .expect("the column");
    lines
        .map(|row| {
            let cell = row.split(',').nth(at).expect("the column");
            cell.trim().parse().expect("a number")
        })
        .collect()
}

#[test]
fn a_run_that_no_longer_improves_ends_early_and_stays_ended() {
    let (epochs, patience) = (100, 3);
    let fixture = Fixture::new(&json!({
        "training": {
            "epochs": epochs, "batchSize": 26, "evaluateEvery": 1, "checkpointEvery": 100,
            "patience": patience, "fitness": {"recall": 1.0, "mAP50": 0.0, "mAP50_95": 0.0},
        },
        // Objects are told from the background within 25 epochs, and then the recall goes up and down.
        "hyperparameters": {"nominalBatchSize": 26, "warmupEpochs": 1.0, "lr0": 0.05, "objGain": 20.0},
        "augmentation": {
            "mosaic": 0.0, "fliplr": 0.0, "scale": 0.0, "translate": 0.0,
            "hsvH": 0.0, "hsvS": 0.0, "hsvV": 0.0,
        },
    }));
    let ended = fixture.succeed(&Start::new("o", 2));
    let path = fixture.run_folder("o").join("results.csv");
    let recalls = column(
        &std::fs::read_to_string(&path).expect("readable"),
        "metrics/recall",
    );
    // The rule, applied to the table the run has written.
    let mut best = 0;
    let due = (0..recalls.len()).find(|&epoch| {
        if recalls[epoch] >= recalls[best] {
            best = epoch;
        }
        epoch - best >= patience
    });
    let due = due.unwrap_or_else(|| panic!("the recall never stopped rising: {recalls:?}"));
    assert_eq!(due + 1, recalls.len(), "{recalls:?}");
    assert!(recalls.len() < epochs, "{recalls:?}");
    let words = format!(
        "ended early after epoch {} of {epochs}, since epoch {} stayed the best for 3 epochs",
        due + 1,
        best + 1
    );
    assert!(ended[0].text.contains(&words), "{}", ended[0].text);

    let again = fixture.succeed(&Start::new("o", 2));
    assert!(again[0].text.contains(&words), "{}", again[0].text);
    let after = column(
        &std::fs::read_to_string(&path).expect("readable"),
        "metrics/recall",
    );
    assert_eq!(recalls, after);
}
