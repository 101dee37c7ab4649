//! The range of every number, at its bounds and beyond them.

use contract::spec::{LIMITS, Limit};
use serde_json::{Map, Value, json};
use tests::{Job, Namespace, kubectl_in};

/// A whole number as JSON has it for fields that take no others.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// A job with one number of its own.
fn job(name: &str, limit: &Limit, value: f64) -> Value {
    let mut manifest: Value = serde_json::from_str(&Job::new(name).manifest()).expect("JSON");
    let (parents, field) = match limit.field.rsplit_once('.') {
        Some((parents, field)) => (parents.split('.').collect(), field),
        None => (Vec::new(), limit.field),
    };
    let mut place = &mut manifest["spec"];
    for parent in parents {
        if place[parent].is_null() {
            place[parent] = Map::new().into();
        }
        place = &mut place[parent];
    }
    place[field] = number(value);
    manifest
}

/// Values within a range and beyond it, and whether they are within.
fn values(limit: &Limit) -> Vec<(f64, bool)> {
    let Limit {
        low, high, above, ..
    } = *limit;
    let mut values = vec![(if above { low } else { low - 1.0 }, false)];
    if !above {
        values.push((low, true));
    }
    if high.is_finite() {
        values.extend([(high, true), (high + 1.0, false)]);
    }
    values
}

#[test]
fn every_number_is_taken_at_its_bounds_and_refused_beyond_them() {
    let namespace = Namespace::new("bounds");
    let mut asked = Vec::new();
    let mut jobs = Vec::new();
    for (i, limit) in LIMITS.iter().enumerate() {
        for (k, (value, within)) in values(limit).into_iter().enumerate() {
            let name = format!("n{i}-{k}");
            jobs.push(job(&name, limit, value));
            asked.push((name, limit, value, within));
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": jobs});
    let namespace = ["--namespace", namespace.name()];
    let arguments = [&namespace[..], &["apply", "--dry-run=server", "-f", "-"]].concat();
    let output = kubectl_in(&arguments, &list.to_string());
    let mut wrong = Vec::new();
    for (name, limit, value, within) in asked {
        let taken = output
            .stdout
            .contains(&format!("/{name} created (server dry run)"));
        let mut refusals = output.stderr.split("YoloTrainingJob.yolo-operator.dev \"");
        let refusal = refusals.find(|text| text.starts_with(&format!("{name}\"")));
        assert!(
            taken != refusal.is_some(),
            "{name}: neither taken nor refused\n{}",
            output.stderr
        );
        let refusal = refusal.unwrap_or_default();
        // Another rule may have something against a bound; and a type without a sign refuses what is below 0 itself.
        let words = format!("{} is", limit.field);
        let by_range = refusal.contains(&words) && refusal.contains(&limit.remedy());
        let by_type = value < 0.0 && refusal.contains("greater than or equal to 0");
        if within == (by_range || by_type) {
            wrong.push(format!("{} = {value}: {refusal}", limit.field));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
