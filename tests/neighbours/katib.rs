//! Katib searches hyperparameters; each of its trials is a job of ours.

use std::time::Duration;

use serde_json::Value;
use tests::cluster::root;
use tests::{Namespace, data, kubectl, until};

const NAME: &str = "digits";
/// What is looked for in these small trainings, whose precision is nothing yet.
const LOSS: &str = "val/box_loss";

/// The example of the documentation, made small; `changes` are further replacements of its text.
fn experiment(namespace: &Namespace, changes: &[(&str, &str)]) -> String {
    let path = root().join("examples/katib.yaml");
    let mut text = std::fs::read_to_string(path).expect("the example");
    let own = format!("configMapNamespace: {}", namespace.name());
    let small = [
        ("configMapNamespace: default", own.as_str()),
        ("ghcr.io/kubeflow/katib/", "localhost/"),
        ("epochs: 30", "epochs: 2"),
        ("imageSize: 160", "imageSize: 64"),
        ("maxTrialCount: 12", "maxTrialCount: 3"),
        ("metrics/mAP_0.5:0.95", LOSS),
        ("maximize", "minimize"),
        // So that its jobs are there to be looked at.
        ("  trialTemplate:", "  trialTemplate:\n    retain: true"),
    ];
    for (from, to) in small.iter().chain(changes) {
        assert!(text.contains(from), "the example says nothing of {from}");
        text = text.replace(from, to);
    }
    text
}

/// A namespace in which Katib collects metrics.
fn namespace(test: &str) -> Namespace {
    let namespace = Namespace::new(test);
    let label = "katib.kubeflow.org/metrics-collector-injection=enabled";
    kubectl(&["label", "namespace", namespace.name(), label]).expect("labelling the namespace");
    data::digits(&namespace, 64, 16, 64);
    namespace
}

/// The experiment when it has ended, one way or the other.
fn ended(namespace: &Namespace) -> Value {
    until("the experiment to end", Duration::from_mins(5), || {
        let seen = namespace.get("experiment", NAME).unwrap_or_default();
        let over = ["Succeeded", "Failed"]
            .iter()
            .any(|kind| holds(&seen, kind));
        if over {
            Ok(seen)
        } else {
            Err(seen["status"].to_string())
        }
    })
}

fn holds(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// A metric of a trial as Katib has it.
fn observed(trial: &Value, name: &str) -> f64 {
    let metrics = trial["status"]["observation"]["metrics"].as_array();
    let mut metrics = metrics.into_iter().flatten();
    let found = metrics.find(|metric| metric["name"] == name);
    let latest = found.and_then(|metric| metric["latest"].as_str());
    let latest = latest.and_then(|text| text.parse().ok());
    latest.unwrap_or_else(|| panic!("no {name} in {}", trial["status"]))
}

#[test]
fn trials_get_their_values_and_katib_their_metrics() {
    let namespace = namespace("katib");
    let text = experiment(&namespace, &[]);
    namespace.apply(&text).expect("applying the example");
    let done = ended(&namespace);
    assert!(holds(&done, "Succeeded"), "{}", done["status"]);

    let trials = namespace.list("trials.kubeflow.org", "");
    assert_eq!(3, trials.len());
    for trial in &trials {
        let name = trial["metadata"]["name"].as_str().expect("a name");
        let job = namespace.get("yolotrainingjob", name).expect("its job");
        for value in trial["spec"]["parameterAssignments"]
            .as_array()
            .expect("values")
        {
            let key = value["name"].as_str().expect("a name");
            let given = value["value"]
                .as_str()
                .and_then(|text| text.parse::<f64>().ok());
            assert!(given.is_some());
            assert_eq!(given, job["spec"]["hyperparameters"][key].as_f64());
        }
        let latest = &job["status"]["latest"];
        let known = [
            (LOSS, &latest["valLoss"]["box"]),
            ("metrics/mAP_0.5", &latest["mAP50"]),
        ];
        for (metric, known) in known {
            let (told, known) = (observed(trial, metric), known.as_f64().expect("a number"));
            println!("{name}: {metric} is {told}, {known} in the status");
            // The table has five digits.
            assert!((told - known).abs() <= 1e-4 * known, "{told}, {known}");
        }
        assert!(holds(&job, "Complete"));
    }

    let losses = trials.iter().map(|trial| observed(trial, LOSS));
    let least = losses.min_by(f64::total_cmp).expect("trials");
    assert!(least > 0.0);
    let optimal = &done["status"]["currentOptimalTrial"]["bestTrialName"];
    let chosen = trials
        .iter()
        .find(|trial| trial["metadata"]["name"] == *optimal);
    assert_eq!(least, observed(chosen.expect("a trial"), LOSS));
}

#[test]
fn a_job_that_fails_is_a_trial_that_failed() {
    let namespace = namespace("katib-failed");
    let changes = [
        ("subPath: digits", "subPath: nowhere"),
        ("maxFailedTrialCount: 3", "maxFailedTrialCount: 1"),
        ("parallelTrialCount: 2", "parallelTrialCount: 1"),
    ];
    let text = experiment(&namespace, &changes);
    namespace.apply(&text).expect("applying the example");
    let done = ended(&namespace);
    assert!(holds(&done, "Failed"), "{}", done["status"]);
    let trials = namespace.list("trials.kubeflow.org", "");
    assert!(trials.iter().any(|trial| holds(trial, "Failed")));
}
