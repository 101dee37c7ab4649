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
