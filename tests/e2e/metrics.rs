//! A real Prometheus reads what the dashboard shows.

use std::time::Duration;

use serde_json::Value;
use tests::cluster::query;
use tests::{Job, Namespace, data, until};

use crate::seen;

/// Every query of the dashboard, with its variables replaced by "everything" in one namespace.
fn dashboard_queries(namespace: &str) -> Vec<(String, String)> {
    let path = tests::cluster::root().join("charts/yolo-operator/files/dashboards/training.json");
    let text = std::fs::read_to_string(path).expect("the dashboard is readable");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("every target has a query");
            let expression = expression
                .replace("$namespace", namespace)
                .replace("$training_job", ".*");
            assert!(
                !expression.contains('$'),
                "a variable the test does not know: {expression}"
            );
            queries.push((
                panel["title"].as_str().expect("a title").to_owned(),
                expression,
            ));
        }
    }
    queries
}

#[test]
fn every_query_of_the_dashboard_returns_data_while_a_job_runs() {
    let namespace = Namespace::new("metrics");
    data::digits(&namespace, 64, 16, 64);
    let job = Job::new("watched").set("/training/epochs", 60);
    namespace.apply(&job.manifest()).expect("applying the job");
    seen::wait(&namespace, "watched", "a first evaluation", |job| {
        job["status"]["latest"]["mAP50"].is_number()
    });
    let queries = dashboard_queries(namespace.name());
    assert!(
        queries.len() >= 20,
        "the dashboard has {} queries",
        queries.len()
    );
    for (panel, expression) in queries {
        // Rates need two scrapes.
        until(
            &format!("data for '{panel}': {expression}"),
            Duration::from_secs(30),
            || {
                let values = query(&expression);
                let number =
                    |one: &Value| one["value"][1].as_str().is_some_and(|text| text != "NaN");
                if values.iter().any(number) {
                    Ok(())
                } else {
                    Err(format!("{values:?}"))
                }
            },
        );
    }
}

#[test]
fn every_training_series_of_the_contract_is_scraped_with_its_labels() {
    let namespace = Namespace::new("series");
    data::digits(&namespace, 64, 16, 64);
    let job = Job::new("scraped").set("/training/epochs", 60);
    namespace.apply(&job.manifest()).expect("applying the job");
    // First, while both workers live.
    let ranks = format!(
        "count(count by (rank) (yolo_train_step_seconds_count{{namespace=\"{}\"}}))",
        namespace.name()
    );
    until("series of both ranks", seen::END, || {
        let found = query(&ranks);
        if found.iter().any(|one| one["value"][1] == "2") {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    });
    for metric in contract::metric_names::TRAINING {
        let histogram = matches!(metric.kind, contract::metric_names::Kind::Histogram(_));
        let name = if histogram {
            format!("{}_count", metric.name)
        } else {
            metric.name.to_owned()
        };
        let expression = format!("{name}{{namespace=\"{}\"}}", namespace.name());
        let series = until(&expression, seen::END, || {
            let found = query(&expression);
            if found.is_empty() {
                Err("no series".to_owned())
            } else {
                Ok(found)
            }
        });
        for one in series {
            assert_eq!("scraped", one["metric"]["training_job"], "{one}");
            assert_eq!("0.0", one["metric"]["attempt"], "{one}");
            for label in metric.labels {
                assert!(
                    one["metric"][label].is_string(),
                    "{name} has no label {label}: {one}"
                );
            }
        }
    }
}
