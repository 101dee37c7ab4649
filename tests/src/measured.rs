//! What faults cost, kept beside what `make bench-operator` measures.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::root;

/// The part of `target/bench/operator.json` that these rows are.
const PART: &str = "recovery";

/// Prints how long something took, and keeps it with earlier runs of the same commit. `goal` is in seconds.
pub fn seconds(name: &str, took: Duration, goal: Option<u32>) {
    println!("{name}: {:.1} s", took.as_secs_f64());
    let path = root().join("target/bench/operator.json");
    let text = fs::read_to_string(&path).unwrap_or_else(|_| "[]".to_owned());
    let mut rows: Vec<Value> = serde_json::from_str(&text).expect("rows as they were written");
    let ours = version();
    let found = |row: &Value| row["part"] == PART && row["name"] == name;
    let earlier = rows
        .iter()
        .position(found)
        .map(|at| rows.remove(at))
        .filter(|row| row["about"]["ours"] == ours);
    let mut runs: Vec<f64> = earlier
        .and_then(|row| serde_json::from_value(row["runs"]["ours"].clone()).ok())
        .unwrap_or_default();
    runs.push(took.as_secs_f64());
    rows.push(row(name, &runs, goal, &ours));
    fs::create_dir_all(root().join("target/bench")).expect("the folder of measurements");
    let text = serde_json::to_string_pretty(&rows).expect("plain data");
    fs::write(&path, text + "\n").expect("the measurements are writable");
}

fn row(name: &str, runs: &[f64], goal: Option<u32>, ours: &str) -> Value {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    json!({
        "name": name,
        "unit": "s",
        "ours": median,
        "peers": {},
        "ratio": {},
        "goal": goal.map_or(json!({}), |goal| json!({"atMost": goal})),
        "met": goal.map(|goal| median <= f64::from(goal)),
        "runs": {"ours": runs},
        "part": PART,
        "about": {"machine": machine(), "ours": ours},
    })
}

fn version() -> String {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(root())
        .output();
    let described = described.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&described).trim().to_owned()
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = cpus
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let names: Vec<&str> = names.map(|(_, name)| name).collect();
    format!(
        "{} cores of {}",
        names.len(),
        names.first().copied().unwrap_or("an unknown kind")
    )
}
